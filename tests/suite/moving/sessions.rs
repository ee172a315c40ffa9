//! Sessions while their worker is replaced: one history, one run for each message, whoever is asked.

use holdfast_tests::rig::Front;
use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use serde_json::{Value, json};

use super::{all_with, websocket};
use crate::{generation, quick};

/// The last answer to a call; the first of two is skipped.
async fn ask(socket: &mut BareWebSocket, method: &str, params: Value) -> Value {
    socket.send(&frame(Part::Text, call(method, method, params))).await;
    loop {
        let said = socket.text().await.expect("the connection lives");
        if said["id"] == method && said["payload"]["status"] != "accepted" {
            return said["payload"].clone();
        }
    }
}

fn message(text: &str, key: &str) -> Value {
    json!({"sessionKey": "main", "message": text, "idempotencyKey": key})
}

/// What was said, with its place.
async fn history(socket: &mut BareWebSocket) -> Vec<(u64, String)> {
    let params = json!({"sessionKey": "main", "limit": 1000});
    let history = ask(socket, "chat.history", params).await;
    let messages = history["messages"].as_array().expect("there are messages");
    let text = |message: &Value| {
        let words = message["content"][0]["text"].as_str().unwrap_or_default();
        format!("{}: {words}", message["role"].as_str().unwrap_or_default())
    };
    messages.iter().map(|m| (m["__openclaw"]["seq"].as_u64().unwrap_or(0), text(m))).collect()
}

#[tokio::test]
async fn a_repeat_at_the_successor_is_in_flight_while_the_incumbent_runs_it_and_done_afterwards() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let slow = message("/slow 300 a b c d e f g h", "k");
    let sent = ask(&mut socket, "chat.send", slow.clone()).await;
    assert_eq!(sent, json!({"runId": "k", "status": "started"}));
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    all_with(&front, generation(2), websocket(1)).await;
    let again = ask(&mut socket, "chat.send", slow.clone()).await;
    assert_eq!(again, json!({"runId": "k", "status": "in_flight"}));
    let ended = ask(&mut socket, "agent.wait", json!({"runId": "k"})).await;
    assert_eq!(ended["status"], "ok", "{ended}");
    let again = ask(&mut socket, "chat.send", slow).await;
    assert_eq!(again, json!({"runId": "k", "status": "ok"}));
    let said = history(&mut socket).await;
    let whole = [
        (1, "user: /slow 300 a b c d e f g h".to_owned()),
        (2, "assistant: a b c d e f g h".to_owned()),
    ];
    assert_eq!(said, whole);
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn thirty_turns_across_five_takeovers_leave_one_history_without_gap_or_repeat() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let turns = async {
        for n in 0..30 {
            let text = format!("/slow 30 turn number {n}");
            let answer = ask(&mut socket, "agent", message(&text, &format!("k{n}"))).await;
            assert_eq!(answer["status"], "ok", "{answer}");
        }
        socket
    };
    let takeovers = async {
        for _ in 0..5 {
            front.takeover().await.assert_committed();
        }
    };
    let (mut socket, ()) = tokio::join!(turns, takeovers);
    let said = history(&mut socket).await;
    let whole: Vec<(u64, String)> = (0..30)
        .flat_map(|n| {
            let text = format!("turn number {n}");
            [format!("user: /slow 30 {text}"), format!("assistant: {text}")]
        })
        .zip(1..)
        .map(|(text, seq)| (seq, text))
        .collect();
    assert_eq!(said, whole);
    let health = ask(&mut socket, "health", json!({})).await;
    assert_eq!(health["sessions"]["count"], 1, "{health}");
}
