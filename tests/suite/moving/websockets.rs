//! WebSockets in the middle of something, and clients that are out of the ordinary.

use holdfast_tests::rig::Front;
use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::moving::{BareWebSocket, Frame, Part, call, frame};
use serde_json::json;

use super::{all_with, drained, http, websocket};
use crate::{generation, quick};

/// A call with so many bytes of nothing in it.
fn padded(id: &str, bytes: usize) -> String {
    call(id, "health", json!({"padding": "x".repeat(bytes)}))
}

/// Replaces the worker; the only connection, a WebSocket, must move.
async fn moved(front: &Front) {
    let takeover = front.takeover().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), websocket(1), "{takeover:?}");
}

#[tokio::test]
async fn a_message_in_fragments_is_put_together_across_generations() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let text = call("in pieces", "health", json!({}));
    let (first, rest) = text.split_at(10);
    let (middle, last) = rest.split_at(10);
    socket.send(&frame(Part::First, first)).await;
    socket.send(&frame(Part::Ping, "one")).await;
    assert_eq!(socket.next().await, Frame::Pong(b"one".to_vec()));
    moved(&front).await;
    socket.send(&frame(Part::Middle, middle)).await;
    moved(&front).await;
    socket.send(&frame(Part::Ping, "two")).await;
    assert_eq!(socket.next().await, Frame::Pong(b"two".to_vec()));
    moved(&front).await;
    socket.send(&frame(Part::Last, last)).await;
    let answer = socket.text().await.unwrap();
    assert_eq!((&answer["id"], &answer["ok"]), (&json!("in pieces"), &json!(true)));
    all_with(&front, generation(4), websocket(1)).await;
}

#[tokio::test]
async fn a_ping_cut_in_two_by_a_takeover_is_answered_once() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let ping = frame(Part::Ping, "cut in two");
    socket.send(&ping[..8]).await;
    moved(&front).await;
    socket.send(&ping[8..]).await;
    assert_eq!(socket.next().await, Frame::Pong(b"cut in two".to_vec()));
    assert_eq!(socket.ask("after", "health").await["ok"], true);
}

#[tokio::test]
async fn half_a_message_below_the_limit_moves_as_it_is() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let bytes = frame(Part::Text, padded("large", 900 * 1024));
    let (first, rest) = bytes.split_at(bytes.len() - 100);
    socket.send(first).await;
    moved(&front).await;
    socket.send(rest).await;
    let answer = socket.text().await.unwrap();
    assert_eq!(answer["id"], "large", "{answer}");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_finished_where_it_began_and_then_moves() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let bytes = frame(Part::Text, padded("huge", 2 * 1024 * 1024));
    let (first, rest) = bytes.split_at(bytes.len() - 100);
    socket.send(first).await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    let status = front.status().await;
    let incumbent = status.generation(generation(1)).expect("it still drains");
    assert_eq!(incumbent.connections, Some(websocket(1)), "{status:?}");
    socket.send(rest).await;
    let answer = socket.text().await.unwrap();
    assert_eq!(answer["id"], "huge", "{answer}");
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), websocket(1), "{takeover:?}");
    assert_eq!(socket.ask("after", "health").await["ok"], true);
    all_with(&front, generation(2), websocket(1)).await;
}

#[tokio::test]
async fn a_slow_reader_gets_everything_that_was_queued_for_it_once_and_in_order() {
    /// So many calls are made without reading: some fit into the kernel's buffers, some into what
    /// travels, some into neither.
    const CALLS: [usize; 4] = [4_000, 12_000, 20_000, 40_000];
    let front = Front::with(quick).await;
    let mut sockets = Vec::new();
    for calls in CALLS {
        let mut socket = BareWebSocket::connected(&front.address()).await;
        let numbered =
            (0..calls).flat_map(|n| frame(Part::Text, call(&n.to_string(), "health", json!({}))));
        let bytes: Vec<u8> = numbered.collect();
        socket.send(&bytes).await;
        sockets.push((calls, socket));
    }
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    for (calls, socket) in &mut sockets {
        for number in 0..*calls {
            let answer = socket.text().await.expect("an answer comes");
            assert_eq!(answer["id"], number.to_string(), "of {calls}: {answer}");
        }
    }
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), websocket(CALLS.len() as u64), "{takeover:?}");
    for (_, socket) in &mut sockets {
        assert_eq!(socket.ask("after", "health").await["ok"], true);
    }
}

#[tokio::test]
async fn a_websocket_client_that_will_send_no_more_gets_its_answer() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let bytes = frame(Part::Text, call("last words", "health", json!({})));
    socket.send(&bytes[..20]).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    socket.send(&bytes[20..]).await;
    socket.finish_sending().await;
    let answer = socket.text().await.expect("an answer comes before the end");
    assert_eq!(answer["id"], "last words", "{answer}");
    assert_eq!(socket.closed().await, None);
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn clients_of_a_unix_socket_move() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("clients.sock");
    listens_on(&format!("unix:{}", path.display())).await;
}

#[tokio::test]
async fn clients_of_ipv6_move() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        crate::skipped("there is no IPv6 here");
        return;
    }
    listens_on("[::1]:0").await;
}

async fn listens_on(address: &str) {
    let front = Front::with(|s| quick(s).listen(address)).await;
    let mut kept = HttpConnection::open(&front.address()).await.unwrap();
    kept.exchange(&Request::chat("before")).await.unwrap();
    let mut connected = BareWebSocket::connected(&front.address()).await;
    let mut challenged = BareWebSocket::challenged(&front.address()).await;
    for number in 2..=4 {
        let takeover = front.takeover().await;
        takeover.assert_committed();
        let moved = drained(&takeover, "moved");
        assert_eq!((moved.http, moved.websocket), (1, 2), "{takeover:?}");
        let answer = kept.exchange(&Request::chat("after")).await.unwrap();
        assert_eq!((answer.code, answer.generation()), (200, generation(number)));
        assert_eq!(connected.ask("after", "health").await["ok"], true);
    }
    // Scopes are given to backends of this machine only: the successor still knows where it is.
    let request = holdfast_tests::rig::moving::connect_call((4, 4), holdfast_tests::rig::TOKEN);
    challenged.send(&frame(Part::Text, request)).await;
    let hello = challenged.text().await.unwrap();
    assert_eq!(hello["payload"]["auth"]["scopes"], json!(["operator.admin"]), "{hello}");
}

#[tokio::test]
async fn half_a_request_head_moves_and_is_answered_by_the_successor() {
    let front = Front::with(quick).await;
    let request = Request::chat("in two pieces");
    let (head, body) = request.parts();
    for cut in [1, head.len() - 2] {
        let mut connection = HttpConnection::open(&front.address()).await.unwrap();
        connection.send(&head[..cut]).await.unwrap();
        front
            .until("it is accepted", |s| {
                s.is_settled() && s.serving().and_then(|g| g.connections) == Some(http(1))
            })
            .await;
        let takeover = front.takeover().await;
        takeover.assert_committed();
        assert_eq!(drained(&takeover, "moved"), http(1), "cut after {cut} bytes: {takeover:?}");
        connection.send(&[&head[cut..], body].concat()).await.unwrap();
        let answer = connection.receive().await.unwrap();
        assert_eq!((answer.code, answer.generation()), (200, takeover.successor()));
        assert!(answer.text().contains("in two pieces"));
    }
}
