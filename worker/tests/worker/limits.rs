//! Clients that stand still, and clients that send too much.

use crate::rig::{TOKEN, Worker, get};

const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n";

#[tokio::test]
async fn a_head_begun_and_then_stalled_is_answered_408() {
    let worker = Worker::with(&["--header-timeout", "200ms"]).await;
    for begun in ["G", "GET /healthz HTTP/1.1\r\nhost: loc"] {
        let mut client = worker.connect().await;
        client.send(begun.as_bytes()).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
        assert_eq!(reply.header("x-holdfast-generation"), Some("g0"));
        assert!(client.rest().await.is_empty());
    }
}

#[tokio::test]
async fn the_head_of_a_second_request_is_not_waited_for_either() {
    let worker = Worker::with(&["--header-timeout", "200ms"]).await;
    let mut client = worker.connect().await;
    client.send(get("/healthz").as_bytes()).await;
    assert_eq!(client.reply().await.status, 200);
    client.send(b"GET /hea").await;
    assert_eq!(client.reply().await.status, 408);
}

#[tokio::test]
async fn a_body_stalled_at_any_point_is_answered_408() {
    let worker = Worker::with(&["--body-timeout", "200ms"]).await;
    for body in [
        "content-length: 100\r\n\r\n",
        "content-length: 100\r\n\r\n{\"mod",
        "transfer-encoding: chunked\r\n\r\n5\r\n{\"mo",
    ] {
        let mut client = worker.connect().await;
        client.send(format!("{POST}authorization: Bearer {TOKEN}\r\n{body}").as_bytes()).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
        assert_eq!(reply.header("x-holdfast-generation"), Some("g0"));
        assert!(client.rest().await.is_empty());
    }
}

#[tokio::test]
async fn a_connection_without_a_request_just_closes() {
    let worker = Worker::with(&["--idle-timeout", "200ms"]).await;
    let mut silent = worker.connect().await;
    assert!(silent.rest().await.is_empty());
    let mut idle = worker.connect().await;
    idle.send(get("/healthz").as_bytes()).await;
    assert_eq!(idle.reply().await.status, 200);
    assert!(idle.rest().await.is_empty());
}

#[tokio::test]
async fn a_body_over_25_mib_is_413_declared_or_not() {
    let worker = Worker::start().await;
    let mut declared = worker.connect().await;
    let head = format!("{POST}authorization: Bearer {TOKEN}\r\ncontent-length: 26214401\r\n\r\n");
    declared.send(head.as_bytes()).await;
    let reply = declared.reply().await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json()["error"]["type"], "invalid_request_error");

    let mut undeclared = worker.connect().await;
    let head = format!("{POST}authorization: Bearer {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n");
    undeclared.send(head.as_bytes()).await;
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 0x10_0000], b"\r\n"].concat();
    for _ in 0..26 {
        undeclared.try_send(&chunk).await;
    }
    let reply = undeclared.reply().await;
    assert_eq!((reply.status, reply.header("x-holdfast-generation")), (413, Some("g0")));
}

#[tokio::test]
async fn a_client_that_sends_its_whole_body_too_large_still_reads_the_413() {
    let worker = Worker::start().await;
    let mut client = worker.connect().await;
    let head = format!("{POST}authorization: Bearer {TOKEN}\r\ncontent-length: 27000000\r\n\r\n");
    client.send(head.as_bytes()).await;
    client.try_send(&vec![b' '; 27_000_000]).await;
    assert_eq!(client.reply().await.status, 413);
}
