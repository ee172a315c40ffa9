//! Clients that close their sending side and read on, and clients that leave.

use crate::rig::{Client, Worker, completion, get, saying, streaming};

/// Slow enough for a request to be found unanswered.
const SLOW: &str = "x-holdfast-echo-delay-ms: 400\r\n";
/// Slower than any test is patient.
const ENDLESS: &str = "x-holdfast-echo-delay-ms: 60000\r\n";
/// How a request is logged whose client left before it was answered: without a status.
const UNANSWERED: &str = "completions\" ms=";

/// A client that sends this and nothing more.
async fn sender(worker: &Worker, bytes: &str) -> Client {
    let mut client = worker.connect().await;
    client.send(bytes.as_bytes()).await;
    client.close_sending().await;
    client
}

#[tokio::test]
async fn a_client_that_sends_no_more_is_answered_and_then_its_connection_ends() {
    let worker = Worker::start().await;
    let mut client = sender(&worker, &completion(&saying("a b"), SLOW)).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, None));
    assert!(reply.body.contains("a b"), "{}", reply.body);
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn what_is_answered_at_once_is_answered_alone() {
    let worker = Worker::start().await;
    for request in [get("/healthz"), completion(&saying("a b"), ""), get("/nowhere")] {
        let mut client = sender(&worker, &request).await;
        let status = client.reply().await.status;
        assert!(matches!(status, 200 | 404), "{status}");
        assert!(client.rest().await.is_empty());
    }
}

#[tokio::test]
async fn a_large_answer_comes_whole_after_a_half_close() {
    let worker = Worker::start().await;
    let message = "lorem ipsum ".repeat(200_000);
    let mut client = sender(&worker, &completion(&saying(&message), "")).await;
    let mut reply = client.reply().await;
    // So much may take a busy worker long enough to see the FIN before it has read everything.
    while reply.status == 100 {
        reply = client.reply().await;
    }
    let said = &reply.json()["choices"][0]["message"]["content"];
    assert!(*said == message, "{} bytes came back of {}", reply.body.len(), message.len());
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn requests_sent_together_before_a_half_close_are_all_answered() {
    let worker = Worker::start().await;
    let slow = completion(&saying("slow"), SLOW);
    let mut client = sender(&worker, &[&slow[..], &slow, &get("/healthz")].concat()).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    for _ in 0..2 {
        assert!(client.reply().await.body.contains("slow"));
    }
    assert_eq!(client.reply().await.status, 200);
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_stream_goes_on_after_a_half_close_and_says_a_comment_once() {
    let worker = Worker::start().await;
    let mut client = worker.connect().await;
    client.send(completion(&streaming("one two three four"), SLOW).as_bytes()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    client.close_sending().await;
    let mut chunks = Vec::new();
    while let Some(chunk) = client.chunk().await {
        chunks.push(chunk);
    }
    assert_eq!(chunks.iter().filter(|chunk| *chunk == ":\n\n").count(), 1, "{chunks:?}");
    assert!(chunks.concat().contains("four"));
    assert!(chunks.concat().ends_with("data: [DONE]\n\n"));
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_body_that_ends_early_is_answered_400() {
    let worker = Worker::start().await;
    let request = completion(&saying("a b"), "");
    let mut client = sender(&worker, &request[..request.len() - 1]).await;
    assert_eq!(client.reply().await.status, 400);
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_client_of_http_1_0_that_closes_its_side_has_left() {
    let worker = Worker::with(&["--access-log"]).await;
    let request = completion(&saying("a b"), ENDLESS).replace("HTTP/1.1", "HTTP/1.0");
    let mut client = sender(&worker, &request).await;
    assert!(client.rest().await.is_empty());
    worker.process.log.shows(UNANSWERED).await;
}

#[tokio::test]
async fn a_client_that_leaves_after_a_half_close_ends_its_run() {
    let worker = Worker::with(&["--access-log"]).await;
    let mut client = sender(&worker, &completion(&saying("a b"), ENDLESS)).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    drop(client);
    worker.process.log.shows(UNANSWERED).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_run_although_more_of_it_is_unread() {
    // Its second request comes along with the first, or behind it.
    for at_once in [get("/healthz"), String::new()] {
        let worker = Worker::with(&["--access-log"]).await;
        let mut client = worker.connect().await;
        let request = completion(&streaming("a b"), ENDLESS) + &at_once;
        client.send(request.as_bytes()).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        client.send(get("/nowhere").as_bytes()).await;
        drop(client);
        worker.process.log.shows("status=200").await;
    }
}
