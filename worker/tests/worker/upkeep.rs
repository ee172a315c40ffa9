//! What operators' clients ask about the gateway itself: what a takeover would drain, who is connected, its log.

use serde_json::{Value, json};

use crate::agents::{ask, refused, told};
use crate::rig::{TOKEN, WebSocket, Worker, backend};

async fn started() -> (Worker, WebSocket) {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    socket.connect().await;
    (worker, socket)
}

async fn counts(socket: &mut WebSocket) -> Value {
    told(socket, "gateway.restart.preflight", json!({})).await["counts"].clone()
}

#[tokio::test]
async fn the_preflight_counts_what_is_under_way_and_not_itself() {
    let (_worker, mut socket) = started().await;
    let nothing = json!({
        "queueSize": 0, "pendingReplies": 0, "embeddedRuns": 0, "activeTasks": 0, "totalActive": 0,
    });
    let preflight = told(&mut socket, "gateway.restart.preflight", json!({})).await;
    assert_eq!((&preflight["safe"], &preflight["counts"]), (&json!(true), &nothing));
    for key in ["a", "b"] {
        let params = json!({
            "sessionKey": "main", "message": "/slow 60000 never said", "idempotencyKey": key,
        });
        told(&mut socket, "chat.send", params).await;
    }
    let busy = json!({
        "queueSize": 2, "pendingReplies": 0, "embeddedRuns": 1, "activeTasks": 0, "totalActive": 3,
    });
    let preflight = told(&mut socket, "gateway.restart.preflight", json!({})).await;
    assert_eq!((&preflight["safe"], &preflight["counts"]), (&json!(false), &busy));
    assert_eq!(preflight["blockers"][0]["kind"], "queue");
    told(&mut socket, "chat.abort", json!({"sessionKey": "main"})).await;
    assert_eq!(counts(&mut socket).await, nothing);
    let words = refused(&mut socket, "gateway.restart.preflight", json!({"x": 1})).await;
    assert!(words.ends_with("at root: unexpected property 'x'"), "{words}");
}

#[tokio::test]
async fn a_restart_without_a_front_is_refused_in_clear_words() {
    let (_worker, mut socket) = started().await;
    let answer = ask(&mut socket, "gateway.restart.request", json!({"reason": "because"})).await;
    assert_eq!(answer["error"]["code"], "UNAVAILABLE");
    let words = answer["error"]["message"].as_str().unwrap();
    assert!(words.starts_with("this worker has no front"), "{words}");
    let words = refused(&mut socket, "gateway.restart.request", json!({"when": "now"})).await;
    assert!(words.ends_with("at root: unexpected property 'when'"), "{words}");
}

#[tokio::test]
async fn who_is_connected_is_told_until_they_leave_and_without_a_secret() {
    let (worker, mut socket) = started().await;
    let mut params = backend();
    params["client"]["displayName"] = json!("second");
    params["scopes"] = json!(["operator.read"]);
    let mut second = worker.websocket().await;
    second.connect_as(params).await;
    let present = told(&mut socket, "system-presence", json!({})).await;
    assert_eq!((&present[0]["mode"], &present[0]["reason"]), (&json!("gateway"), &json!("self")));
    let mut entry = present[1].clone();
    assert!(entry["ts"].take().as_u64().unwrap() > 1_700_000_000_000);
    let expected = json!({
        "host": "second", "version": "2026.5.12", "platform": "linux", "mode": "backend",
        "roles": ["operator"], "scopes": ["operator.read"], "reason": "connect", "ts": null,
        "text": "Node: second · mode backend",
    });
    assert_eq!(entry, expected);
    assert_eq!(present[2]["host"], "probe");
    assert!(!present.to_string().contains(TOKEN));
    drop(second);
    while told(&mut socket, "system-presence", json!({})).await.as_array().unwrap().len() > 2 {}
}

#[tokio::test]
async fn the_log_is_told_from_its_end_and_goes_on_at_its_cursor() {
    let worker = Worker::with(&["--access-log", "--log-format", "json"]).await;
    let mut socket = worker.websocket().await;
    socket.connect().await;
    // The last that is said unasked.
    worker.process.log.shows("runs the schedule").await;
    assert_eq!(worker.get("/healthz").await.status, 200);
    worker.process.log.shows("/healthz").await;
    let tail = told(&mut socket, "logs.tail", json!({})).await;
    assert_eq!((&tail["truncated"], &tail["reset"]), (&json!(false), &json!(false)));
    assert_eq!(tail["cursor"], tail["size"]);
    assert!(tail["file"].as_str().unwrap().contains("memory"), "{tail}");
    let last = tail["lines"].as_array().unwrap().last().unwrap().as_str().unwrap();
    let line: Value = serde_json::from_str(last).unwrap();
    assert_eq!(line["_meta"]["logLevelName"], "INFO");
    assert!(line["0"].as_str().unwrap().contains("path=/healthz status=200"), "{line}");
    assert_eq!(worker.get("/readyz").await.status, 200);
    worker.process.log.shows("/readyz").await;
    let cursor = tail["cursor"].clone();
    let tail = told(&mut socket, "logs.tail", json!({"cursor": cursor})).await;
    let lines = tail["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &tail["reset"]), (1, &json!(false)));
    assert!(lines[0].as_str().unwrap().contains("/readyz"));
    let all = told(&mut socket, "logs.tail", json!({"limit": 5000})).await;
    assert!(!all.to_string().contains(TOKEN));
    for (params, words) in [
        (json!({"limit": 0}), "at /limit: must be >= 1"),
        (json!({"limit": 5001}), "at /limit: must be <= 5000"),
        (json!({"cursor": -1}), "at /cursor: must be >= 0"),
        (json!({"maxBytes": 1_000_001}), "at /maxBytes: must be <= 1000000"),
        (json!({"foo": 1}), "at root: unexpected property 'foo'"),
    ] {
        let refusal = refused(&mut socket, "logs.tail", params).await;
        assert_eq!(refusal, format!("invalid logs.tail params: {words}"));
    }
}

#[tokio::test]
async fn each_of_them_needs_the_recorded_scope() {
    let worker = Worker::start().await;
    let mut params = backend();
    params["scopes"] = json!(["operator.read"]);
    let mut reader = worker.websocket().await;
    reader.connect_as(params).await;
    for method in ["gateway.restart.preflight", "system-presence", "logs.tail"] {
        told(&mut reader, method, json!({})).await;
    }
    let words = refused(&mut reader, "gateway.restart.request", json!({})).await;
    assert_eq!(words, "missing scope: operator.admin");
}
