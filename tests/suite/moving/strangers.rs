//! Takeovers between programs of which one does not move connections, and limits that do.

use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::moving::BareWebSocket;
use holdfast_tests::rig::{Front, Program, binaries};

use super::{drained, http, websocket};
use crate::{fixture, generation, quick};

/// Nothing moved: both clients were told to come back, and are counted as ever.
async fn drains_the_ordinary_way(front: &Front, successor: &Program) {
    let mut kept = HttpConnection::open(&front.address()).await.unwrap();
    assert!(!kept.exchange(&Request::chat("before")).await.unwrap().closes());
    let mut connected = BareWebSocket::connected(&front.address()).await;
    let mut challenged = BareWebSocket::challenged(&front.address()).await;
    let mut takeover = front.begin_takeover_to(successor);
    takeover.until("committed").await;
    for socket in [&mut connected, &mut challenged] {
        assert_eq!(socket.text().await.expect("it is told")["event"], "shutdown");
        assert_eq!(socket.closed().await, Some((1012, "service restart".into())));
    }
    drop((connected, challenged));
    // The drain has begun, or nobody would have been told.
    let last = kept.exchange(&Request::chat("last")).await.unwrap();
    assert_eq!((last.code, last.generation()), (200, generation(1)));
    assert!(last.closes(), "{:?}", last.headers);
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), http(0), "{takeover:?}");
    assert_eq!(drained(&takeover, "finished"), http(1), "{takeover:?}");
    assert_eq!(drained(&takeover, "closed"), websocket(2), "{takeover:?}");
}

#[tokio::test]
async fn nothing_moves_to_a_program_that_knows_nothing_of_it() {
    let front = Front::with(quick).await;
    drains_the_ordinary_way(&front, &fixture(["serve"])).await;
}

#[tokio::test]
async fn nothing_moves_to_a_worker_that_was_told_not_to() {
    let front = Front::with(quick).await;
    let still = Program::new(binaries::holdfast_worker()).arg("--migrate").arg("off");
    drains_the_ordinary_way(&front, &still).await;
}

#[tokio::test]
async fn nothing_moves_from_a_worker_that_was_told_not_to() {
    let still = Program::new(binaries::holdfast_worker()).arg("--migrate").arg("off");
    let front = Front::with(|s| quick(s.worker(still))).await;
    drains_the_ordinary_way(&front, &Program::new(binaries::holdfast_worker())).await;
}

#[tokio::test]
async fn a_program_that_moves_nothing_is_replaced_by_one_that_would() {
    let front = Front::with(|s| quick(s.worker(fixture(["serve"])))).await;
    ask(&front.address(), Request::get("/")).await.unwrap();
    let takeover = front.takeover_to(&Program::new(binaries::holdfast_worker())).await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), http(0), "{takeover:?}");
    let socket = BareWebSocket::connected(&front.address()).await;
    let next = front.takeover().await;
    next.assert_committed();
    assert_eq!(drained(&next, "moved"), websocket(1), "{next:?}");
    drop(socket);
}

#[tokio::test]
async fn connections_that_moved_count_against_the_most_a_worker_may_hold() {
    const MOST: u64 = 5;
    let front = Front::with(|s| quick(s).flag("--max-connections", MOST.to_string())).await;
    let mut sockets = Vec::new();
    for _ in 0..MOST {
        sockets.push(BareWebSocket::connected(&front.address()).await);
    }
    let takeover = front.takeover().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), websocket(MOST), "{takeover:?}");
    let mut newcomer = HttpConnection::open(&front.address()).await.unwrap();
    newcomer.send(&Request::get("/healthz").parts().0).await.unwrap();
    // Somebody who was served first proves that the successor has had its turn since.
    for socket in &mut sockets {
        assert_eq!(socket.ask("after", "health").await["ok"], true);
    }
    let open = front.serving().await.connections.expect("the successor answers");
    assert_eq!(open.total(), MOST, "more than the most are open");
    drop(sockets.pop());
    assert_eq!(newcomer.receive().await.unwrap().generation(), generation(2));
}
