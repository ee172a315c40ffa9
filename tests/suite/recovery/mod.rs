//! A front that is killed, and the one that is started after it: its workers have served all the while.

#![expect(clippy::unwrap_used, reason = "what the tests share is as much a test as they are")]

mod adapters;
mod faults;
mod sockets;
mod strangers;

use std::time::{Duration, Instant};

use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::moving::Clients;
use holdfast_tests::rig::{
    Front, Gate, Signal, State, Status, Traffic, eventually, listening_inodes,
};

use crate::{fixture, generation, quick};

/// How long there is no front: what a service manager takes to start another one.
const WITHOUT_A_FRONT: Duration = Duration::from_secs(2);

/// The words of an answer that is still under way when the next front is there, and how long each takes in ms.
const LONG_ANSWER: (&str, &str) = ("one two three four five six seven eight", "600");

/// How long nothing wakes a worker that has nothing to do. It is what is measured: nothing is waited for by it.
const QUIET: Duration = Duration::from_secs(2);

/// The next front goes on with these generations.
async fn assert_recovered(front: &Front, numbers: &[u64]) {
    let expected: Vec<_> = numbers.iter().map(|number| generation(*number)).collect();
    assert_eq!(front.status().await.recovered(), expected);
}

#[tokio::test]
async fn nobody_notices_that_the_front_was_killed_and_started_again_and_replaced_its_worker() {
    let mut front = Front::with(quick).await;
    let (status, inodes) = (front.status().await, listening_inodes(front.tcp()));
    let worker = front.serving().await.worker().unwrap();
    let traffic = Traffic::of_every_kind(&front);
    let callers = Clients::calling(&front, 10).await;
    let posters = Clients::posting(&front, 10).await;
    traffic.flows(3).await;
    front.kill().await;
    let killed_at = Instant::now();
    while killed_at.elapsed() < WITHOUT_A_FRONT {
        traffic.flows(3).await;
        callers.each_is_answered(1).await;
        posters.each_is_answered(1).await;
    }
    front.start_again(quick).await;
    assert_recovered(&front, &[1]).await;
    let recovered = front.serving().await;
    assert_eq!((recovered.generation, recovered.worker()), (generation(1), Some(worker)));
    assert!(recovered.lease, "it has kept the lease: {recovered:?}");
    assert!(recovered.age_ms >= 2_000, "it is as old as it is: {recovered:?}");
    assert_eq!(front.status().await.inodes(), status.inodes());
    traffic.flows(3).await;
    front.takeover().await.assert_committed();
    let settled = front.until("only the successor is left", |s| s.is_settled()).await;
    assert_eq!(settled.serving().map(|g| g.generation), Some(generation(2)));
    assert_eq!(listening_inodes(front.tcp()), inodes);
    assert!(worker.is_gone());
    traffic.flows(3).await;
    callers.each_is_answered(1).await;
    posters.each_is_answered(1).await;
    traffic.stop().await.assert_no_failures();
    callers.stop().await.assert_nobody_noticed();
    posters.stop().await.assert_nobody_noticed();
}

#[tokio::test]
async fn a_front_may_be_killed_again_and_again() {
    let mut front = Front::with(quick).await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    let callers = Clients::calling(&front, 5).await;
    for round in 1..=3 {
        for _ in 0..2 {
            front.kill().await;
            traffic.flows(2).await;
            front.start_again(quick).await;
            assert_recovered(&front, &[round]).await;
        }
        front.takeover().await.assert_committed();
        front.until("only the successor is left", |s| s.is_settled()).await;
    }
    assert_eq!(front.serving().await.generation, generation(4));
    traffic.stop().await.assert_no_failures();
    callers.each_is_answered(1).await;
    callers.stop().await.assert_nobody_noticed();
}

#[tokio::test]
async fn the_end_of_a_worker_that_was_gone_on_with_is_noticed_and_made_good() {
    let mut front = Front::with(quick).await;
    front.kill().await;
    front.start_again(quick).await;
    let worker = front.serving().await.worker().unwrap();
    worker.signal(Signal::SIGKILL);
    let status = front
        .until("another one serves", |s| s.serving().is_some_and(|g| g.generation == generation(2)))
        .await;
    assert_eq!(status.crashes, 1);
    assert!(status.failure().contains("nobody can say how"), "{}", status.failure());
}

