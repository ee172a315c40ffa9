//! How many moved, told for programs, for people and afterwards.

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::moving::BareWebSocket;
use holdfast_tests::rig::{Front, Outcome};

use super::{drained, http, websocket};
use crate::quick;

/// Three keep-alive connections that were answered, and two WebSockets.
async fn five(front: &Front) -> (Vec<HttpConnection>, Vec<BareWebSocket>) {
    let (mut kept, mut sockets) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut connection = HttpConnection::open(&front.address()).await.unwrap();
        connection.exchange(&Request::get("/healthz")).await.unwrap();
        kept.push(connection);
    }
    for _ in 0..2 {
        sockets.push(BareWebSocket::connected(&front.address()).await);
    }
    (kept, sockets)
}

#[tokio::test]
async fn a_takeover_tells_how_many_connections_of_each_kind_moved() {
    let front = Front::with(quick).await;
    let _open = five(&front).await;
    let takeover = front.takeover().await;
    takeover.assert_committed();
    let moved = drained(&takeover, "moved");
    assert_eq!((moved.http, moved.websocket), (3, 2), "{takeover:?}");
    for way in ["finished", "closed", "cut"] {
        assert_eq!(drained(&takeover, way), http(0), "{way}: {takeover:?}");
    }
}

#[tokio::test]
async fn status_remembers_how_many_connections_of_each_kind_moved() {
    let front = Front::with(quick).await;
    let _open = five(&front).await;
    front.takeover().await.assert_committed();
    let status = front.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status.output).unwrap();
    let last = &status["last_takeover"];
    let counts = |way: &str| (last[way]["http"].as_u64(), last[way]["websocket"].as_u64());
    assert_eq!(counts("moved"), (Some(3), Some(2)), "{last}");
    assert_eq!(counts("cut"), (Some(0), Some(0)), "{last}");
}

#[tokio::test]
async fn people_are_told_how_many_connections_moved() {
    let front = Front::with(quick).await;
    let _open = five(&front).await;
    let Outcome { code, output, errors } = front.run(&["takeover"]).await;
    assert_eq!(code, 0, "{errors}");
    let line = "g1 drained: moved 5 · finished 0 · closed 0 · cut 0";
    assert!(output.contains(line), "no {line:?}: {output}");
}

#[tokio::test]
async fn connections_that_were_lost_with_a_failed_successor_are_counted_with_it_and_not_by_the_next()
 {
    let front = Front::with(|s| s.flag("--soak", "2s")).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(BareWebSocket::connected(&front.address()).await);
    }
    let mut failing = front.begin_takeover();
    failing.until("switched").await;
    let lost = front
        .status_with("the canary is with the successor", |status| {
            let successor = status.generation(crate::generation(2))?;
            let open = successor.connections?.websocket;
            (open == 8)
                .then(|| {
                    successor.worker().inspect(|w| w.signal(holdfast_tests::rig::Signal::SIGKILL))
                })?
                .map(|_| open)
        })
        .await;
    let failed = failing.end().await;
    failed.assert_rolled_back();
    let told = failed.event("rolled-back").expect("just seen");
    assert_eq!(told["lost"]["websocket"], lost, "{failed:?}");
    let status = front.run(&["status"]).await.output;
    assert!(status.contains(&format!("lost {lost}")), "{status}");
    let takeover = front.takeover().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), websocket(20 - lost), "{takeover:?}");
}
