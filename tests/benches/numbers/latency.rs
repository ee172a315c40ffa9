//! The latency of HTTP requests around a takeover against the latency when nothing happens; and the same
//! around a reload of nginx and HAProxy, where they are installed.
//!
//! *Around* is from 100 ms before the signal until 100 ms after the incumbent was gone (of a peer:
//! after another worker was there), so that it holds the start of a process, the switch and the move of all
//! connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_tests::rig::{Front, Signal, eventually};
use tokio::time::sleep;

use crate::figures::{Durations, grouped, in_ms};
use crate::ledger::Promise;
use crate::open_loop::{OpenLoop, Outcome, Window};
use crate::peers::{Peer, RunningPeer};
use crate::report::{Goal, Report};
use crate::scale::Scale;

/// How many connections.
const CONNECTIONS: usize = 1000;
/// How often a request is due on each of them.
const PERIOD: Duration = Duration::from_millis(500);
/// How many takeovers, and reloads of each peer.
const TIMES: usize = 20;
/// What belongs to one of them, before and after it.
const AROUND: Duration = Duration::from_millis(100);
/// How long nothing happens between two.
const STEADY: Duration = Duration::from_millis(600);
/// How much more the latency may be around a takeover.
const GOAL: Duration = Duration::from_millis(10);

/// What the clients of one server saw.
struct Seen {
    outcome: Outcome,
    windows: Vec<Window>,
}

pub(crate) async fn measure(report: &Report, scale: Scale) -> Promise {
    let connections = u32::try_from(scale.connections(CONNECTIONS)).unwrap_or(u32::MAX);
    let rate = f64::from(connections) / PERIOD.as_secs_f64();
    report.heading(
        "latency: requests around a takeover, and when nothing happens",
        &format!(
            "An open loop: {} kept HTTP connections with a GET on each every {PERIOD:?}, {rate:.0}/s in \
             all; a latency counts from when its request was due. {TIMES} takeovers by SIGUSR1, \
             --soak 20ms, {STEADY:?} apart; then as many reloads of each peer. No request is \
             sent twice. The client takes the same cores.",
            grouped(connections.into())
        ),
    );
    let ours = holdfast(connections).await;
    let (around, steady) = ours.outcome.latencies(&ours.windows);
    print_latencies(report, "holdfast", &around, &steady);
    let more = around.permille(999).saturating_sub(steady.permille(999));
    report.figure_with_goal(
        "holdfast, p99.9 around a takeover over p99.9 steady",
        &format!("+{}", in_ms(more)),
        Goal::new("≤ +10 ms", more <= GOAL),
    );
    print_losses(report, "holdfast", &ours.outcome);
    for peer in Peer::ALL {
        match (peer.version(), RunningPeer::start(peer).await) {
            (Some(version), Some(running)) => {
                let name = format!("{} {version}", peer.name());
                let seen = reloaded(&running, connections).await;
                let (around, steady) = seen.outcome.latencies(&seen.windows);
                print_latencies(report, &name, &around, &steady);
                print_losses(report, &name, &seen.outcome);
                let processes = running.processes().to_string();
                report.figure(&format!("{name}, processes at the end"), &processes);
                running.end().await;
            }
            _ => report.figure(peer.name(), "not installed: not measured"),
        }
    }
    let Outcome { failures, closed, .. } = &ours.outcome;
    let (failed, closed) = (failures.len(), *closed);
    report.figure_with_goal(
        "holdfast, requests lost",
        &failed.to_string(),
        Goal::new("0", failed == 0),
    );
    report.figure_with_goal(
        "holdfast, connections closed",
        &closed.to_string(),
        Goal::new("0", closed == 0),
    );
    Promise::kept_if(failed == 0)
}

async fn holdfast(connections: u32) -> Seen {
    let front = Front::with(|s| s.flag("--soak", "20ms")).await;
    let clients = OpenLoop::begin(front.tcp(), connections, PERIOD);
    begun(&clients, connections).await;
    let mut incumbent = front.serving().await;
    let mut windows = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let worker = incumbent.worker().expect("who serves is there");
        sleep(STEADY).await;
        let begins_at = Instant::now();
        sleep(AROUND).await;
        front.signal(Signal::SIGUSR1);
        // Without a question to the front, which would be one more process.
        eventually("the incumbent goes", async || worker.is_gone().then_some(())).await;
        sleep(AROUND).await;
        windows.push(Window { begins_at, ends_at: Instant::now() });
        front.until("one generation is left", |status| status.is_settled()).await;
        incumbent = front.serving().await;
    }
    assert_eq!(front.status().await.takeovers.committed, TIMES as u64, "a takeover failed");
    Seen { outcome: clients.end().await, windows }
}

async fn reloaded(peer: &RunningPeer, connections: u32) -> Seen {
    let clients = OpenLoop::begin(peer.address, connections, PERIOD);
    begun(&clients, connections).await;
    let mut windows = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        sleep(STEADY).await;
        let begins_at = Instant::now();
        sleep(AROUND).await;
        peer.reload().await;
        sleep(AROUND).await;
        windows.push(Window { begins_at, ends_at: Instant::now() });
    }
    Seen { outcome: clients.end().await, windows }
}

/// Ends when each connection has been used: the first answers pay for connecting.
async fn begun(clients: &OpenLoop, connections: u32) {
    eventually("requests are answered", async || {
        (clients.answered() >= 2 * u64::from(connections)).then_some(())
    })
    .await;
}

fn print_latencies(report: &Report, name: &str, around: &Durations, steady: &Durations) {
    report.figure(&format!("{name}, latency steady"), &steady.tail());
    report.figure(&format!("{name}, latency around"), &around.tail());
}

fn print_losses(report: &Report, name: &str, outcome: &Outcome) {
    let (failed, closed) = (outcome.failures.len(), outcome.closed);
    report.figure(
        &format!("{name}, over {TIMES} of them"),
        &format!("{failed} requests failed, {closed} connections closed"),
    );
    let mut reasons = BTreeMap::<String, usize>::new();
    for failure in &outcome.failures {
        *reasons.entry(failure.to_string()).or_default() += 1;
    }
    for (reason, times) in reasons {
        report.note(&format!("    {times} times: {reason}"));
    }
}
