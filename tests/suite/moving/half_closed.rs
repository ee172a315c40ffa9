//! Clients that close their sending side in the middle of a takeover, and clients that leave altogether: over
//! TCP both begin with the same FIN.

use std::time::Duration;

use holdfast_tests::rig::Front;
use holdfast_tests::rig::http::{HttpConnection, Request};

use super::in_flight::{begun, slow, stream};
use super::{drained, http};
use crate::{generation, quick};

/// Each word of an answer that is found unfinished by a takeover.
const WORD: Duration = Duration::from_millis(400);
/// Longer than any test is patient.
const ENDLESS: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_client_that_sends_no_more_gets_its_answer_through_a_takeover() {
    answered_through_a_takeover(&slow("one two three four", WORD)).await;
}

#[tokio::test]
async fn a_client_that_sends_no_more_gets_its_stream_through_a_takeover() {
    answered_through_a_takeover(&stream("one two three four", WORD)).await;
}

async fn answered_through_a_takeover(request: &Request) {
    let front = Front::with(quick).await;
    let mut connection = begun(&front, request).await;
    connection.close_sending().await.unwrap();
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    let answer = connection.receive().await.unwrap();
    assert_eq!((answer.code, answer.generation()), (200, generation(1)));
    assert!(answer.text().contains("four"), "{}", answer.text());
    assert_eq!(connection.closed().await, Ok(Vec::new()));
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "finished"), http(1), "{takeover:?}");
}

#[tokio::test]
async fn requests_sent_together_before_a_half_close_are_all_answered_through_a_takeover() {
    const WORDS: [&str; 3] = ["first", "second", "third"];
    let front = Front::with(quick).await;
    let mut connection = begun(&front, &slow("zeroth", WORD)).await;
    let mut together = Vec::new();
    for word in WORDS {
        let request = slow(word, WORD);
        let (head, body) = request.parts();
        together.extend([&head, body].concat());
    }
    connection.send(&together).await.unwrap();
    connection.close_sending().await.unwrap();
    let takeover = front.begin_takeover();
    for word in ["zeroth"].into_iter().chain(WORDS) {
        let answer = connection.receive().await.unwrap();
        assert!(answer.code == 200 && answer.text().contains(word), "{word}: {}", answer.text());
    }
    assert_eq!(connection.closed().await, Ok(Vec::new()));
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_run() {
    let front = Front::with(quick).await;
    for request in [slow("a b", ENDLESS), stream("a b", ENDLESS)] {
        drop(begun(&front, &request).await);
        nothing_in_flight(&front).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_with_more_requests_unread_ends_its_run() {
    let front = Front::with(quick).await;
    let mut connection = begun(&front, &slow("a b", ENDLESS)).await;
    for _ in 0..3 {
        connection.send(&Request::get("/healthz").parts().0).await.unwrap();
    }
    drop(connection);
    nothing_in_flight(&front).await;
}

#[tokio::test]
async fn a_client_that_leaves_after_a_half_close_ends_its_run() {
    let front = Front::with(quick).await;
    let mut connection = begun(&front, &slow("a b", ENDLESS)).await;
    connection.close_sending().await.unwrap();
    drop(connection);
    nothing_in_flight(&front).await;
}

#[tokio::test]
async fn a_client_of_http_1_0_that_closes_its_side_ends_its_run() {
    let front = Front::with(quick).await;
    let request = slow("a b", ENDLESS);
    let (head, body) = request.parts();
    let head = String::from_utf8(head).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    connection.send(&[head.as_bytes(), body].concat()).await.unwrap();
    front.until("it is in flight", |s| s.serving().and_then(|g| g.in_flight) == Some(1)).await;
    connection.close_sending().await.unwrap();
    assert_eq!(connection.closed().await, Ok(Vec::new()));
    nothing_in_flight(&front).await;
}

async fn nothing_in_flight(front: &Front) {
    front
        .until("no request is in flight", |s| s.serving().and_then(|g| g.in_flight) == Some(0))
        .await;
}
