//! Draining at a signal: what is finished, what is told, what is cut.

use nix::sys::signal::Signal::SIGTERM;
use serde_json::json;

use crate::rig::{Worker, completion, get, saying, streaming};

#[tokio::test]
async fn a_request_in_flight_is_finished_and_the_worker_exits_0() {
    let mut worker = Worker::start().await;
    let mut client = worker.connect().await;
    let slow = "x-holdfast-echo-delay-ms: 1000\r\n";
    client.send(completion(&streaming("one two"), slow).as_bytes()).await;
    client.head().await;
    let mut plain = worker.idle().await;
    plain.send(completion(&saying("whole"), slow).as_bytes()).await;
    worker.drain().await;
    let reply = plain.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    let mut said = String::new();
    while let Some(chunk) = client.chunk().await {
        said.push_str(&chunk);
    }
    assert!(said.ends_with("data: [DONE]\n\n"), "{said}");
    // Its head left before the drain began, so its connection is open still.
    drop(client);
    assert!(worker.process.exited().await.success());
}

#[tokio::test]
async fn an_idle_connection_is_served_once_more_and_told_to_close() {
    let mut worker = Worker::start().await;
    let mut idle = worker.idle().await;
    worker.drain().await;
    idle.send(get("/healthz").as_bytes()).await;
    let reply = idle.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(idle.rest().await.is_empty());
    assert!(worker.process.exited().await.success());
}

#[tokio::test]
async fn a_draining_worker_is_not_ready_but_lives_and_has_started() {
    let worker = Worker::start().await;
    let (mut live, mut started) = (worker.idle().await, worker.idle().await);
    let reply = worker.drain().await;
    assert_eq!((reply.status, reply.header("connection")), (503, Some("close")));
    assert_eq!(reply.json()["failing"], json!(["draining"]));
    for (path, client) in [("/healthz", &mut live), ("/startupz", &mut started)] {
        client.send(get(path).as_bytes()).await;
        assert_eq!(client.reply().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_half_sent_head_is_waited_for() {
    let mut worker = Worker::start().await;
    let mut client = worker.idle().await;
    let request = get("/healthz");
    let (half, rest) = request.split_at(20);
    client.send(half.as_bytes()).await;
    worker.drain().await;
    client.send(rest.as_bytes()).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(worker.process.exited().await.success());
}

#[tokio::test]
async fn websockets_are_told_and_closed_1012_in_their_handshake_too() {
    let mut worker = Worker::start().await;
    let mut connected = worker.websocket().await;
    connected.connect().await;
    let mut handshaking = worker.websocket().await;
    handshaking.challenged().await;
    worker.process.signal(SIGTERM);
    for (socket, seq) in [(&mut connected, json!(2)), (&mut handshaking, json!(null))] {
        let shutdown = socket.frame().await;
        assert_eq!(shutdown["event"], "shutdown");
        assert_eq!(shutdown["seq"], seq);
        assert_eq!(shutdown["payload"]["reason"], "gateway restarting");
        assert!(shutdown["payload"]["restartExpectedMs"].is_u64());
        assert_eq!(socket.closed().await, (1012, "service restart".to_owned()));
    }
    drop((connected, handshaking));
    assert!(worker.process.exited().await.success());
    assert!(worker.process.log.whole().await.contains("drained moved=0 finished=0 closed=2 cut=0"));
}

#[tokio::test]
async fn the_second_signal_cuts_what_is_left() {
    let mut worker = Worker::start().await;
    let mut idle = worker.idle().await;
    let mut busy = worker.connect().await;
    let slow = "x-holdfast-echo-delay-ms: 60000\r\n";
    busy.send(completion(&streaming("never"), slow).as_bytes()).await;
    busy.head().await;
    worker.drain().await;
    worker.process.signal(SIGTERM);
    assert!(idle.rest().await.is_empty());
    assert!(!busy.rest().await.ends_with(b"0\r\n\r\n"));
    assert!(worker.process.exited().await.success());
    assert!(worker.process.log.whole().await.contains("closed=0 cut=1"));
}

#[tokio::test]
async fn a_socket_file_of_its_own_is_removed_when_the_worker_leaves() {
    let mut worker = Worker::start().await;
    assert_eq!(worker.get("/healthz").await.status, 200);
    worker.process.signal(SIGTERM);
    assert!(worker.process.exited().await.success());
    assert!(!worker.dir.path().join("worker.sock").exists());
}
