//! Sessions and what was said in them: kept over a restart, in order, once, and gone when they are deleted.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::rig::{Process, WebSocket, Worker, backend, command};

async fn connected(worker: &Worker) -> WebSocket {
    let mut socket = worker.websocket().await;
    socket.connect().await;
    socket
}

async fn ask(socket: &mut WebSocket, id: &str, method: &str, params: Value) {
    socket.send(&json!({"type": "req", "id": id, "method": method, "params": params})).await;
}

/// The next answer to this id that is not the first of two.
async fn answer(socket: &mut WebSocket, id: &str) -> Value {
    loop {
        let frame = socket.frame().await;
        if frame["id"] == id && frame["payload"]["status"] != "accepted" {
            return frame;
        }
    }
}

async fn call(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    ask(socket, method, method, params).await;
    answer(socket, method).await
}

/// The payload of a call that goes well.
async fn payload(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    let frame = call(socket, method, params).await;
    assert_eq!(frame["ok"], true, "{frame}");
    frame["payload"].clone()
}

async fn turn(socket: &mut WebSocket, session: &str, text: &str, key: &str) -> Value {
    let params = json!({"sessionKey": session, "message": text, "idempotencyKey": key});
    call(socket, "agent", params).await
}

/// Who said what.
async fn said(socket: &mut WebSocket, session: &str) -> Vec<(String, String)> {
    let history = payload(socket, "chat.history", json!({"sessionKey": session})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let messages = history["messages"].as_array().unwrap();
    messages.iter().map(|m| (text(&m["role"]), text(&m["content"][0]["text"]))).collect()
}

fn spoken(messages: &[(&str, &str)]) -> Vec<(String, String)> {
    messages.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect()
}

/// Another worker in the same state directory.
async fn restart(mut worker: Worker) -> Worker {
    worker.process.signal(Signal::SIGTERM);
    worker.process.exited().await;
    let dir = worker.dir;
    let listen = format!("unix:{}", dir.path().join("worker.sock").display());
    let process = Process::spawn(command(&dir).args(["--listen", &listen]));
    process.log.shows("listening").await;
    Worker { process, dir }
}

#[tokio::test]
async fn what_was_said_is_there_in_order_after_a_restart_and_a_repeat_gets_the_first_answer() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    turn(&mut socket, "main", "one", "k1").await;
    let first = turn(&mut socket, "main", "two", "k2").await;
    let failed = turn(&mut socket, "main", "/fail no idea", "k3").await;
    assert_eq!(failed["error"]["message"], "no idea");
    drop(socket);
    let worker = restart(worker).await;
    let mut socket = connected(&worker).await;
    let order = spoken(&[
        ("user", "one"),
        ("assistant", "one"),
        ("user", "two"),
        ("assistant", "two"),
        ("user", "/fail no idea"),
    ]);
    assert_eq!(said(&mut socket, "main").await, order);
    assert_eq!(turn(&mut socket, "main", "two", "k2").await, first);
    assert_eq!(turn(&mut socket, "main", "/fail no idea", "k3").await, failed);
    assert_eq!(said(&mut socket, "main").await, order, "a repeat was run");
    let limited = json!({"sessionKey": "main", "limit": 2});
    let history = payload(&mut socket, "chat.history", limited).await;
    let seqs: Vec<&Value> = history["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["__openclaw"]["seq"])
        .collect();
    assert_eq!(seqs, [4, 5]);
    let health = payload(&mut socket, "health", json!({})).await;
    assert_eq!(health["sessions"]["count"], 1);
    assert_eq!(health["sessions"]["recent"][0]["key"], "agent:main:main");
}

#[tokio::test]
async fn a_repeat_of_chat_send_is_in_flight_then_ok_and_a_wait_tells_how_it_went() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let params = json!({"sessionKey": "main", "message": "/slow 300 a b", "idempotencyKey": "k"});
    let sent = payload(&mut socket, "chat.send", params.clone()).await;
    assert_eq!(sent, json!({"runId": "k", "status": "started"}));
    let again = payload(&mut socket, "chat.send", params.clone()).await;
    assert_eq!(again, json!({"runId": "k", "status": "in_flight"}));
    let short = payload(&mut socket, "agent.wait", json!({"runId": "k", "timeoutMs": 1})).await;
    assert_eq!(short, json!({"runId": "k", "status": "timeout"}));
    let ended = payload(&mut socket, "agent.wait", json!({"runId": "k"})).await;
    assert_eq!((&ended["runId"], &ended["status"]), (&json!("k"), &json!("ok")));
    assert!(ended["endedAt"].as_u64() >= ended["startedAt"].as_u64());
    let again = payload(&mut socket, "chat.send", params).await;
    assert_eq!(again, json!({"runId": "k", "status": "ok"}));
    let order = spoken(&[("user", "/slow 300 a b"), ("assistant", "a b")]);
    assert_eq!(said(&mut socket, "main").await, order);
}

#[tokio::test]
async fn what_an_aborted_run_had_said_is_kept_before_anybody_hears_that_it_ended() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let params =
        json!({"sessionKey": "main", "message": "/slow 400 a b c d e f", "idempotencyKey": "k"});
    payload(&mut socket, "chat.send", params).await;
    while socket.frame().await["payload"]["state"] != "delta" {}
    let aborted = payload(&mut socket, "chat.abort", json!({"sessionKey": "main"})).await;
    assert_eq!(aborted["runIds"], json!(["k"]));
    let messages = said(&mut socket, "main").await;
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[1].1.starts_with('a') && !messages[1].1.ends_with('f'), "{messages:?}");
    let session = payload(&mut socket, "sessions.describe", json!({"key": "main"})).await;
    let row = &session["session"];
    assert_eq!((&row["status"], &row["abortedLastRun"]), (&json!("killed"), &json!(true)));
    assert_eq!(row["hasActiveRun"], false);
}

