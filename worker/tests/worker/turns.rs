//! Completions as turns of sessions: on the same lanes as everything else, in the same history.

use serde_json::{Value, json};

use crate::rig::{Client, WebSocket, Worker, completion, saying, streaming};

const SESSION: &str = "x-openclaw-session-key: agent:main:shared\r\n";

async fn connected(worker: &Worker) -> WebSocket {
    let mut socket = worker.websocket().await;
    socket.connect().await;
    socket
}

async fn asking(worker: &Worker, body: &Value, headers: &str) -> Client {
    let mut client = worker.connect().await;
    client.send(completion(body, headers).as_bytes()).await;
    client
}

/// The answer to a call; events before it are skipped.
async fn ask(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    let id = method;
    socket.send(&json!({"type": "req", "id": id, "method": method, "params": params})).await;
    loop {
        let frame = socket.frame().await;
        if frame["id"] == id {
            assert_eq!(frame["ok"], true, "{frame}");
            return frame["payload"].clone();
        }
    }
}

async fn history(socket: &mut WebSocket, session: &str) -> Vec<String> {
    let history = ask(socket, "chat.history", json!({"sessionKey": session})).await;
    let messages = history["messages"].as_array().unwrap();
    let line = |message: &Value| {
        let text = message["content"][0]["text"].as_str().unwrap();
        format!("{}: {text}", message["role"].as_str().unwrap())
    };
    messages.iter().map(line).collect()
}

/// The run of the event that says so, as soon as one is at this phase.
async fn until_phase(socket: &mut WebSocket, phase: &str) -> String {
    loop {
        let frame = socket.frame().await;
        if frame["event"] == "agent" && frame["payload"]["data"]["phase"] == phase {
            return frame["payload"]["runId"].as_str().unwrap().to_owned();
        }
    }
}

fn said(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

#[tokio::test]
async fn a_second_completion_of_the_same_session_waits_for_the_first() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let mut first = asking(&worker, &saying("/slow 200 one two three"), SESSION).await;
    let begun = until_phase(&mut socket, "start").await;
    let mut second = asking(&worker, &streaming("four"), SESSION).await;
    let mut other = asking(&worker, &saying("five"), "").await;
    assert_eq!(said(&other.reply().await.json()), "five", "another session waits for nobody");
    // Whatever begins next in the session does so after the first has ended.
    loop {
        if until_phase(&mut socket, "end").await == begun {
            break;
        }
    }
    let first = first.reply().await.json();
    assert_eq!((said(&first), first["id"].as_str()), ("one two three", Some(begun.as_str())));
    assert_ne!(until_phase(&mut socket, "start").await, begun);
    assert!(second.reply().await.body.contains("four"));
    let words = ["user: /slow 200 one two three", "assistant: one two three"];
    let history = history(&mut socket, "agent:main:shared").await;
    assert_eq!(history[..2], words);
    assert_eq!(history[2..], ["user: four", "assistant: four"]);
}

#[tokio::test]
async fn a_completion_and_a_message_share_one_transcript_and_one_lane() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let message = json!({"sessionKey": "agent:main:shared", "message": "/slow 100 one two",
        "idempotencyKey": "k"});
    ask(&mut socket, "chat.send", message).await;
    let mut completion = asking(&worker, &saying("three"), SESSION).await;
    assert_eq!(said(&completion.reply().await.json()), "three");
    let words =
        ["user: /slow 100 one two", "assistant: one two", "user: three", "assistant: three"];
    assert_eq!(history(&mut socket, "agent:main:shared").await, words);
}

