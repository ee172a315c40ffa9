//! Moving WebSockets: how long all of them take, how long each stands still, and what each costs.
//!
//! *All moved* is from the front's word *committed* until the incumbent's own word *drained*, by the
//! time stamps of their logs: the latter is said when the successor has started everything and nothing
//! is left behind. (A few move before, as a canary, while the successor is on probation.)
//!
//! A connection's pause is taken as `pauses.rs` says, and once more with nobody moving: what machine and
//! client add by themselves.
//!
//! CPU time is what the scheduler counted for each side's threads, read when the takeover has
//! *switched* and again when all have moved. One upload keeps the incumbent alive meanwhile, since what
//! it used could not be read any more once it has exited; nobody else says anything. So everything that
//! either side does in that time is divided by the connections, not only the work for them.

use std::time::{Duration, Instant};

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{Front, Process, Signal, Status, soon};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cpu::cpu_time;
use crate::figures::{Durations, Ratios, grouped, in_ms};
use crate::fleet::Fleet;
use crate::ledger::Promise;
use crate::pauses::{Pause, Sample, descriptors};
use crate::report::{Goal, Report};
use crate::scale::Scale;
use crate::story::{Line, Story, WORKERS_LOG};

/// How many clients.
const CLIENTS: usize = 10_000;
/// How long their names are, in bytes.
const NAME: usize = 1000;
/// How many takeovers are timed.
const TAKEOVERS: usize = 5;
/// Each of so many clients calls while it moves: more would have the cores to themselves.
const SAMPLED: usize = 100;
/// In how many takeovers CPU time is taken.
const COUNTED: usize = 3;
/// How often the log is looked at.
const GLANCE: Duration = Duration::from_millis(1);
/// An incumbent that holds this many descriptors has given its connections away.
const FEW: usize = 64;
/// How long each side goes on after that, to close and free what it had.
const AFTERMATH: Duration = Duration::from_millis(100);

/// From *committed* to *drained*.
const TIME_GOAL: Duration = Duration::from_millis(300);
/// Of a connection's pause, of 99 in 100.
const PAUSE_GOAL: Duration = Duration::from_millis(5);
/// Of each side, for each connection, in µs.
const CPU_GOAL: f64 = 25.0;

/// One takeover that was timed.
struct Timed {
    took: Duration,
    moved: u64,
    pauses: Vec<Pause>,
}

/// What one connection cost, in µs of CPU time.
struct Cost {
    incumbent: f64,
    successor: f64,
}

/// A front, with clients.
struct Stage {
    front: Front,
    fleet: Fleet,
    clients: usize,
}

pub(crate) async fn measure(report: &Report, scale: Scale) -> Promise {
    let clients = scale.connections(CLIENTS);
    let count = grouped(clients as u64);
    report.heading(
        &format!("moving: {count} WebSockets, from one generation to the next"),
        &format!(
            "{count} authenticated WebSockets with a name of {NAME} bytes each; --soak 20ms. \
             {TAKEOVERS} takeovers by SIGUSR1 in silence, {TAKEOVERS} while one in {SAMPLED} calls as it \
             moves, then {COUNTED} in silence for the CPU time. After each, every client calls and is answered. \
             The client takes the same cores."
        ),
    );
    let front = Front::with(|s| {
        s.flag("--soak", "20ms").flag("--drain-timeout", "20s").flag("--log-file", WORKERS_LOG)
    })
    .await;
    let fleet = Fleet::connect(&front.address(), clients, NAME).await;
    let mut stage = Stage { front, fleet, clients };
    let (mut silent, mut timed) = (Vec::new(), Vec::new());
    for _ in 0..TAKEOVERS {
        silent.push(stage.take_over(Sample::of(Vec::new())).await);
        stage.fleet.call_each().await;
        let sample = stage.sample();
        timed.push(stage.take_over(sample).await);
        stage.fleet.call_each().await;
    }
    let took: Durations = silent.iter().map(|timed| timed.took).collect();
    let took_while_called: Durations = timed.iter().map(|timed| timed.took).collect();
    let still = stage.nobody_moves(took_while_called.median()).await;
    let mut costs = Vec::new();
    for _ in 0..COUNTED {
        costs.extend(stage.count().await);
        stage.fleet.call_each().await;
    }
    // What was said twice shows at the next call.
    stage.fleet.call_each().await;
    let lost = stage.fleet.faults(report);
    report.figure("moved in each takeover", &counts(&silent));
    report.figure(&format!("    and while one in {SAMPLED} calls"), &counts(&timed));
    report.figure_with_goal(
        "connections lost, or told anything twice or not at all",
        &lost.to_string(),
        Goal::new("0", lost == 0),
    );
    report.figure_with_goal(
        &format!("committed → all {count} moved (logs), median"),
        &in_ms(took.median()),
        Goal::new("< 300 ms", took.median() < TIME_GOAL),
    );
    report.figure("    all of them", &took.summary());
    report.figure(&format!("    while one in {SAMPLED} calls"), &took_while_called.summary());
    print_pauses(report, &timed, &still);
    print_costs(report, &costs);
    Promise::kept_if(lost == 0)
}