#[tokio::test]
async fn a_front_that_has_recovered_may_be_renewed_and_notices_that_end_all_the_same() {
    let mut front = Front::with(quick).await;
    let worker = front.serving().await.worker().unwrap();
    front.kill().await;
    front.start_again(quick).await;
    front.run(&["reexec"]).await.assert_code(0);
    assert_recovered(&front, &[1]).await;
    assert_eq!(front.serving().await.worker(), Some(worker));
    worker.signal(Signal::SIGKILL);
    front
        .until("another one serves", |s| s.serving().is_some_and(|g| g.generation == generation(2)))
        .await;
}

#[tokio::test]
async fn a_standby_leaves_with_its_front_and_the_next_one_has_another() {
    let standby = |s| quick(s).switch("--standby");
    let mut front = Front::with(standby).await;
    let stands_by = |number: u64| {
        move |s: &Status| {
            s.generation(generation(number)).is_some_and(|g| g.state == State::Standby)
        }
    };
    front.until("one stands by", stands_by(2)).await;
    front.kill().await;
    front.start_again(standby).await;
    let status = front.until("another one stands by", stands_by(3)).await;
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(1)));
}

#[tokio::test]
async fn a_worker_that_drains_without_a_front_drains_on_and_another_one_is_started_at_once() {
    let mut front = Front::with(quick).await;
    let address = front.address().to_string();
    let mut held = HttpConnection::open(&front.address()).await.unwrap();
    let slow = Request::chat(LONG_ANSWER.0).header("x-holdfast-echo-delay-ms", LONG_ANSWER.1);
    let (head, body) = slow.parts();
    held.send(&head).await.unwrap();
    held.send(body).await.unwrap();
    front.until("it is being answered", |s| s.serving().and_then(|g| g.in_flight) == Some(1)).await;
    let worker = front.serving().await.worker().unwrap();
    front.kill().await;
    worker.signal(Signal::SIGTERM);
    eventually("it accepts no more", async || {
        listening_inodes(front.tcp()).is_empty().then_some(())
    })
    .await;
    front.start_again(|s| quick(s).listen(address)).await;
    let status = front.status().await;
    assert_eq!(status.generation(generation(1)).map(|g| g.state), Some(State::Draining));
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(2)));
    assert_eq!(held.receive().await.unwrap().generation(), generation(1));
    front.until("only the other one is left", |s| s.is_settled()).await;
    assert!(worker.is_gone());
}

#[tokio::test]
async fn a_front_that_lives_is_not_pushed_aside() {
    let mut front = Front::with(quick).await;
    for _ in 0..2 {
        let refused = Front::refused(|s| quick(s).control(front.control())).await;
        refused.assert_code(78).assert_says("another front");
        assert_eq!(front.serving().await.generation, generation(1));
        front.kill().await;
        front.start_again(quick).await;
    }
}

#[tokio::test]
async fn a_front_that_has_recovered_stops_in_good_order_and_leaves_nothing() {
    let mut front = Front::with(quick).await;
    let directory = format!("{}.rescue", front.control().display());
    let rescue = std::path::Path::new(&directory);
    assert!(rescue.join("g1.sock").exists());
    front.kill().await;
    front.start_again(quick).await;
    let worker = front.serving().await.worker().unwrap();
    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
    assert!(worker.is_gone());
    assert!(listening_inodes(front.tcp()).is_empty());
    assert!(!rescue.exists() && !front.control().exists());
}

#[tokio::test]
async fn without_a_worker_that_lives_the_front_starts_one_with_a_number_that_nobody_had() {
    let mut front = Front::with(quick).await;
    let worker = front.serving().await.worker().unwrap();
    front.kill().await;
    worker.signal(Signal::SIGKILL);
    eventually("it is gone", async || worker.is_gone().then_some(())).await;
    front.start_again(quick).await;
    assert_recovered(&front, &[]).await;
    assert_eq!(front.serving().await.generation, generation(2));
    let answer = ask(&front.address(), Request::get("/healthz")).await.unwrap();
    assert_eq!(answer.generation(), generation(2));
}

#[tokio::test]
async fn a_worker_without_a_front_sleeps_until_somebody_comes() {
    let ready = Gate::closed();
    ready.open();
    let mut front = Front::with(|s| quick(s).worker(fixture([ready.word("library")]))).await;
    let worker = front.serving().await.worker().unwrap();
    front.kill().await;
    eventually("nothing wakes it", async || {
        let before = worker.switches();
        tokio::time::sleep(QUIET).await;
        (worker.switches() == before).then_some(())
    })
    .await;
}
