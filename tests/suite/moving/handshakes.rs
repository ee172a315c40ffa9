//! Handshakes that a takeover happens in the middle of, at every step.

use std::time::{Duration, Instant};

use holdfast_tests::rig::moving::{BareWebSocket, Part, UPGRADE, connect_call, frame};
use holdfast_tests::rig::{Front, TOKEN};

use super::{all_with, drained, http, websocket};
use crate::{generation, quick};

/// What a client sends that is to be let in.
fn connect() -> Vec<u8> {
    frame(Part::Text, connect_call((4, 4), TOKEN))
}

/// Ends once the first generation holds one connection of this kind.
async fn accepted(front: &Front, connections: handoff::Connections) {
    all_with(front, generation(1), connections).await;
}

/// Replaces the first generation; each connection must move.
async fn moved(front: &Front, connections: handoff::Connections) {
    let takeover = front.takeover().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), connections, "{takeover:?}");
}

/// The rest of a handshake whose challenge was not read, and proof of who serves now.
async fn goes_on(front: &Front, mut socket: BareWebSocket) {
    socket.upgraded().await;
    assert_eq!(socket.text().await.unwrap()["event"], "connect.challenge");
    socket.send(&connect()).await;
    assert_eq!(socket.welcomed().await, 4);
    assert_eq!(socket.ask("1", "health").await["ok"], true);
    all_with(front, generation(2), websocket(1)).await;
}

#[tokio::test]
async fn a_silent_connection_becomes_a_websocket_of_the_successor() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::open(&front.address()).await;
    accepted(&front, http(1)).await;
    moved(&front, http(1)).await;
    socket.send(UPGRADE).await;
    goes_on(&front, socket).await;
}

#[tokio::test]
async fn half_an_upgrade_request_moves() {
    for cut in [1, UPGRADE.len() / 2, UPGRADE.len() - 1] {
        let front = Front::with(quick).await;
        let mut socket = BareWebSocket::open(&front.address()).await;
        socket.send(&UPGRADE[..cut]).await;
        accepted(&front, http(1)).await;
        moved(&front, http(1)).await;
        socket.send(&UPGRADE[cut..]).await;
        goes_on(&front, socket).await;
    }
}

#[tokio::test]
async fn an_upgrade_whose_answer_was_not_read_moves() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::open(&front.address()).await;
    socket.send(UPGRADE).await;
    accepted(&front, websocket(1)).await;
    moved(&front, websocket(1)).await;
    goes_on(&front, socket).await;
}

#[tokio::test]
async fn a_challenge_can_be_answered_in_the_next_generation_and_the_one_after() {
    let front = Front::with(quick).await;
    let mut once = BareWebSocket::challenged(&front.address()).await;
    let mut twice = BareWebSocket::challenged(&front.address()).await;
    moved(&front, websocket(2)).await;
    once.send(&connect()).await;
    assert_eq!(once.welcomed().await, 4);
    moved(&front, websocket(2)).await;
    twice.send(&connect()).await;
    assert_eq!(twice.welcomed().await, 4);
    for socket in [&mut once, &mut twice] {
        assert_eq!(socket.ask("1", "health").await["ok"], true);
    }
    all_with(&front, generation(3), websocket(2)).await;
}

#[tokio::test]
async fn a_connect_frame_moves_at_any_byte() {
    let front = Front::with(quick).await;
    let bytes = connect();
    let cuts = [1, 2, 3, 4, 7, 8, 9, bytes.len() / 2, bytes.len() - 1];
    let mut sockets = Vec::new();
    for cut in cuts {
        let mut socket = BareWebSocket::challenged(&front.address()).await;
        socket.send(&bytes[..cut]).await;
        sockets.push(socket);
    }
    moved(&front, websocket(cuts.len() as u64)).await;
    for (socket, cut) in sockets.iter_mut().zip(cuts) {
        socket.send(&bytes[cut..]).await;
        assert_eq!(socket.welcomed().await, 4, "cut after {cut} bytes");
        assert_eq!(socket.ask("1", "health").await["ok"], true);
    }
}

#[tokio::test]
async fn a_connect_sent_in_the_instant_of_a_takeover_is_answered_once() {
    const SOCKETS: u64 = 20;
    const TAKEOVERS: u64 = 5;
    let front = Front::with(quick).await;
    let mut connected = Vec::new();
    for _ in 0..TAKEOVERS {
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            sockets.push(BareWebSocket::challenged(&front.address()).await);
        }
        let mut takeover = front.begin_takeover();
        // Some before it, some while it is made ready, some while the canary moves, the rest while
        // everything does.
        for (step, some) in
            ["requested", "ready", "switched", "committed"].iter().zip(sockets.chunks_mut(5))
        {
            takeover.until(step).await;
            for socket in some {
                socket.send(&connect()).await;
                tokio::task::yield_now().await;
            }
        }
        for socket in &mut sockets {
            assert_eq!(socket.welcomed().await, 4);
        }
        takeover.end().await.assert_committed();
        connected.extend(sockets);
    }
    for socket in &mut connected {
        assert_eq!(socket.ask("1", "health").await["ok"], true);
    }
    all_with(&front, generation(TAKEOVERS + 1), websocket(SOCKETS * TAKEOVERS)).await;
}

#[tokio::test]
async fn a_client_that_moved_in_its_handshake_speaks_the_protocol_it_knows() {
    let front = Front::with(quick).await;
    let mut sockets = Vec::new();
    for protocol in [3, 4] {
        sockets.push((protocol, BareWebSocket::challenged(&front.address()).await));
    }
    moved(&front, websocket(2)).await;
    for (protocol, socket) in &mut sockets {
        let request = connect_call((*protocol, *protocol), TOKEN);
        socket.send(&frame(Part::Text, request)).await;
        assert_eq!(socket.welcomed().await, *protocol);
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_after_a_move_in_the_same_words() {
    let front = Front::with(quick).await;
    let mut stays = BareWebSocket::challenged(&front.address()).await;
    let mut moves = BareWebSocket::challenged(&front.address()).await;
    let wrong = frame(Part::Text, connect_call((4, 4), "not the token"));
    stays.send(&wrong).await;
    let refused = (stays.text().await, stays.closed().await);
    drop(stays);
    accepted(&front, websocket(1)).await;
    moved(&front, websocket(1)).await;
    moves.send(&wrong).await;
    assert_eq!((moves.text().await, moves.closed().await), refused);
    let (answer, close) = refused;
    let answer = answer.expect("a refusal comes before the close");
    assert_eq!(answer["error"]["details"]["code"], "AUTH_TOKEN_MISMATCH", "{answer}");
    assert_eq!(close.map(|(code, _)| code), Some(1008));
}

#[tokio::test]
async fn the_time_for_a_handshake_counts_from_the_upgrade_however_often_it_moves() {
    const LIMIT: Duration = Duration::from_secs(4);
    let front = Front::with(|s| quick(s).environment("HOLDFAST_HANDSHAKE_TIMEOUT", "4s")).await;
    let before = Instant::now();
    let mut socket = BareWebSocket::challenged(&front.address()).await;
    let upgraded_at = Instant::now();
    while upgraded_at.elapsed() < LIMIT / 2 {
        moved(&front, websocket(1)).await;
    }
    let closed = socket.closed().await;
    assert_eq!(closed, Some((1008, "handshake timeout".into())));
    assert!(before.elapsed() >= LIMIT, "closed after {:?}", before.elapsed());
    // Counted from the last move, it would take half as long again.
    assert!(upgraded_at.elapsed() < LIMIT * 11 / 8, "closed after {:?}", upgraded_at.elapsed());
}
