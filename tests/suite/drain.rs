//! How a generation ends that has been replaced.

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{Front, Gate, WebSocket};

use crate::{fixture, generation, good, held_request, quick};

#[tokio::test]
async fn what_is_unfinished_at_the_deadline_is_cut_and_counted() {
    let front = Front::with(|s| good(s).flag("--drain-timeout", "300ms")).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let takeover = front.takeover().await;
    takeover.assert_cut(1);
    assert_eq!(takeover.event("drained").expect("it has ended")["cut"]["http"], 1);
    assert!(held.receive().await.is_err(), "a request was answered after it was cut");
}

#[tokio::test]
async fn what_the_bundled_worker_has_unfinished_at_the_deadline_is_cut_and_counted() {
    let front = Front::with(|s| quick(s).flag("--drain-timeout", "300ms")).await;
    let mut slow = HttpConnection::open(&front.address()).await.unwrap();
    let request = Request::chat("never heard").header("x-holdfast-echo-delay-ms", "60000");
    let (head, body) = request.parts();
    slow.send(&[&head, body].concat()).await.unwrap();
    front.until("it is in flight", |s| s.serving().and_then(|g| g.in_flight) == Some(1)).await;
    front.takeover().await.assert_cut(1);
    assert!(slow.receive().await.is_err(), "a request was answered after it was cut");
}

#[tokio::test]
async fn a_drain_can_be_cut_short_by_hand() {
    let front = Front::with(|s| good(s).flag("--drain-timeout", "10m")).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    front.run(&["drain", "--now", "g1"]).await.assert_code(0);
    assert!(held.receive().await.is_err());
    takeover.end().await.assert_cut(1);
    front.until("the incumbent is gone", |s| s.is_settled()).await;
}

#[tokio::test]
async fn only_a_draining_generation_can_be_hurried() {
    let front = Front::with(good).await;
    for (name, why) in [("g1", "is not draining"), ("g7", "there is no g7")] {
        let denied = front.run(&["drain", "--now", name]).await;
        denied.assert_code(1).assert_says(why);
    }
    front.run(&["drain", "--now", "seven"]).await.assert_code(64);
    assert_eq!(front.serving().await.generation, generation(1));
}

#[tokio::test]
async fn a_generation_that_hangs_in_its_drain_is_ended_after_its_grace() {
    let front = Front::with(|s| {
        quick(s.worker(fixture(["first-good", "serve"]))).flag("--drain-timeout", "100ms")
    })
    .await;
    front.takeover_to(&fixture(["never-drains", "ignore-term"])).await.assert_committed();
    let stubborn = front.serving().await.worker().unwrap();
    let takeover = front.takeover_to(&fixture(["serve"])).await;
    assert_eq!(takeover.events.last().unwrap()["outcome"], "committed", "{takeover:?}");
    assert!(stubborn.is_gone(), "the drain has ended and the worker runs");
    assert_eq!(front.serving().await.generation, generation(3));
}

#[tokio::test]
async fn a_websocket_opened_after_the_switch_stays() {
    let front = Front::with(quick).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let mut websocket = WebSocket::connected(&front.address()).await;
    takeover.end().await.assert_committed();
    let answer = websocket.call("health", serde_json::json!({})).await;
    assert_eq!(answer["ok"], true, "{answer}");
}
