//! The front becomes another image of itself, and nobody can tell.

mod broken;
mod state;

use std::path::Path;

use std::time::Duration;

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{
    FAULT_VARIABLE, Front, Gate, Signal, Status, Traffic, binaries, eventually, listening_inodes,
    soon,
};
use serde_json::Value;

use crate::{generation, good, held_request, quick};

/// How often the front is renewed, and every how many times the worker is, too.
const REEXECS: u64 = 100;
const TAKEOVER_EVERY: u64 = 5;

#[tokio::test]
async fn a_hundred_reexecs_between_takeovers_under_traffic_lose_nothing_and_leave_nothing_behind() {
    let front = Front::with(|s| quick(s).flag("--drain-timeout", "3s")).await;
    let (pid, inodes) = (front.process().pid(), front.status().await.inodes());
    let traffic = Traffic::of_every_kind(&front);
    traffic.flows(1).await;
    renew(&front).await;
    let descriptors = front.process().descriptors().len();
    for number in 2..=REEXECS {
        renew(&front).await;
        if number % TAKEOVER_EVERY == 0 {
            front.takeover().await.assert_committed();
        }
    }
    traffic.flows(3).await;
    traffic.stop().await.assert_no_failures();
    let status = front.until("the last incumbent is gone", |s| s.is_settled()).await;
    let takeovers = REEXECS / TAKEOVER_EVERY;
    assert_eq!((status.reexecs.done, status.reexecs.failed), (REEXECS, 0));
    assert_eq!((status.takeovers.committed, status.crashes), (takeovers, 0));
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(takeovers + 1)));
    assert_eq!((status.front.pid, status.inodes()), (pid, inodes.clone()));
    assert_eq!(listening_inodes(front.tcp()), inodes);
    assert_eq!(front.process().descendants().len(), 1, "somebody was left behind");
    eventually("the front holds no more descriptors than before", async || {
        (front.process().descriptors().len() <= descriptors).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_renewed_front_reaps_and_replaces_a_worker_that_an_earlier_image_started() {
    let front = Front::start().await;
    renew(&front).await;
    front.workers().await[0].signal(Signal::SIGKILL);
    let status =
        front.until("the next one serves", |s| s.serving().is_some() && s.crashes == 1).await;
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(2)));
    let failure = status.last_failure.expect("it is remembered");
    assert!(failure.reason.contains("SIGKILL"), "{failure:?}");
    let children = front.process().descendants();
    assert!(!children.iter().any(|child| child.is_zombie()), "{children:?}");
}

