//! A thousand takeovers, and the connections that were there before the first are there after the last.
//!
//! `HOLDFAST_SOAK_TAKEOVERS` says how many. Every worker is new, so what one holds when it has taken
//! over is compared with what an early one held; the front and the clients' own process last.

use holdfast_tests::rig::moving::Clients;
use holdfast_tests::rig::{Front, Process, eventually};

use super::{all_with, drained, lively};
use crate::generation;

/// Says how many takeovers.
const TAKEOVERS_VARIABLE: &str = "HOLDFAST_SOAK_TAKEOVERS";
/// How many, unless told.
const TAKEOVERS: u64 = 1000;
/// After how many of them everybody has reached their size.
const WARM: u64 = 20;
/// How many clients there are of each kind.
const CLIENTS: usize = 20;
/// How much more the front may have of its own than when it was warm, in bytes.
const FRONTS_GROWTH: u64 = 512 * 1024;
/// How much more a worker may have of its own than an early one: they differ by what is under way.
const WORKERS_GROWTH: u64 = 4 * 1024 * 1024;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    memory: u64,
}

impl Held {
    fn by(process: Process) -> Self {
        Self { descriptors: process.descriptors().len(), memory: process.anonymous_bytes() }
    }
}

#[tokio::test]
#[ignore = "takes minutes: `just soak-moves`"]
async fn a_thousand_takeovers_close_no_connection_and_leave_nothing_behind() {
    let takeovers = std::env::var(TAKEOVERS_VARIABLE)
        .map_or(TAKEOVERS, |count| count.parse().expect("a number of takeovers"));
    assert!(takeovers > WARM, "nobody is warm before {WARM} takeovers");
    let front = Front::with(|s| lively(s).flag("--soak", "1ms")).await;
    let callers = Clients::calling(&front, CLIENTS).await;
    let posters = Clients::posting(&front, CLIENTS).await;
    let itself = Process::find(std::process::id().cast_signed()).expect("it runs");
    let mut warm = None;
    for number in 1..=takeovers {
        let takeover = front.takeover().await;
        takeover.assert_committed();
        let moved = drained(&takeover, "moved");
        assert_eq!(moved, everybody(), "takeover {number}: {takeover:?}");
        for way in ["finished", "closed", "cut"] {
            assert_eq!(drained(&takeover, way).total(), 0, "takeover {number}: {takeover:?}");
        }
        if number == WARM {
            warm = Some((Held::by(front.process()), serving(&front).await, Held::by(itself)));
        }
    }
    let (front_when_warm, worker_when_warm, itself_when_warm) = warm.expect("it got warm");
    all_with(&front, generation(takeovers + 1), everybody()).await;
    let status = front.until("the last incumbent is gone", |s| s.is_settled()).await;
    assert_eq!((status.takeovers.committed, status.takeovers.rolled_back), (takeovers, 0));
    assert_eq!(status.crashes, 0);
    assert_eq!(front.process().descendants().len(), 1, "somebody was left behind");
    // A command's connection may take a moment to go.
    let front_now = no_more_descriptors("the front", front.process(), front_when_warm).await;
    let worker = front.serving().await.worker().expect("it serves");
    let worker_now = no_more_descriptors("the worker", worker, worker_when_warm).await;
    no_more_descriptors("the suite itself", itself, itself_when_warm).await;
    eprintln!("front {front_when_warm:?} -> {front_now:?}");
    eprintln!("worker {worker_when_warm:?} -> {worker_now:?}");
    assert!(front_now.memory <= front_when_warm.memory + FRONTS_GROWTH, "{front_now:?}");
    assert!(worker_now.memory <= worker_when_warm.memory + WORKERS_GROWTH, "{worker_now:?}");
    callers.each_is_answered(1).await;
    posters.each_is_answered(1).await;
    callers.stop().await.assert_nobody_noticed();
    posters.stop().await.assert_nobody_noticed();
}

const fn everybody() -> handoff::Connections {
    handoff::Connections { http: CLIENTS as u64, websocket: CLIENTS as u64 }
}

/// What the worker that serves now holds.
async fn serving(front: &Front) -> Held {
    Held::by(front.serving().await.worker().expect("it serves"))
}

/// What a process holds, as soon as it has no more descriptors than before.
async fn no_more_descriptors(who: &str, process: Process, before: Held) -> Held {
    eventually(&format!("{who} has no more descriptors than {before:?}"), async || {
        let now = Held::by(process);
        (now.descriptors <= before.descriptors).then_some(now)
    })
    .await
}
