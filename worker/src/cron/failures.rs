//! Jobs whose runs fail, tried with clocks that are set by hand: when they run again.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::clock::SetClock;
use super::driver::{Driver, Order, Tell};
use super::jobs::{Jobs, Mode};
use crate::state::store::Store;
use crate::state::store::cron_jobs::{JobId, StoredJob, Which};
use crate::state::store::cron_runs::{RunOutcome, Status};
use crate::state::store::run_list::RunFilter;
use crate::state::store::shared::Shared;

const START: i64 = 1_795_225_770_000;
const SECOND: i64 = 1000;

/// One generation with one job, whose runs fail for a reason while there is one.
struct World {
    _shared: Shared,
    store: Store,
    clock: Arc<SetClock>,
    jobs: Jobs<SetClock>,
    reason: Arc<Mutex<Option<&'static str>>>,
    job: JobId,
}

impl World {
    async fn with(schedule: Value) -> Self {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        let clock = Arc::new(SetClock::at(START));
        let jobs = Jobs::new(store.clone(), Arc::clone(&clock), silent(), Arc::new(|| {}));
        let job = json!({"name": "j", "schedule": schedule, "sessionTarget": "isolated",
            "wakeMode": "now", "payload": {"kind": "agentTurn", "message": "m"}});
        let made = jobs.add(&job).await.unwrap();
        let job = JobId(made["id"].as_str().unwrap().to_owned());
        Self { _shared: shared, store, clock, jobs, reason: Arc::default(), job }
    }

    fn fails(&self, reason: Option<&'static str>) {
        *self.reason.lock().unwrap() = reason;
    }

    /// Runs what is due.
    async fn pass(&self) {
        let reason = Arc::clone(&self.reason);
        let run = move |_: Order| {
            let reason = *reason.lock().unwrap();
            async move { reason.map_or(RunOutcome::of(Status::Ok), RunOutcome::failed) }
        };
        let store = self.store.clone();
        let mut driver = Driver::new(store, Arc::clone(&self.clock), silent(), 1, run);
        let (_grant, lease) = watch::channel(Some(1));
        driver.pass(&lease).await;
        driver.finish().await;
    }

    async fn stored(&self) -> Option<StoredJob> {
        self.store.jobs(Which::All).await.unwrap().pop()
    }

    /// In how many seconds it runs next; `None` when it does not.
    async fn next(&self) -> Option<i64> {
        let now = super::clock::Clock::now(&*self.clock).wall_ms;
        let next = self.stored().await?.next?;
        Some((next.at_ms - now) / SECOND)
    }

    async fn runs(&self) -> usize {
        self.store.runs(RunFilter::default()).await.unwrap().runs.len()
    }
}

fn silent() -> Tell {
    Arc::new(|_| {})
}

#[tokio::test]
async fn a_job_that_fails_runs_less_and_less_often_until_it_goes_well() {
    let world = World::with(json!({"kind": "every", "everyMs": 10 * SECOND})).await;
    world.fails(Some("no idea"));
    world.clock.pass(10 * SECOND);
    for (errors, pause) in [(1, 30), (2, 60), (3, 300), (4, 900), (5, 3600), (6, 3600)] {
        world.pass().await;
        assert_eq!(world.next().await, Some(pause));
        let past = world.stored().await.unwrap().past;
        assert_eq!((past.consecutive_errors, past.error.as_deref()), (errors, Some("no idea")));
        let shown = world.jobs.runs(RunFilter::default()).await.unwrap();
        let next = shown["entries"][0]["nextRunAtMs"].as_i64();
        assert_eq!(next, world.stored().await.unwrap().next.map(|next| next.at_ms));
        world.clock.pass(pause * SECOND - 1);
        world.pass().await;
        assert_eq!(world.runs().await, usize::try_from(errors).unwrap(), "it is left alone");
        world.clock.pass(1);
    }
    world.fails(None);
    world.pass().await;
    assert_eq!(world.next().await, Some(10), "as often as before");
    assert_eq!(world.stored().await.unwrap().past.consecutive_errors, 0);
}

#[tokio::test]
async fn a_job_that_fails_and_is_seldom_due_anyway_keeps_its_time() {
    let world = World::with(json!({"kind": "every", "everyMs": 7200 * SECOND})).await;
    world.fails(Some("no idea"));
    world.clock.pass(7200 * SECOND);
    world.pass().await;
    assert_eq!(world.next().await, Some(7200));
}

#[tokio::test]
async fn a_job_that_runs_once_is_tried_again_while_its_failure_may_pass() {
    let at = json!({"kind": "at", "at": "2026-11-21T01:50:00Z"});
    let world = World::with(at.clone()).await;
    world.fails(Some("HTTP 503"));
    world.clock.pass(60 * SECOND);
    for pause in [30, 60, 300] {
        world.pass().await;
        assert_eq!(world.next().await, Some(pause));
        world.clock.pass(pause * SECOND);
    }
    world.pass().await;
    let job = world.stored().await.unwrap();
    assert_eq!((job.enabled, job.next, world.runs().await), (false, None, 4), "that was enough");

    let world = World::with(at.clone()).await;
    world.fails(Some("no idea"));
    world.clock.pass(60 * SECOND);
    world.pass().await;
    assert!(!world.stored().await.unwrap().enabled, "it would fail again");

    let world = World::with(at).await;
    world.fails(Some("timeout"));
    world.clock.pass(60 * SECOND);
    world.pass().await;
    world.fails(None);
    world.clock.pass(30 * SECOND);
    world.pass().await;
    assert_eq!(world.stored().await, None, "it went well, and is forgotten");
}

#[tokio::test]
async fn a_job_that_was_edited_while_it_failed_runs_when_the_edit_says() {
    let world = World::with(json!({"kind": "every", "everyMs": 10 * SECOND})).await;
    let (edits, job) = (Arc::new(tokio::sync::Notify::new()), world.job.clone());
    let gate = Arc::clone(&edits);
    let run = move |_: Order| {
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            RunOutcome::failed("no idea")
        }
    };
    let clock = Arc::clone(&world.clock);
    let mut driver = Driver::new(world.store.clone(), clock, silent(), 1, run);
    let (_grant, lease) = watch::channel(Some(1));
    world.clock.pass(10 * SECOND);
    driver.pass(&lease).await;
    let edit = json!({"schedule": {"kind": "every", "everyMs": 5 * SECOND}});
    world.jobs.update(&job, &edit).await.unwrap();
    edits.notify_one();
    driver.finish().await;
    assert_eq!(world.next().await, Some(5));
}

#[tokio::test]
async fn a_run_that_was_asked_for_and_fails_leaves_the_schedule_as_it_is() {
    let world = World::with(json!({"kind": "every", "everyMs": 10 * SECOND})).await;
    world.fails(Some("no idea"));
    world.jobs.request(&world.job, Mode::Force).await.unwrap();
    world.pass().await;
    assert_eq!((world.runs().await, world.next().await), (1, Some(10)));
}
