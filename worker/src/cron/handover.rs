//! One schedule, two generations: what is promised when the writer lease moves, tried with
//! clocks that are set by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, watch};

use super::clock::{Clock as _, SetClock, SystemClock};
use super::driver::{Driver, Order, Tell};
use super::job::Job;
use super::jobs::Jobs;
use super::planner::{MISSED_AFTER, RECHECK};
use crate::state::store::Store;
use crate::state::store::cron_jobs::{JobId, Which};
use crate::state::store::cron_runs::{RunOutcome, Status};
use crate::state::store::run_list::{FinishedRun, RunFilter};
use crate::state::store::shared::Shared;

const START: i64 = 1_795_225_770_000;

type Run = Box<dyn Fn(Order) -> BoxFuture<'static, RunOutcome> + Send + Sync>;

/// What was run, by which generation.
type Ran = Arc<Mutex<Vec<(JobId, Option<i64>)>>>;

struct Generation {
    driver: Driver<SetClock, Run>,
    grant: watch::Sender<Option<u64>>,
    lease: watch::Receiver<Option<u64>>,
}

impl Generation {
    async fn pass(&mut self) {
        self.driver.pass(&self.lease).await;
    }
}

struct World {
    shared: Shared,
    clock: Arc<SetClock>,
    ran: Ran,
    /// A run ends when it gets a permit. Each has one at once, unless a test takes them away.
    gate: Arc<Semaphore>,
    generations: u64,
}

impl World {
    fn new() -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let clock = Arc::new(SetClock::at(START));
        Self { shared: Shared::new(), clock, ran: Ran::default(), gate, generations: 0 }
    }

    /// One whose runs wait.
    fn gated() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..Self::new() }
    }

    async fn generation(&mut self) -> Generation {
        self.generations += 1;
        let store = self.shared.open(&format!("g{}", self.generations)).await;
        self.of(store, 8)
    }

    fn of(&self, store: Store, at_once: usize) -> Generation {
        let (grant, lease) = watch::channel(None);
        let driver = Driver::new(store, Arc::clone(&self.clock), told(), at_once, self.runner());
        Generation { driver, grant, lease }
    }

    fn runner(&self) -> Run {
        let (ran, gate) = (Arc::clone(&self.ran), Arc::clone(&self.gate));
        Box::new(move |order| {
            ran.lock().unwrap().push((order.job, order.due_at_ms));
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                gate.add_permits(usize::from(gate.available_permits() > 1 << 20));
                RunOutcome::of(Status::Ok)
            }
            .boxed()
        })
    }

    async fn add(&self, store: &Store, schedule: Value, missed: &str) -> JobId {
        let jobs = Jobs::new(store.clone(), Arc::clone(&self.clock), told(), Arc::new(|| {}));
        let job = json!({"name": "j", "schedule": schedule, "sessionTarget": "isolated",
            "wakeMode": "now", "payload": {"kind": "agentTurn", "message": "m"},
            "deleteAfterRun": false, "missedRuns": missed});
        let made = jobs.add(&job).await.unwrap();
        JobId(made["id"].as_str().unwrap().to_owned())
    }

    fn ran(&self) -> Vec<(JobId, Option<i64>)> {
        self.ran.lock().unwrap().clone()
    }
}

fn told() -> Tell {
    Arc::new(|_| {})
}

fn every(seconds: i64) -> Value {
    json!({"kind": "every", "everyMs": seconds * 1000})
}

async fn recorded(store: &Store) -> Vec<FinishedRun> {
    let mut all = Vec::new();
    loop {
        let offset = u32::try_from(all.len()).unwrap();
        let filter = RunFilter { offset, limit: Some(200), ..RunFilter::default() };
        let page = store.runs(filter).await.unwrap();
        if page.runs.is_empty() {
            return all;
        }
        all.extend(page.runs);
    }
}