#[tokio::test]
async fn a_reset_ends_the_runs_of_its_session_and_forgets_what_was_said() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    turn(&mut socket, "main", "before", "k1").await;
    let before = payload(&mut socket, "sessions.describe", json!({"key": "main"})).await;
    let slow = json!({"sessionKey": "main", "message": "/slow 60000 x y", "idempotencyKey": "k2"});
    payload(&mut socket, "chat.send", slow).await;
    let waits = json!({"sessionKey": "main", "message": "waits", "idempotencyKey": "k3"});
    ask(&mut socket, "waits", "agent", waits).await;
    while socket.frame().await["payload"]["status"] != "accepted" {}
    ask(&mut socket, "reset", "sessions.reset", json!({"key": "main"})).await;
    let cleared = answer(&mut socket, "waits").await;
    let words = "CommandLaneClearedError: Command lane \"session:agent:main:main\" cleared";
    assert_eq!(
        (&cleared["error"]["code"], &cleared["error"]["message"]),
        (&json!("UNAVAILABLE"), &json!(words))
    );
    let reset = answer(&mut socket, "reset").await;
    assert_eq!(reset["payload"]["key"], "agent:main:main");
    assert_ne!(reset["payload"]["entry"]["sessionId"], before["session"]["sessionId"]);
    assert_eq!(said(&mut socket, "main").await, spoken(&[]));
    turn(&mut socket, "main", "after", "k4").await;
    let order = spoken(&[("user", "after"), ("assistant", "after")]);
    assert_eq!(said(&mut socket, "main").await, order);
}

#[tokio::test]
async fn sessions_are_made_listed_changed_and_deleted() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let made =
        payload(&mut socket, "sessions.create", json!({"agentId": "main", "label": "p1"})).await;
    let key = made["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("agent:main:dashboard:"), "{key}");
    assert_eq!((&made["entry"]["label"], &made["runStarted"]), (&json!("p1"), &json!(false)));
    let again = call(&mut socket, "sessions.create", json!({"label": "p1"})).await;
    assert_eq!(again["error"]["message"], "label already in use: p1");
    let sent = json!({"key": key, "message": "hello", "idempotencyKey": "k"});
    let sent = payload(&mut socket, "sessions.send", sent).await;
    assert_eq!(sent, json!({"runId": "k", "status": "started", "messageSeq": 1}));
    payload(&mut socket, "agent.wait", json!({"runId": "k"})).await;
    let preview = payload(&mut socket, "sessions.preview", json!({"keys": [key, "no"]})).await;
    assert_eq!(
        preview["previews"][0],
        json!({"key": key, "status": "ok", "items": [
            {"role": "user", "text": "hello"}, {"role": "assistant", "text": "hello"}]})
    );
    assert_eq!(preview["previews"][1]["status"], "missing");
    let got = payload(&mut socket, "sessions.get", json!({"key": key, "limit": 1})).await;
    assert_eq!(got["messages"][0]["role"], "assistant");
    let patch = json!({"key": key, "label": null, "thinkingLevel": "high"});
    let patched = payload(&mut socket, "sessions.patch", patch).await;
    assert_eq!(patched["entry"].get("label"), None);
    assert_eq!(patched["entry"]["thinkingLevel"], "high");
    let wrong = call(&mut socket, "sessions.patch", json!({"key": key, "fastMode": 1})).await;
    assert_eq!(
        wrong["error"]["message"],
        "invalid sessions.patch params: at /fastMode: must be boolean"
    );
    turn(&mut socket, "main", "hi", "k2").await;
    let list = payload(&mut socket, "sessions.list", json!({})).await;
    assert_eq!(
        (&list["count"], &list["totalCount"], &list["hasMore"]),
        (&json!(2), &json!(2), &json!(false))
    );
    assert_eq!(list["sessions"][0]["key"], "agent:main:main");
    assert_eq!(list["sessions"][1]["status"], "done");
    let main = call(&mut socket, "sessions.delete", json!({"key": "main"})).await;
    assert_eq!(main["error"]["message"], "Cannot delete the main session (agent:main:main).");
    for deleted in [true, false] {
        let answer = payload(&mut socket, "sessions.delete", json!({"key": key})).await;
        assert_eq!(answer, json!({"ok": true, "key": key, "deleted": deleted, "archived": []}));
    }
    let gone = call(&mut socket, "sessions.send", json!({"key": key, "message": "x"})).await;
    assert_eq!(gone["error"]["message"], format!("session not found: {key}"));
    let status = payload(&mut socket, "status", json!({})).await;
    assert_eq!(status["sessions"]["count"], 1);
}

#[tokio::test]
async fn changing_and_forgetting_sessions_is_an_administrators_business() {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    let mut params = backend();
    params["scopes"] = json!(["operator.write"]);
    socket.connect_as(params).await;
    payload(&mut socket, "sessions.create", json!({})).await;
    for method in ["sessions.patch", "sessions.reset", "sessions.delete"] {
        let refused = call(&mut socket, method, json!({"key": "main"})).await;
        assert_eq!(refused["error"]["message"], "missing scope: operator.admin");
    }
}
