//! Completions as turns of sessions while their worker is replaced: one lane for both generations.

use std::time::{Duration, Instant};

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use holdfast_tests::rig::{Front, Signal};
use serde_json::{Value, json};

use super::in_flight::{begun, slow};
use crate::{generation, quick};

const SESSION: &str = "agent:main:shared";

fn of_the_session(request: Request) -> Request {
    request.header("x-openclaw-session-key", SESSION)
}

/// What was said in the session.
async fn history(socket: &mut BareWebSocket) -> Vec<String> {
    let params = json!({"sessionKey": SESSION, "limit": 1000});
    socket.send(&frame(Part::Text, call("history", "chat.history", params))).await;
    let history = loop {
        let said = socket.text().await.expect("the connection lives");
        if said["id"] == "history" {
            break said;
        }
    };
    let messages = history["payload"]["messages"].as_array().expect("there are messages").clone();
    let line = |message: &Value| {
        let text = message["content"][0]["text"].as_str().unwrap_or_default();
        format!("{}: {text}", message["role"].as_str().unwrap_or_default())
    };
    messages.iter().map(line).collect()
}

#[tokio::test]
async fn a_completion_at_the_successor_waits_for_the_incumbents_of_the_same_session() {
    let front = Front::with(quick).await;
    let request = of_the_session(slow("one two three", Duration::from_millis(700)));
    let mut first = begun(&front, &request).await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    let mut second = HttpConnection::open(&front.address()).await.unwrap();
    let next = of_the_session(Request::chat("four"));
    let (first, second) = tokio::join!(first.receive(), second.exchange(&next));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.generation(), second.generation()), (generation(1), generation(2)));
    assert!(second.text().contains("four"), "{}", second.text());
    takeover.end().await.assert_committed();
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let words =
        ["user: one two three", "assistant: one two three", "user: four", "assistant: four"];
    assert_eq!(history(&mut socket).await, words);
}

#[tokio::test]
async fn a_completion_of_a_session_of_its_own_waits_for_no_incumbent() {
    let front = Front::with(|s| s.flag("--soak", "10m")).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let incumbent = front.status().await.generation(generation(1)).and_then(|g| g.worker());
    let incumbent = incumbent.expect("it has a process");
    incumbent.signal(Signal::SIGSTOP);
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    let answer = connection.exchange(&Request::chat("hello")).await.unwrap();
    assert_eq!((answer.code, answer.generation()), (200, generation(2)));
    incumbent.signal(Signal::SIGCONT);
}

#[tokio::test]
async fn a_client_that_leaves_the_successors_queue_gives_its_place_back() {
    let front = Front::with(quick).await;
    let request = of_the_session(slow("one two three", Duration::from_millis(700)));
    let mut first = begun(&front, &request).await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    let mut leaves = HttpConnection::open(&front.address()).await.unwrap();
    let request = of_the_session(Request::chat("never said"));
    let (head, body) = request.parts();
    leaves.send(&[&head, body].concat()).await.unwrap();
    front
        .until("it waits at the successor", |status| {
            status.generation(generation(2)).is_some_and(|g| g.in_flight == Some(1))
        })
        .await;
    drop(leaves);
    front
        .until("it was noticed", |status| {
            status.generation(generation(2)).is_some_and(|g| g.in_flight == Some(0))
        })
        .await;
    assert!(first.receive().await.unwrap().text().contains("three"));
    takeover.end().await.assert_committed();
    let mut socket = BareWebSocket::connected(&front.address()).await;
    assert_eq!(history(&mut socket).await, ["user: one two three", "assistant: one two three"]);
}

#[tokio::test]
async fn jobs_that_are_asked_for_at_the_successor_run_at_once_in_the_incumbent() {
    let front = Front::with(|s| s.flag("--soak", "10m")).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let job = json!({
        "name": "asked for", "schedule": {"kind": "every", "everyMs": 3_600_000},
        "sessionTarget": "isolated", "wakeMode": "now",
        "payload": {"kind": "agentTurn", "message": "hello"},
    });
    socket.send(&frame(Part::Text, call("add", "cron.add", job))).await;
    let job = loop {
        let said = socket.text().await.expect("the connection lives");
        if said["id"] == "add" {
            break said["payload"]["id"].clone();
        }
    };
    // Without a word from here the incumbent looks every 15 s.
    let begun_at = Instant::now();
    for _ in 0..4 {
        let params = json!({"id": job, "mode": "force"});
        socket.send(&frame(Part::Text, call("run", "cron.run", params))).await;
        loop {
            let said = socket.text().await.expect("the connection lives");
            if said["event"] == "cron" && said["payload"]["action"] == "finished" {
                break;
            }
        }
    }
    assert!(begun_at.elapsed() < Duration::from_secs(15), "{:?}", begun_at.elapsed());
    assert_eq!(front.log().lines_with("runs the schedule"), 1, "in the incumbent");
}