/// A small generator (splitmix64): a seed tells the whole story again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Two minutes of a schedule with takeovers at random instants: in order, with a successor that is told before the
/// incumbent is, with a while in which nobody holds the lease, and with generations that pass at once.
async fn story(seed: u64) {
    let mut dice = Dice(seed);
    let mut world = World::new();
    let mut present = vec![world.generation().await];
    let store = world.shared.open("observer").await;
    world.add(&store, every(7), "once").await;
    world.add(&store, every(11), "skip").await;
    let seconds = json!({"kind": "cron", "expr": "*/5 * * * * *", "tz": "UTC"});
    world.add(&store, seconds.clone(), "once").await;
    world.add(&store, seconds, "skip").await;
    world.add(&store, json!({"kind": "at", "at": "2026-11-21T01:50:03Z"}), "once").await;
    let jobs = store.jobs(Which::All).await.unwrap();
    let mut grant = 1;
    present[0].grant.send_replace(Some(grant));
    // After how many steps the incumbent hears of it, and the successor.
    let mut coming: Option<(u64, u64)> = None;
    while world.clock.now().wall_ms < START + 120_000 {
        let asleep = if dice.one_in(40) { 70_000 } else { 0 };
        world.clock.pass(asleep + 1 + i64::try_from(dice.below(1500)).unwrap());
        if coming.is_none() && dice.one_in(6) {
            present.push(world.generation().await);
            coming = Some((dice.below(4), dice.below(4)));
        }
        if let Some((incumbent, successor)) = &mut coming {
            let last = present.len() - 1;
            if *incumbent == 0 {
                present[last - 1].grant.send_replace(None);
            }
            if *successor == 0 && *present[last].grant.borrow() != Some(grant + 1) {
                present[last].grant.send_replace(Some(grant + 1));
            }
            if (*incumbent, *successor) == (0, 0) {
                (coming, grant) = (None, grant + 1);
            } else {
                (*incumbent, *successor) =
                    (incumbent.saturating_sub(1), successor.saturating_sub(1));
            }
        }
        join_all(present.iter_mut().map(Generation::pass)).await;
        if dice.one_in(2) {
            join_all(present.iter_mut().map(|generation| generation.driver.finish())).await;
        }
        if coming.is_none() && present.len() > 1 && dice.one_in(3) {
            let mut drained = present.remove(0);
            drained.driver.finish().await;
        }
    }
    // Whatever was going on, in the end somebody holds it, and makes up for what was missed.
    let last = present.len() - 1;
    present[last].grant.send_replace(Some(grant + 9));
    for _ in 0..2 {
        present[last].pass().await;
        join_all(present.iter_mut().map(|generation| generation.driver.finish())).await;
    }

    let mut by_job: BTreeMap<JobId, Vec<FinishedRun>> = BTreeMap::new();
    for run in recorded(&store).await {
        by_job.entry(run.job_id.clone()).or_default().push(run);
    }
    let mut expected = Vec::new();
    for stored in jobs {
        let job = Job::read(stored).unwrap();
        let id = job.stored.id.clone();
        let mut runs = by_job.remove(&id).unwrap_or_default();
        runs.sort_by_key(|run| run.due_at_ms);
        // Each run is due at the first instant after the one before, and after that had begun.
        let mut due = job.timetable.first(START);
        for run in runs {
            let at_ms = run.due_at_ms.unwrap();
            assert_eq!(due, Some(at_ms), "seed {seed}: none left out, none twice");
            let late = run.started_at_ms - at_ms;
            let skipped = job.definition.missed_runs == super::job::MissedRuns::Skip
                && late > i64::try_from(MISSED_AFTER.as_millis()).unwrap();
            let status = if skipped { Status::Skipped } else { Status::Ok };
            assert_eq!(run.outcome.status, status, "seed {seed}: {late} ms late");
            if !skipped {
                expected.push((id.clone(), Some(at_ms)));
            }
            due = job.timetable.following(run.started_at_ms.max(at_ms));
        }
        let end = world.clock.now().wall_ms;
        assert!(due.is_none_or(|due| due > end), "seed {seed}: {due:?} was forgotten");
    }
    let mut ran = world.ran();
    ran.sort();
    expected.sort();
    assert_eq!(ran, expected, "seed {seed}: what is recorded is what ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_instant_runs_exactly_once_however_the_lease_moves() {
    let seeds = std::env::var("HOLDFAST_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    for seed in 0..seeds {
        story(seed).await;
    }
}

#[tokio::test]
async fn two_generations_that_both_think_they_hold_the_lease_claim_an_instant_once() {
    let mut world = World::new();
    let (mut g7, mut g8) = (world.generation().await, world.generation().await);
    let store = world.shared.open("observer").await;
    world.add(&store, every(10), "once").await;
    g7.grant.send_replace(Some(1));
    g7.pass().await;
    // The incumbent has not heard of it yet.
    g8.grant.send_replace(Some(2));
    for _ in 0..10 {
        world.clock.pass(10_000);
        tokio::join!(g7.pass(), g8.pass());
        tokio::join!(g7.driver.finish(), g8.driver.finish());
    }
    assert_eq!(world.ran().len(), 10);
}

#[tokio::test]
async fn a_job_that_runs_in_the_incumbent_is_finished_there_and_not_begun_by_the_successor() {
    let mut world = World::gated();
    let (mut g7, mut g8) = (world.generation().await, world.generation().await);
    let store = world.shared.open("observer").await;
    world.add(&store, every(10), "once").await;
    g7.grant.send_replace(Some(1));
    world.clock.pass(10_000);
    g7.pass().await;
    g7.grant.send_replace(None);
    g8.grant.send_replace(Some(2));
    world.clock.pass(10_000);
    tokio::join!(g7.pass(), g8.pass());
    let running = store.jobs(Which::All).await.unwrap().remove(0).running.unwrap();
    assert!(running.holder.starts_with("g1-"), "the first one's, still");
    world.gate.add_permits(1);
    g7.driver.finish().await;
    assert_eq!(recorded(&store).await.len(), 1, "it is recorded without the lease");
    g8.pass().await;
    world.gate.add_permits(1);
    g8.driver.finish().await;
    let due: Vec<_> = world.ran().into_iter().map(|(_, due)| due.unwrap() - START).collect();
    assert_eq!(due, [10_000, 20_000]);
}

#[tokio::test]
async fn a_run_whose_generation_died_is_recorded_and_not_repeated() {
    let mut world = World::gated();
    let (mut g7, mut g8) = (world.generation().await, world.generation().await);
    let store = world.shared.open("observer").await;
    world.add(&store, every(10), "once").await;
    g7.grant.send_replace(Some(1));
    world.clock.pass(10_000);
    g7.pass().await;
    while world.ran().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(g7);
    g8.grant.send_replace(Some(2));
    // The aborted run lets go of its store when the runtime gets round to it.
    while store.jobs(Which::All).await.unwrap()[0].running.is_some() {
        g8.pass().await;
        tokio::task::yield_now().await;
    }
    let runs = recorded(&store).await;
    assert_eq!((runs.len(), runs[0].outcome.status), (1, Status::Error));
    assert!(runs[0].outcome.error.as_deref().unwrap().starts_with("interrupted"));
    world.clock.pass(10_000);
    g8.pass().await;
    world.gate.add_permits(1);
    g8.driver.finish().await;
    let due: Vec<_> = world.ran().into_iter().map(|(_, due)| due.unwrap() - START).collect();
    assert_eq!(due, [10_000, 20_000], "each was begun once");
}

#[tokio::test]
async fn nothing_ticks_without_jobs_unless_somebody_else_could_make_some() {
    let mut world = World::new();
    let mut alone = world.generation().await;
    assert_eq!(alone.driver.pass(&alone.lease).await, None, "without the lease");
    alone.grant.send_replace(Some(1));
    assert_eq!(alone.driver.pass(&alone.lease).await, None, "without jobs");
    let other = world.shared.open("g2").await;
    assert_eq!(alone.driver.pass(&alone.lease).await, Some(RECHECK));
    world.add(&other, every(3600), "once").await;
    drop(other);
    assert_eq!(alone.driver.pass(&alone.lease).await, Some(RECHECK), "there is a job");
}

#[tokio::test]
async fn no_more_jobs_run_at_once_than_allowed_and_none_is_forgotten() {
    let world = World::gated();
    let store = world.shared.open("g1").await;
    for _ in 0..5 {
        world.add(&store, every(10), "once").await;
    }
    let mut generation = world.of(store, 2);
    generation.grant.send_replace(Some(1));
    world.clock.pass(10_000);
    for begun in [2, 4, 5] {
        generation.pass().await;
        world.gate.add_permits(2);
        generation.driver.finish().await;
        assert_eq!(world.ran().len(), begun);
    }
}

#[tokio::test]
async fn a_run_that_panics_or_was_asked_for_is_recorded_as_such() {
    let world = World::new();
    let store = world.shared.open("g1").await;
    let job = world.add(&store, every(10), "once").await;
    let run: Run = Box::new(|_| async { panic!("as asked") }.boxed());
    let mut driver = Driver::new(store.clone(), Arc::clone(&world.clock), told(), 1, run);
    let (_grant, lease) = watch::channel(Some(1));
    let jobs = Jobs::new(store.clone(), Arc::clone(&world.clock), told(), Arc::new(|| {}));
    jobs.request(&job, super::jobs::Mode::Force).await.unwrap();
    driver.pass(&lease).await;
    driver.finish().await;
    let runs = recorded(&store).await;
    assert_eq!((runs[0].due_at_ms, runs[0].outcome.status), (None, Status::Error));
    let shown = jobs.one(&job).await.unwrap().unwrap();
    assert_eq!(shown["state"]["lastStatus"], "error");
    assert_eq!(shown["state"]["lastError"], "the run ended in a panic");
    assert_eq!(shown["state"]["consecutiveErrors"], 1);
    assert_eq!(shown["state"]["nextRunAtMs"], START + 10_000, "its schedule stays");
    let page = jobs.runs(RunFilter::default()).await.unwrap();
    let expected = json!({"ts": START, "jobId": job.0, "action": "finished", "status": "error",
        "error": "the run ended in a panic", "runId": runs[0].run_id.0, "runAtMs": START,
        "durationMs": 0, "nextRunAtMs": START + 10_000});
    assert_eq!(page["entries"][0], expected);
}

#[tokio::test]
async fn the_driver_runs_what_is_due_under_the_lease_and_ends_when_nobody_can_grant_it_again() {
    let shared = Shared::new();
    let store = shared.open("g1").await;
    let (ran, mut runs) = tokio::sync::mpsc::channel(1);
    let run = move |order: Order| {
        let ran = ran.clone();
        async move {
            ran.send(order.due_at_ms).await.unwrap();
            let summary = format!("{} {}", order.definition.name, order.run_id.0);
            RunOutcome { summary: Some(summary), ..RunOutcome::of(Status::Ok) }
        }
    };
    let (grant, lease) = watch::channel(None);
    let (clock, nudge) = (Arc::new(SystemClock), Arc::new(Notify::new()));
    let driver = Driver::new(store.clone(), Arc::clone(&clock), told(), 4, run);
    let driving = tokio::spawn(driver.drive(lease, Arc::clone(&nudge)));
    let jobs = Jobs::new(store.clone(), clock, told(), Arc::new(move || nudge.notify_one()));
    let job = json!({"name": "j", "schedule": {"kind": "every", "everyMs": 20},
        "sessionTarget": "isolated", "wakeMode": "now",
        "payload": {"kind": "agentTurn", "message": "m"}});
    grant.send_replace(Some(1));
    // It sleeps by now, or will; the job wakes it.
    jobs.add(&job).await.unwrap();
    let mut last = None;
    for _ in 0..5 {
        let due = runs.recv().await.unwrap();
        assert!(due > last, "in order, and none twice");
        last = due;
    }
    grant.send_replace(None);
    drop(grant);
    while runs.recv().await.is_some() {}
    driving.await.unwrap();
    assert!(store.jobs(Which::All).await.unwrap()[0].running.is_none());
    for run in recorded(&store).await {
        assert_eq!(run.outcome.summary.unwrap(), format!("j {}", run.run_id.0));
    }
}