#[tokio::test]
async fn usr2_renews_the_front_and_a_signal_that_comes_meanwhile_is_heeded() {
    let mut front = Front::with(quick).await;
    for renewed in 1..=20 {
        front.signal(Signal::SIGUSR2);
        // At another instant of the check and the exec each time: they take about 12 ms.
        tokio::time::sleep(Duration::from_micros(800 * renewed)).await;
        front.signal(Signal::SIGUSR1);
        // Either may come first: a re-exec is denied while a takeover runs.
        front
            .until("the takeover has ended", |s| s.is_settled() && s.takeovers.committed == renewed)
            .await;
    }
    front.signal(Signal::SIGUSR2);
    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn a_signal_that_comes_at_the_last_instant_before_the_exec_is_heeded_after_it() {
    let front =
        Front::with(|s| quick(s).environment(FAULT_VARIABLE, "front.reexec-frozen=delay:300"))
            .await;
    front.signal(Signal::SIGUSR2);
    front.met("front.reexec-frozen").await;
    front.signal(Signal::SIGUSR1);
    let committed = |s: &Status| s.is_settled() && s.takeovers.committed == 1;
    let status = front.until("the takeover has ended", committed).await;
    assert_eq!(status.reexecs.done, 1);
}

#[tokio::test]
async fn reexec_is_refused_between_a_takeovers_request_and_its_commit() {
    let gate = Gate::closed();
    let front = Front::with(|s| good(s).flag("--soak", "30s").flag("--drain-timeout", "30s")).await;
    let mut held = held_request(&front, &gate).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let refused = front.run(&["reexec"]).await;
    refused.assert_code(1).assert_says("a takeover is running");
    assert_eq!(front.status().await.reexecs.done, 0);
    gate.open();
    soon("the request is answered", held.receive()).await.expect("it is answered");
}

#[tokio::test]
async fn reexec_is_refused_while_a_takeover_waits_for_a_drain() {
    let gate = Gate::closed();
    let front = Front::with(|s| quick(good(s)).flag("--drain-timeout", "60s")).await;
    let _held = held_request(&front, &gate).await;
    front.begin_takeover().until("committed").await;
    let _waiting = front.begin_takeover().until("waiting").await;
    front.run(&["reexec"]).await.assert_code(1).assert_says("waits for a drain");
    gate.open();
}

#[tokio::test]
async fn a_drain_goes_on_over_a_reexec_and_so_does_the_command_that_waits_for_it() {
    let gate = Gate::closed();
    let front = Front::with(|s| quick(good(s)).flag("--drain-timeout", "60s")).await;
    let mut held = held_request(&front, &gate).await;
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    renew(&front).await;
    renew(&front).await;
    let status = front.status().await;
    assert_eq!(status.generations.len(), 2, "{status:?}");
    gate.open();
    soon("the request is answered", held.receive()).await.expect("it is answered");
    let ended = takeover.end().await;
    ended.assert_committed();
    assert!(ended.event("drained").is_none() || ended.code == 0, "{ended:?}");
    let last = front.status().await.last_takeover.expect("it is remembered");
    assert!(last.phases.drained_ms.is_some(), "{last:?}");
}

#[tokio::test]
async fn a_deadline_goes_on_over_a_reexec() {
    let gate = Gate::closed();
    let front = Front::with(|s| quick(good(s)).flag("--drain-timeout", "2s")).await;
    let _held = held_request(&front, &gate).await;
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    renew(&front).await;
    let ended = takeover.end().await;
    assert_eq!(ended.code, 3, "what the deadline cuts is counted: {ended:?}");
    gate.open();
}

#[tokio::test]
async fn another_binary_stays_the_fronts_own_from_then_on() {
    let front = Front::start().await;
    let other = front.directory().join("holdfast-2");
    std::fs::copy(binaries::holdfast(), &other).expect("a binary can be copied");
    let outcome = front.run(&["reexec", "--json", "--binary", path(&other)]).await;
    outcome.assert_code(0);
    let renewed: Value = serde_json::from_str(&outcome.output).expect("a line of JSON");
    assert_eq!(renewed["event"], "renewed");
    assert_eq!(front.process().executable(), Some(other.clone()));
    // As a package's upgrade does it: another file under the same name.
    let newer = front.directory().join("newer");
    std::fs::copy(binaries::holdfast(), &newer).expect("a binary can be copied");
    std::fs::rename(&newer, &other).expect("a file can be replaced");
    renew(&front).await;
    assert_eq!(front.process().executable(), Some(other));
    assert_eq!(front.process().arguments().last(), front.process().arguments().last());
    front.takeover().await.assert_committed();
}

#[tokio::test]
async fn a_connection_that_waits_in_the_queue_is_served_after_a_reexec() {
    let front = Front::with(|s| quick(s).switch("--exclusive").flag("--drain-timeout", "2s")).await;
    let mut early = HttpConnection::open(&front.address()).await.expect("it is accepted");
    renew(&front).await;
    let late = HttpConnection::open(&front.address()).await;
    assert!(early.exchange(&Request::get("/healthz")).await.is_ok());
    assert!(late.expect("it is accepted").exchange(&Request::get("/healthz")).await.is_ok());
    front.takeover().await.assert_committed();
}

/// Renews the front by the binary it has.
async fn renew(front: &Front) {
    front.run(&["reexec"]).await.assert_code(0);
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary directory has a plain name")
}
