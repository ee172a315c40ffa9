//! `holdfast pause` and `holdfast resume`.

use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::{Front, Gate, Program, Setup, Signal, State, Traffic, eventually};

use crate::{fixture, generation, good, held_request, quick};

async fn pause(front: &Front) {
    front.run(&["pause"]).await.assert_code(0);
}

async fn resume(front: &Front) {
    front.run(&["resume"]).await.assert_code(0);
}

/// A client that has connected, has asked, and waits.
async fn newcomer(front: &Front) -> HttpConnection {
    let mut connection = HttpConnection::open(&front.address()).await.expect("the port is open");
    let (head, _) = Request::get("/").parts();
    connection.send(&head).await.expect("a request can be sent");
    connection
}

#[tokio::test]
async fn newcomers_wait_while_the_front_is_paused_and_are_served_afterwards() {
    let front = Front::with(good).await;
    let mut open = HttpConnection::open(&front.address()).await.unwrap();
    open.exchange(&Request::get("/")).await.unwrap();
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    pause(&front).await;
    let status = front.status().await;
    let paused = status.paused.as_ref().expect("it is paused");
    assert_eq!(paused.generation, generation(1));
    assert!((1..=60_000).contains(&paused.remaining_ms), "{paused:?}");
    assert_eq!(status.generations[0].state, State::Stopped, "{status:?}");
    assert_eq!(status.next_takeover.possible, "after-pause");
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(newcomer(&front).await);
    }
    // What was open goes on, and so does what was being answered.
    open.exchange(&Request::get("/")).await.unwrap();
    gate.open();
    held.receive().await.unwrap();
    let connections = front.status().await.generations[0].connections.unwrap();
    assert!(connections.http <= 2, "somebody was accepted: {connections:?}");
    resume(&front).await;
    for mut client in waiting {
        assert_eq!(client.receive().await.unwrap().generation(), generation(1));
    }
    assert!(front.status().await.paused.is_none());
}

#[tokio::test]
async fn traffic_over_pauses_of_the_bundled_worker_sees_no_error() {
    let front = Front::with(quick).await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(2).await;
    for _ in 0..5 {
        pause(&front).await;
        resume(&front).await;
        traffic.flows(1).await;
    }
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn a_pause_ends_by_itself_and_says_so() {
    let front = Front::with(good).await;
    front.run(&["pause", "--timeout", "100ms"]).await.assert_code(0);
    let mut client = newcomer(&front).await;
    assert_eq!(client.receive().await.unwrap().generation(), generation(1));
    front.until("it is over", |s| s.paused.is_none() && s.serving().is_some()).await;
    assert!(front.log().text().contains("as long as it may"), "{}", front.log().text());
}

#[tokio::test]
async fn a_pause_that_is_asked_for_again_moves_its_end() {
    let front = Front::with(good).await;
    front.run(&["pause", "--timeout", "1h"]).await.assert_code(0);
    front.run(&["pause", "--timeout", "100ms"]).await.assert_code(0);
    front.until("it is over", |s| s.paused.is_none() && s.serving().is_some()).await;
    front.run(&["pause", "--timeout", "61m"]).await.assert_code(64);
}

#[tokio::test]
async fn a_takeover_is_refused_while_the_front_is_paused_and_a_pause_while_a_takeover_runs() {
    let front = Front::with(good).await;
    pause(&front).await;
    let takeover = front.run(&["takeover"]).await;
    takeover.assert_code(1);
    assert!(takeover.errors.contains("paused"), "{takeover:?}");
    let unhealthy = front.run(&["healthcheck"]).await;
    assert!(unhealthy.code == 1 && unhealthy.errors.contains("paused"), "{unhealthy:?}");
    resume(&front).await;
    let gate = Gate::closed();
    let mut running = front.begin_takeover_to(&fixture([gate.word("ready-once")]));
    running.until("started").await;
    let denied = front.run(&["pause"]).await;
    denied.assert_code(1);
    assert!(denied.errors.contains("a takeover is running"), "{denied:?}");
    gate.open();
    running.end().await.assert_committed();
    let denied = front.run(&["resume"]).await;
    denied.assert_code(1);
    assert!(denied.errors.contains("not paused"), "{denied:?}");
}

#[tokio::test]
async fn a_worker_that_wants_to_be_replaced_is_when_the_pause_is_over() {
    let wish = "wants-takeover:the configuration changed";
    let front = Front::with(|s| quick(s.worker(fixture([wish])))).await;
    pause(&front).await;
    eventually("the wish is heard", async || {
        front.log().text().contains("for after the pause").then_some(())
    })
    .await;
    assert_eq!(front.status().await.generations.len(), 1);
    resume(&front).await;
    front
        .until("it is replaced", |s| s.serving().is_some_and(|g| g.generation > generation(1)))
        .await;
}

#[tokio::test]
async fn the_death_of_the_worker_ends_the_pause_and_the_next_one_serves() {
    let front = Front::with(good).await;
    pause(&front).await;
    let worker = front.status().await.generations[0].worker().unwrap();
    let mut client = newcomer(&front).await;
    worker.signal(Signal::SIGKILL);
    assert_eq!(client.receive().await.unwrap().generation(), generation(2));
    assert!(front.status().await.paused.is_none());
}

#[tokio::test]
async fn a_paused_front_stops_in_good_order() {
    let mut front = Front::with(good).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    pause(&front).await;
    front.signal(Signal::SIGTERM);
    gate.open();
    assert_eq!(held.receive().await.unwrap().generation(), generation(1));
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn a_paused_front_of_one_instance_turns_nobody_away() {
    let front = Front::with(|s: Setup| {
        good(s).flag("--takeover-order", "stop-first").flag("--hold-timeout", "1ms")
    })
    .await;
    pause(&front).await;
    let mut client = newcomer(&front).await;
    assert_eq!(front.status().await.turned_away, 0);
    resume(&front).await;
    assert_eq!(client.receive().await.unwrap().generation(), generation(1));
}

#[tokio::test]
async fn a_worker_that_does_not_stop_accepting_is_paused_as_far_as_it_can_be_told() {
    let front = Front::with(|s| quick(s.worker(fixture(["never-stops"])))).await;
    // It does not confirm; whoever asked is told after the deadline for that, and the log says so.
    pause(&front).await;
    assert!(front.log().text().contains("did not confirm"), "{}", front.log().text());
    assert!(front.status().await.paused.is_some());
    let answer = ask(&front.address(), Request::get("/")).await.unwrap();
    assert_eq!(answer.generation(), generation(1));
}

#[tokio::test]
async fn a_program_that_can_only_be_stopped_for_good_is_not_paused() {
    let program = Program::new("/bin/sh").arg("-c").arg("sleep 600");
    let front = Front::with(|s| {
        s.worker(program).flag("--adapter", "activate").flag("--ready-after", "10ms")
    })
    .await;
    let denied = front.run(&["pause"]).await;
    denied.assert_code(1);
    assert!(denied.errors.contains("only when it drains"), "{denied:?}");
    front.serving().await;
}