fn counts(timed: &[Timed]) -> String {
    timed.iter().map(|timed| grouped(timed.moved)).collect::<Vec<_>>().join(", ")
}

fn print_pauses(report: &Report, timed: &[Timed], still: &[Pause]) {
    let between: Durations = timed.iter().flat_map(|t| &t.pauses).map(|p| p.between).collect();
    let waited: Durations = timed.iter().flat_map(|t| &t.pauses).map(|p| p.waited).collect();
    if waited.is_empty() {
        report.figure("pauses", "not measured: this needs Linux 6.2");
        return;
    }
    report.figure_with_goal(
        "longest between two answers while it moves (≥ pause), p99",
        &in_ms(between.percentile(99)),
        Goal::new("< 5 ms", between.percentile(99) < PAUSE_GOAL),
    );
    report.figure("    all of them", &between.summary());
    report.figure("    the same with nobody moving", &still_summary(still, |p| p.between));
    report.figure("longest wait for an answer while it moves (≤ pause)", &waited.summary());
    report.figure("    the same with nobody moving", &still_summary(still, |p| p.waited));
}

fn still_summary(still: &[Pause], of: fn(&Pause) -> Duration) -> String {
    still.iter().map(of).collect::<Durations>().summary()
}

fn print_costs(report: &Report, costs: &[Cost]) {
    if costs.is_empty() {
        report.figure("CPU time", "not measured: no incumbent stayed until it could be read");
        return;
    }
    for (side, of) in [
        ("incumbent", (|cost| cost.incumbent) as fn(&Cost) -> f64),
        ("successor", |cost| cost.successor),
    ] {
        let costs: Ratios = costs.iter().map(of).collect();
        report.figure_with_goal(
            &format!("CPU time of the {side} per connection, median"),
            &format!("{:.1} µs", costs.median()),
            Goal::new("≤ 25 µs", costs.median() <= CPU_GOAL),
        );
        report.figure("    all of them, in µs", &costs.all());
    }
}

impl Stage {
    async fn serving(&self) -> Process {
        self.front.until("one generation is left", |status| status.is_settled()).await;
        self.front.serving().await.worker().expect("who serves is there")
    }

    /// The generation that was started after this one.
    fn successor_of(&self, incumbent: Process) -> Option<Process> {
        self.front.process().descendants().into_iter().find(|worker| *worker != incumbent)
    }

    /// Members of the fleet, evenly spread.
    fn sample(&mut self) -> Sample {
        Sample::of(self.fleet.take_every(SAMPLED))
    }

