//! Requests that are being answered while a takeover happens.

use std::time::{Duration, Instant};

use handoff::Connections;
use holdfast_tests::rig::Front;
use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use serde_json::json;

use super::{all_with, drained, http};
use crate::{generation, quick};

/// A request whose every word takes its time.
pub(super) fn slow(words: &str, each: Duration) -> Request {
    Request::chat(words).header("x-holdfast-echo-delay-ms", &each.as_millis().to_string())
}

/// The same, answered as a stream of events.
pub(super) fn stream(words: &str, each: Duration) -> Request {
    let body = json!({
        "model": "openclaw", "stream": true, "messages": [{"role": "user", "content": words}],
    });
    Request::post("/v1/chat/completions", body.to_string())
        .header("authorization", &format!("Bearer {}", holdfast_tests::rig::TOKEN))
        .header("x-holdfast-echo-delay-ms", &each.as_millis().to_string())
}

/// A connection whose request is being answered.
pub(super) async fn begun(front: &Front, request: &Request) -> HttpConnection {
    let before = front.serving().await.in_flight.unwrap_or(0);
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    let (head, body) = request.parts();
    connection.send(&[&head, body].concat()).await.unwrap();
    front
        .until("it is in flight", |s| s.serving().and_then(|g| g.in_flight) == Some(before + 1))
        .await;
    connection
}

#[tokio::test]
async fn a_long_request_is_finished_by_the_incumbent_and_then_its_connection_moves() {
    finished_and_then_moved(&slow("one two three four", Duration::from_millis(400))).await;
}

#[tokio::test]
async fn a_stream_is_finished_by_the_incumbent_and_then_its_connection_moves() {
    finished_and_then_moved(&stream("one two three four", Duration::from_millis(400))).await;
}

async fn finished_and_then_moved(request: &Request) {
    let front = Front::with(quick).await;
    let mut connection = begun(&front, request).await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    let answer = connection.receive().await.unwrap();
    assert_eq!((answer.code, answer.generation()), (200, generation(1)));
    assert!(answer.text().contains("four"), "{}", answer.text());
    assert!(!answer.closes(), "the connection was to be closed: {:?}", answer.headers);
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), http(1), "{takeover:?}");
    let next = connection.exchange(&Request::chat("next")).await.unwrap();
    assert_eq!((next.code, next.generation()), (200, generation(2)));
}

#[tokio::test]
async fn requests_behind_a_long_one_are_answered_in_order_by_whoever_has_the_connection() {
    let front = Front::with(quick).await;
    let mut connection = begun(&front, &slow("first", Duration::from_secs(1))).await;
    let request = Request::chat("second");
    let (head, body) = request.parts();
    connection.send(&[&head, body, &head[..10]].concat()).await.unwrap();
    let takeover = front.begin_takeover();
    let first = connection.receive().await.unwrap();
    assert!(first.text().contains("first\""), "{}", first.text());
    let second = connection.receive().await.unwrap();
    assert!(second.text().contains("second\""), "{}", second.text());
    takeover.end().await.assert_committed();
    connection.send(&[&head[10..], body].concat()).await.unwrap();
    let third = connection.receive().await.unwrap();
    assert!(third.text().contains("second\""), "{}", third.text());
    assert_eq!(third.generation(), generation(2));
    for answer in [first, second, third] {
        assert!(!answer.closes(), "{:?}", answer.headers);
    }
}

#[tokio::test]
async fn what_is_unfinished_at_the_deadline_is_cut_and_the_rest_has_moved() {
    let front = Front::with(|s| quick(s).flag("--drain-timeout", "1s")).await;
    let mut endless = begun(&front, &slow("endless", Duration::from_mins(1))).await;
    let mut idle = BareWebSocket::connected(&front.address()).await;
    let takeover = front.takeover().await;
    takeover.assert_cut(1);
    assert_eq!(drained(&takeover, "cut"), http(1), "{takeover:?}");
    assert_eq!(drained(&takeover, "moved"), Connections { http: 0, websocket: 1 });
    assert!(endless.receive().await.is_err(), "a request was answered after it was cut");
    assert_eq!(idle.ask("after", "health").await["ok"], true);
}

#[tokio::test]
async fn a_websocket_that_cannot_move_is_told_to_come_back_in_the_last_quarter_of_the_drain() {
    const DRAIN: Duration = Duration::from_secs(4);
    let front = Front::with(|s| quick(s).flag("--drain-timeout", "4s")).await;
    let mut stuck = BareWebSocket::connected(&front.address()).await;
    let padding = json!({"padding": "x".repeat(2 * 1024 * 1024)});
    let bytes = frame(Part::Text, call("never whole", "health", padding));
    stuck.send(&bytes[..bytes.len() - 1]).await;
    let mut moves = BareWebSocket::connected(&front.address()).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let switched_at = Instant::now();
    let told = stuck.text().await.expect("it is told");
    assert_eq!(told["event"], "shutdown", "{told}");
    assert!(switched_at.elapsed() >= DRAIN * 3 / 4, "told after {:?}", switched_at.elapsed());
    assert_eq!(stuck.closed().await, Some((1012, "service restart".into())));
    drop(stuck);
    let takeover = takeover.end().await;
    takeover.assert_committed();
    let one = Connections { http: 0, websocket: 1 };
    assert_eq!(drained(&takeover, "closed"), one, "{takeover:?}");
    assert_eq!(drained(&takeover, "moved"), one, "{takeover:?}");
    assert_eq!(moves.ask("after", "health").await["ok"], true);
    all_with(&front, generation(2), one).await;
}

#[tokio::test]
async fn a_request_answered_in_the_last_quarter_of_the_drain_ends_its_connection() {
    let front = Front::with(|s| quick(s).flag("--drain-timeout", "8s")).await;
    let mut connection = begun(&front, &slow("late", Duration::from_secs(7))).await;
    let takeover = front.begin_takeover();
    let answer = connection.receive().await.unwrap();
    assert_eq!((answer.code, answer.generation()), (200, generation(1)));
    assert!(answer.closes(), "it was left open with nobody to serve it: {:?}", answer.headers);
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "finished"), http(1), "{takeover:?}");
}
