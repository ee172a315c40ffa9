//! `--takeover-order stop-first`, for programs that allow one instance.

use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::{Front, Gate, Setup, State, Traffic};

use crate::{fixture, generation, good, held_request, quick};

fn one_at_a_time(setup: Setup) -> Setup {
    good(setup).flag("--takeover-order", "stop-first")
}

#[tokio::test]
async fn the_successor_starts_when_the_incumbent_is_gone_and_newcomers_wait() {
    let front = Front::with(one_at_a_time).await;
    let gate = Gate::closed();
    let incumbent = front.serving().await.worker().unwrap();
    let mut takeover = front.begin_takeover_to(&fixture([gate.word("ready-once")]));
    takeover.until("started").await;
    assert!(incumbent.is_gone(), "two instances ran at once");
    let status = front.status().await;
    assert_eq!(status.generations.len(), 1, "{status:?}");
    assert_eq!(status.inodes().len(), 1);
    let mut newcomer = HttpConnection::open(&front.address()).await.expect("the port is open");
    newcomer.send(&Request::get("/").parts().0).await.unwrap();
    gate.open();
    assert_eq!(newcomer.receive().await.unwrap().generation(), generation(2));
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn the_incumbent_serves_newcomers_until_it_is_idle() {
    let front = Front::with(one_at_a_time).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let takeover = front.begin_takeover();
    front.until("the incumbent empties", |s| s.in_state(State::Emptying).len() == 1).await;
    let newcomer = ask(&front.address(), Request::get("/")).await.unwrap();
    assert_eq!(newcomer.generation(), generation(1));
    gate.open();
    assert_eq!(held.receive().await.unwrap().generation(), generation(1));
    takeover.end().await.assert_committed();
    assert_eq!(front.serving().await.generation, generation(2));
}

#[tokio::test]
async fn the_previous_program_is_started_again_when_the_next_one_fails() {
    let front = Front::with(one_at_a_time).await;
    let traffic = Traffic::to(&front).with_new();
    traffic.flows(2).await;
    let takeover = front.takeover_to(&fixture(["exit:3"])).await;
    takeover.assert_rolled_back();
    assert!(takeover.reason().contains("exited with code 3"), "{takeover:?}");
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
    let status = front.until("somebody serves", |s| s.is_settled()).await;
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(3)), "{status:?}");
    assert_eq!((status.takeovers.committed, status.takeovers.rolled_back), (0, 1));
}

#[tokio::test]
async fn a_failure_in_the_soak_starts_the_previous_program_again() {
    let front = Front::with(|s| {
        s.worker(fixture(["serve"])).flag("--soak", "20s").flag("--takeover-order", "stop-first")
    })
    .await;
    let takeover = front.takeover_to(&fixture(["fail-in-soak"])).await;
    takeover.assert_rolled_back();
    let answer = ask(&front.address(), Request::get("/")).await.unwrap();
    assert_eq!(answer.generation(), generation(3));
}

#[tokio::test]
async fn what_is_unfinished_at_the_deadline_does_not_hold_the_successor_up() {
    let front = Front::with(|s| one_at_a_time(s).flag("--drain-timeout", "300ms")).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let takeover = front.takeover().await;
    assert!(held.receive().await.is_err());
    takeover.assert_cut(1);
    assert_eq!(front.serving().await.generation, generation(2));
}

#[tokio::test]
async fn who_waits_longer_than_the_hold_timeout_is_turned_away_and_counted() {
    let front = Front::with(|s| {
        good(s).switch("--exclusive").flag("--hold-timeout", "1s").flag("--ready-timeout", "20s")
    })
    .await;
    // A machine that is busy may have held somebody at the front's own start.
    let before = front.status().await.turned_away;
    let gate = Gate::closed();
    let mut takeover = front.begin_takeover_to(&fixture([gate.word("ready-once")]));
    takeover.until("started").await;
    let mut early = HttpConnection::open(&front.address()).await.expect("the port is open");
    assert!(early.receive().await.is_err(), "it was not closed");
    let mut late = HttpConnection::open(&front.address()).await.expect("the port is open");
    assert!(late.receive().await.is_err(), "it was not closed");
    front.until("both are counted", |s| s.turned_away == before + 2).await;
    gate.open();
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!(takeover.event("held").unwrap()["turned_away"], 2);
    let answer = ask(&front.address(), Request::get("/")).await.unwrap();
    assert_eq!(answer.generation(), generation(2));
    assert_eq!(front.status().await.turned_away, before + 2);
}

#[tokio::test]
async fn a_takeover_tells_how_long_newcomers_waited_and_a_rolled_back_one_too() {
    let front = Front::with(|s| good(s).switch("--exclusive")).await;
    for (program, code) in [("serve", 0), ("exit:3", 1)] {
        let takeover = front.takeover_to(&fixture([program])).await;
        assert_eq!(takeover.code, code, "{takeover:?}");
        let held = takeover.event("held").unwrap_or_else(|| panic!("none: {takeover:?}"));
        assert!(held["elapsed_ms"].is_u64() && held["turned_away"] == 0, "{held}");
    }
}

#[tokio::test]
async fn newcomers_of_the_bundled_worker_wait_and_are_all_answered() {
    let front = Front::with(|s| quick(s).flag("--takeover-order", "stop-first")).await;
    let traffic = Traffic::to(&front).with_new();
    for _ in 0..3 {
        traffic.flows(5).await;
        front.takeover().await.assert_committed();
    }
    traffic.flows(5).await;
    let tally = traffic.stop().await;
    tally.assert_no_failures();
    assert_eq!(tally.generations().len(), 4, "{tally}");
}
