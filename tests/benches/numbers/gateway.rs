//! What the gateway itself costs its clients: a handshake, a small call, and an agent that is made to last.
//!
//! How long it takes to compare configurations of 10,000 keys is measured where they are compared:
//! `cargo test --release -p holdfast-worker ten_thousand_keys -- --ignored --nocapture`.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_tests::rig::moving::{Part, call, frame};
use holdfast_tests::rig::{Front, Process};
use serde_json::json;

use crate::closed_loop;
use crate::figures::{Durations, Ratios};
use crate::ledger::Promise;
use crate::report::{Goal, Report};
use crate::rpc_loop::{CONNECTIONS, Caller, Calling};

/// How many handshakes, one after the other.
const HANDSHAKES: usize = 2000;
/// The longest that half of them may take.
const HANDSHAKE_GOAL: Duration = Duration::from_millis(1);
/// How many loops of calls.
const ROUNDS: usize = 5;
/// How long each of them is, once it is warm.
const ROUND: Duration = Duration::from_secs(1);
/// The least calls per second.
const RATE_GOAL: f64 = 25_000.0;
/// How many agents are made, one after the other.
const AGENTS: usize = 200;
/// How many others there are in the longer of two lists.
const OTHERS: usize = 200;
/// How many times as long as a bare fsync the slowest of a hundred may take.
const DURABLE_GOAL: f64 = 5.0;

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "gateway: a handshake, a small call, an agent that is made",
        &format!(
            "One front, one worker, loopback TCP. {HANDSHAKES} handshakes, one after the other; {ROUNDS} closed \
             loops of {ROUND:?} over {CONNECTIONS} connections; {AGENTS} agents, each made and deleted again. The \
             client takes the same cores."
        ),
    );
    let front = Front::with(|s| s.flag("--soak", "20ms")).await;
    let worker = front.serving().await.worker().expect("who serves is there");
    handshakes(report, &front).await;
    calls(report, &front, worker).await;
    agents(report, &front).await;
    Promise::Kept
}

async fn handshakes(report: &Report, front: &Front) {
    let mut took = Vec::with_capacity(HANDSHAKES);
    for _ in 0..HANDSHAKES {
        let begun_at = Instant::now();
        let caller = Caller::connect(front.tcp()).await.expect("a client is let in");
        took.push(begun_at.elapsed());
        drop(caller);
    }
    let took = Durations::from_iter(took);
    report.figure("handshake, connect to hello-ok", &in_us(&took));
    report.figure_with_goal(
        "    median",
        &format!("{:.2} ms", took.median().as_secs_f64() * 1000.0),
        Goal::new("< 1 ms", took.median() < HANDSHAKE_GOAL),
    );
}

async fn calls(report: &Report, front: &Front, worker: Process) {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        rounds.push(closed_loop::drive::<Calling>((worker, front.tcp()), "health", ROUND).await);
    }
    let rates = rounds.iter().map(|round| round.rate).collect::<Ratios>();
    let spent = rounds.iter().map(|round| round.worker_us).collect::<Ratios>();
    report.figure_with_goal(
        &format!("calls of health over {CONNECTIONS} connections"),
        &format!("{:.0}/s", rates.median()),
        Goal::new("≥ 25,000/s", rates.median() >= RATE_GOAL),
    );
    report.figure("    worker's CPU time per call", &format!("{:.1} µs", spent.median()));
}

/// Agents that are made, and between them as much bare durability as one file needs: on the same disk, in the same
/// minute. Each is deleted again, so that the list is as long as somebody has it; then the same with a long one.
async fn agents(report: &Report, front: &Front) {
    let config = front.directory().join("state/openclaw.json");
    let mut caller = Caller::connect(front.tcp()).await.expect("a client is let in");
    for (others, words) in [(0, "agents.create"), (OTHERS, "agents.create beside 200 others")] {
        let list: Vec<_> = (0..=others)
            .map(|number| json!({"id": format!("other-{number}"), "name": "Other", "workspace": "/w"}))
            .collect();
        std::fs::write(&config, json!({"agents": {"list": list}}).to_string())
            .expect("the configuration can be written");
        let (made, bare) = made(front, &mut caller, &config).await;
        report.figure(words, &made.summary());
        report.figure("    write and fsync of a file as long as the list", &bare.summary());
        let ratio = |permille| made.permille(permille).div_duration_f64(bare.permille(permille));
        report.figure("    ÷ at the median", &format!("{:.1}", ratio(500)));
        let (what, result) = ("    ÷ at p99", format!("{:.1}", ratio(990)));
        if others == 0 {
            let goal = Goal::new("≤ 5", ratio(990) <= DURABLE_GOAL);
            report.figure_with_goal(what, &result, goal);
        } else {
            report.figure(what, &result);
        }
    }
}

/// How long each agent took, and each bare file as long as the configuration then was.
async fn made(front: &Front, caller: &mut Caller, config: &Path) -> (Durations, Durations) {
    let workspaces = front.directory().join("workspaces");
    let (mut made, mut bare) = (Vec::with_capacity(AGENTS), Vec::with_capacity(AGENTS));
    for number in 0..AGENTS {
        let name = format!("bench-{number}");
        let params = json!({"name": name, "workspace": workspaces.join(&name)});
        let request = frame(Part::Text, call("1", "agents.create", params));
        let begun_at = Instant::now();
        caller.exchange(&request).await.expect("an agent is made");
        made.push(begun_at.elapsed());
        let length = std::fs::metadata(config).map_or(0, |file| file.len());
        let length = usize::try_from(length).expect("a file fits into memory");
        let beside = config.with_file_name("bare");
        bare.push(written(&beside, length).expect("the disk can be written"));
        std::fs::remove_file(beside).expect("what was written can be removed");
        let request = frame(Part::Text, call("1", "agents.delete", json!({"agentId": name})));
        caller.exchange(&request).await.expect("an agent is deleted");
    }
    (Durations::from_iter(made), Durations::from_iter(bare))
}

/// How long it takes to write a new file and to know that it lasts.
fn written(path: &Path, length: usize) -> io::Result<Duration> {
    let content = vec![b'x'; length];
    let begun_at = Instant::now();
    let mut file = File::create(path)?;
    file.write_all(&content)?;
    file.sync_all()?;
    Ok(begun_at.elapsed())
}

/// `median 310 µs, p99 800 µs, worst 2,100 µs`.
fn in_us(durations: &Durations) -> String {
    let us = |percent| durations.percentile(percent).as_micros();
    format!("median {} µs, p99 {} µs, worst {} µs", us(50), us(99), us(100))
}
