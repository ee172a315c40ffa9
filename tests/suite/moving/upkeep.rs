//! What clients ask about the gateway itself while its workers are replaced, also because they asked for that.

use holdfast_tests::rig::{Front, TOKEN, WebSocket};
use serde_json::{Value, json};

use super::{all_with, websocket};
use crate::{generation, quick};

async fn told(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    let answer = socket.call(method, params).await;
    assert_eq!(answer["ok"], true, "{answer}");
    answer["payload"].clone()
}

async fn sent(socket: &mut WebSocket, text: &str, key: &str) {
    let params = json!({"sessionKey": "main", "message": text, "idempotencyKey": key});
    told(socket, "chat.send", params).await;
}

#[tokio::test]
async fn a_restart_that_is_asked_for_is_a_takeover_and_who_asked_keeps_the_connection() {
    let front = Front::with(quick).await;
    let mut socket = WebSocket::connected(&front.address()).await;
    let params = json!({"reason": "the operator's wish", "skipDeferral": true});
    let answer = told(&mut socket, "gateway.restart.request", params).await;
    assert_eq!((&answer["ok"], &answer["status"]), (&json!(true), &json!("scheduled")));
    assert_eq!(answer["preflight"]["safe"], true);
    let restart = &answer["restart"];
    assert_eq!(
        (&restart["reason"], &restart["coalesced"]),
        (&json!("the operator's wish"), &json!(false))
    );
    front.until("the takeover is committed", |status| status.takeovers.committed == 1).await;
    all_with(&front, generation(2), websocket(1)).await;
    assert!(front.log().text().contains("the operator's wish"));
    told(&mut socket, "status", json!({})).await;
}

#[tokio::test]
async fn a_takeover_is_asked_for_three_times_a_minute_and_not_more_often() {
    let front = Front::with(quick).await;
    let mut socket = WebSocket::connected(&front.address()).await;
    for _ in 0..3 {
        told(&mut socket, "gateway.restart.request", json!({})).await;
    }
    // Whichever generation it asks by now knows how often it asked there.
    let refused = async {
        for _ in 0..7 {
            let answer = socket.call("gateway.restart.request", json!({})).await;
            if answer["ok"] == false {
                return answer["error"].clone();
            }
        }
        panic!("nobody counts");
    };
    let error = refused.await;
    assert_eq!(
        (&error["code"], &error["details"]["limit"]),
        (&json!("UNAVAILABLE"), &json!("3 per 60s"))
    );
}

#[tokio::test]
async fn the_preflight_counts_the_runs_of_both_generations() {
    let front = Front::with(quick).await;
    let mut socket = WebSocket::connected(&front.address()).await;
    sent(&mut socket, "/slow 400 a b c d e f g h", "first").await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    all_with(&front, generation(2), websocket(1)).await;
    sent(&mut socket, "hello", "second").await;
    let preflight = told(&mut socket, "gateway.restart.preflight", json!({})).await;
    // The first still runs in the incumbent, and the second waits for it here.
    let counts = json!({
        "queueSize": 2, "pendingReplies": 0, "embeddedRuns": 1, "activeTasks": 0, "totalActive": 3,
    });
    assert_eq!(preflight["counts"], counts, "{preflight}");
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn who_moved_is_present_since_they_connected_and_nobody_twice() {
    let front = Front::with(quick).await;
    let mut first = WebSocket::connected(&front.address()).await;
    let before = told(&mut first, "system-presence", json!({})).await;
    front.takeover().await.assert_committed();
    all_with(&front, generation(2), websocket(1)).await;
    let _second = WebSocket::connected(&front.address()).await;
    let after = told(&mut first, "system-presence", json!({})).await;
    assert_eq!(after.as_array().map(Vec::len), Some(3), "{after}");
    let since = |entry: &Value| entry["ts"].as_u64().unwrap();
    assert!(since(&after[2]).abs_diff(since(&before[1])) < 1000, "{before} {after}");
    assert!(!after.to_string().contains(TOKEN));
}

#[tokio::test]
async fn a_successors_log_begins_anew_for_whoever_has_read_its_incumbents() {
    let front = Front::with(quick).await;
    let mut socket = WebSocket::connected(&front.address()).await;
    let tail = told(&mut socket, "logs.tail", json!({})).await;
    let cursor = tail["cursor"].clone();
    front.takeover().await.assert_committed();
    all_with(&front, generation(2), websocket(1)).await;
    let tail = told(&mut socket, "logs.tail", json!({"cursor": cursor})).await;
    assert_eq!(tail["reset"], true, "{tail}");
    assert!(tail["file"].as_str().unwrap().contains("g2"), "{tail}");
}