#[tokio::test]
async fn without_a_session_each_completion_has_its_own_and_each_user_one() {
    let worker = Worker::start().await;
    let mut by_alice = saying("by alice");
    by_alice["user"] = json!("Alice");
    for body in [saying("by nobody"), saying("by nobody"), by_alice.clone(), by_alice] {
        assert_eq!(worker.complete(&body).await.status, 200);
    }
    let mut socket = connected(&worker).await;
    let sessions = ask(&mut socket, "sessions.list", json!({})).await;
    let sessions = sessions["sessions"].as_array().unwrap();
    let mut keys: Vec<&str> = sessions.iter().map(|s| s["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert_eq!(keys[0], "agent:main:openai-user:alice");
    assert!(keys[1..].iter().all(|key| key.starts_with("agent:main:openai:")), "{keys:?}");
    assert_eq!(history(&mut socket, keys[0]).await.len(), 4);
    assert_eq!(history(&mut socket, keys[1]).await, ["user: by nobody", "assistant: by nobody"]);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_completion_waits_gives_its_place_back() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let mut first = asking(&worker, &saying("/slow 300 one two three four five"), SESSION).await;
    let begun = until_phase(&mut socket, "start").await;
    let mut queued = asking(&worker, &streaming("never said"), SESSION).await;
    queued.head().await;
    drop(queued);
    let given_up = until_phase(&mut socket, "end").await;
    assert_ne!(given_up, begun, "it waited on");
    let mut third = asking(&worker, &saying("third"), SESSION).await;
    assert_eq!(said(&first.reply().await.json()), "one two three four five");
    assert_eq!(said(&third.reply().await.json()), "third");
    let history = history(&mut socket, "agent:main:shared").await;
    assert!(!history.iter().any(|line| line.contains("never")), "{history:?}");
}

#[tokio::test]
async fn a_client_that_leaves_leaves_what_was_said_by_then() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let mut client = asking(&worker, &streaming("/slow 100 one two three four"), SESSION).await;
    client.head().await;
    while !client.chunk().await.unwrap().contains("one") {}
    drop(client);
    until_phase(&mut socket, "end").await;
    let history = history(&mut socket, "agent:main:shared").await;
    assert_eq!(history.len(), 2);
    assert!(history[1].starts_with("assistant: one"), "{history:?}");
}

#[tokio::test]
async fn a_stream_that_is_aborted_ends_as_it_should_and_a_whole_answer_is_what_was_said() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    for body in [streaming("/slow 100 one two three four"), saying("/slow 100 one two three four")]
    {
        let mut client = asking(&worker, &body, SESSION).await;
        loop {
            let frame = socket.frame().await;
            if frame["event"] == "chat" && frame["payload"]["state"] == "delta" {
                break;
            }
        }
        let abort = json!({"sessionKey": "agent:main:shared"});
        let aborted = ask(&mut socket, "chat.abort", abort).await;
        assert_eq!(aborted["aborted"], true);
        let reply = client.reply().await;
        assert_eq!(reply.status, 200);
        if body["stream"] == true {
            let events = reply.events();
            let finish: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
            assert_eq!(finish["choices"][0]["finish_reason"], "stop");
            assert_eq!(events[events.len() - 1], "[DONE]");
        } else {
            assert!(said(&reply.json()).starts_with("one"), "{}", reply.body);
        }
    }
}

#[tokio::test]
async fn what_fails_is_500_or_an_error_in_the_stream() {
    let worker = Worker::start().await;
    let reply = worker.complete(&saying("/fail no idea")).await;
    assert_eq!(reply.status, 500);
    let error = json!({"error": {"message": "no idea", "type": "api_error"}});
    assert_eq!(reply.json(), error);
    let reply = worker.complete(&streaming("/fail no idea")).await;
    let events = reply.events();
    let [role, failed, done] = events[..] else { panic!("{events:?}") };
    assert!(role.contains("assistant"));
    assert_eq!(serde_json::from_str::<Value>(failed).unwrap(), error);
    assert_eq!(done, "[DONE]");
}

#[tokio::test]
async fn too_many_completions_of_one_session_are_429_and_leave_no_trace() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let running = asking(&worker, &saying("/slow 60000 never said"), SESSION).await;
    until_phase(&mut socket, "start").await;
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut client = asking(&worker, &streaming("waits"), SESSION).await;
        client.head().await;
        waiting.push(client);
    }
    let reply = worker.ask(&completion(&streaming("too many"), SESSION)).await;
    assert_eq!(reply.status, 429);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    // Those that wait go first: the lane would be the next one's as soon as it is free.
    drop(waiting);
    for _ in 0..64 {
        until_phase(&mut socket, "end").await;
    }
    drop(running);
    until_phase(&mut socket, "end").await;
    let reply = worker.ask(&completion(&saying("again"), SESSION)).await;
    assert_eq!(said(&reply.json()), "again");
    let history = history(&mut socket, "agent:main:shared").await;
    assert_eq!(history, ["user: /slow 60000 never said", "user: again", "assistant: again"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_else_of_its_session() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let long = "lorem ipsum ".repeat(500_000);
    let mut slow = asking(&worker, &streaming(&long), SESSION).await;
    slow.head().await;
    let reply = worker.ask(&completion(&saying("next"), SESSION)).await;
    assert_eq!(said(&reply.json()), "next");
    assert_eq!(history(&mut socket, "agent:main:shared").await.last().unwrap(), "assistant: next");
    // It can still have all of it.
    let mut answered = String::new();
    while let Some(chunk) = slow.chunk().await {
        answered.push_str(&chunk);
    }
    let mut events: Vec<&str> = answered.split_terminator("\n\n").collect();
    assert_eq!(events.pop(), Some("data: [DONE]"));
    let mut heard = String::new();
    for event in events {
        let event: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        heard.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    assert!(heard == long, "{} bytes came of {}", heard.len(), long.len());
}

#[tokio::test]
async fn a_session_key_that_is_none_is_400_and_an_agent_that_is_none_404() {
    let worker = Worker::start().await;
    let key = |key: &str| format!("x-openclaw-session-key: {key}\r\n");
    let reply = worker.ask(&completion(&saying("hi"), &key(&"x".repeat(600)))).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["type"]),
        (400, &json!("invalid_request_error"))
    );
    let reply = worker.ask(&completion(&saying("hi"), &key("agent:ghost:main"))).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
    let mut socket = connected(&worker).await;
    assert_eq!(ask(&mut socket, "sessions.list", json!({})).await["count"], 0);
}