    /// One takeover, from its signal until the incumbent has said that everything is gone, with a sample that calls.
    async fn take_over(&mut self, sample: Sample) -> Timed {
        let incumbent = self.serving().await;
        let mut story = Story::of(&self.front);
        let mut words = Story::of_workers(&self.front);
        self.front.signal(Signal::SIGUSR1);
        let mut successor = None;
        let (mut committed_at, mut drained) = (None, None);
        soon("all have moved", async {
            let mut glances = interval(GLANCE);
            glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while drained.is_none() {
                glances.tick().await;
                for line in story.read() {
                    match &*line.message {
                        "switched" => successor = self.successor_of(incumbent),
                        "committed" => committed_at = Some(line.at),
                        "takeover rolled back" => panic!("a takeover was rolled back"),
                        _ => {}
                    }
                }
                if let Some(successor) = successor {
                    sample.reaches(descriptors(successor));
                }
                drained = words.read().into_iter().find(|line| line.message == "drained");
            }
        })
        .await;
        let drained: Line = drained.expect("waited for");
        // The story of the front may be a glance behind.
        let committed = |line: &Line| line.message == "committed";
        let committed_at = committed_at
            .or_else(|| Some(story.read().into_iter().find(committed)?.at))
            .expect("it was committed");
        let (members, mut pauses) = sample.end().await;
        self.fleet.put_back(members);
        if successor.is_none_or(|successor| descriptors(successor) == 0) {
            pauses.clear();
        }
        let moved = drained.field("moved").as_u64().unwrap_or_default();
        Timed { took: drained.at.since(committed_at), moved, pauses }
    }

    /// The same calls in the same time, with nobody moving.
    async fn nobody_moves(&mut self, duration: Duration) -> Vec<Pause> {
        let mut pauses = Vec::new();
        for _ in 0..TAKEOVERS {
            let sample = self.sample();
            let began_at = Instant::now();
            let mut glances = interval(GLANCE);
            glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while began_at.elapsed() < duration {
                glances.tick().await;
                let share = began_at.elapsed().div_duration_f64(duration);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    clippy::cast_sign_loss,
                    reason = "a share of some thousands"
                )]
                sample.reaches((share * self.clients as f64) as usize);
            }
            let (members, still) = sample.end().await;
            self.fleet.put_back(members);
            pauses.extend(still);
        }
        pauses
    }

    /// One takeover in silence, with an incumbent that stays until its CPU time was read; `None` if it was
    /// gone all the same.
    async fn count(&mut self) -> Option<Cost> {
        let incumbent = self.serving().await;
        let address = self.front.address();
        // No JSON, so that nothing is run, of which every client would hear.
        let request = Request::post("/v1/chat/completions", vec![b'.'; 64]);
        let (head, body) = request.parts();
        let mut upload = HttpConnection::open(&address).await.expect("it is accepted");
        let (first, rest) = body.split_at(1);
        upload.send(&[&head, first].concat()).await.expect("its first part is sent");
        let mut story = Story::of(&self.front);
        let is_under_way = |status: &Status| {
            let connections = status.serving().and_then(|serving| serving.connections);
            connections.is_some_and(|connections| connections.http == 1)
        };
        self.front.until("the upload is under way", is_under_way).await;
        self.front.signal(Signal::SIGUSR1);
        soon("the takeover switches", async {
            while !story.read().iter().any(|line| line.message == "switched") {
                sleep(GLANCE).await;
            }
        })
        .await;
        let successor = self.successor_of(incumbent).expect("a successor runs");
        let (incumbent_before, successor_before) = (cpu_time(incumbent), cpu_time(successor));
        soon("all have moved", async {
            while descriptors_listed(incumbent) > FEW {
                sleep(AFTERMATH).await;
            }
        })
        .await;
        sleep(AFTERMATH).await;
        // Nothing is left to be read of one that is gone.
        let incumbent_spent = cpu_time(incumbent).checked_sub(incumbent_before);
        let successor_spent = cpu_time(successor).saturating_sub(successor_before);
        upload.send(rest).await.expect("its rest is sent");
        upload.receive().await.expect("the upload is answered");
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let for_each = |spent: Duration| spent.as_secs_f64() * 1e6 / self.clients as f64;
        Some(Cost { incumbent: for_each(incumbent_spent?), successor: for_each(successor_spent) })
    }
}

/// How many descriptors a process holds, on any Linux.
fn descriptors_listed(process: Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.pid())).map_or(0, Iterator::count)
}
