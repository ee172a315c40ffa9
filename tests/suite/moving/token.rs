//! The shared token of the configuration, changed while workers are replaced.

use std::path::Path;

use holdfast_tests::rig::moving::{BareWebSocket, Part, connect_call, frame};
use holdfast_tests::rig::{Front, TOKEN, WebSocket};

use super::{all_with, websocket};
use crate::{generation, quick};

fn write(path: &Path, token: &str) {
    let config = format!("{{gateway: {{auth: {{token: '{token}'}}}}}}");
    std::fs::write(path, config).unwrap();
}

/// A front whose workers know no token but the configuration's.
async fn front(config: &Path) -> Front {
    let without = ["/usr/bin/env", "-u", "HOLDFAST_TOKEN"];
    Front::with(|s| quick(s).environment("OPENCLAW_CONFIG_PATH", config).wrapped_in(&without)).await
}

/// Whether somebody with this token is let in.
async fn lets_in(front: &Front, token: &str) -> bool {
    let mut socket = BareWebSocket::challenged(&front.address()).await;
    socket.send(&frame(Part::Text, connect_call((4, 4), token))).await;
    socket.text().await.expect("it is answered")["ok"] == true
}

#[tokio::test]
async fn a_token_added_to_the_configuration_is_accepted_at_the_next_handshake_without_a_takeover() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("openclaw.json");
    let front = front(&config).await;
    assert!(!lets_in(&front, "added").await);
    let worker = front.serving().await.worker();
    write(&config, "added");
    while !lets_in(&front, "added").await {}
    assert_eq!(front.status().await.takeovers.committed, 0);
    assert_eq!(front.serving().await.worker(), worker, "the same process serves");
}

#[tokio::test]
async fn a_token_is_taken_back_from_connections_that_have_moved() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("openclaw.json");
    write(&config, TOKEN);
    let front = front(&config).await;
    let socket = WebSocket::connected(&front.address()).await;
    front.takeover().await.assert_committed();
    all_with(&front, generation(2), websocket(1)).await;
    write(&config, "another");
    let ending = socket.ended().await;
    assert_eq!((ending.code, ending.reason.as_str()), (Some(4001), "gateway auth changed"));
    assert!(lets_in(&front, "another").await && !lets_in(&front, TOKEN).await);
    assert_eq!(front.status().await.takeovers.committed, 1, "none but the one asked for");
}
