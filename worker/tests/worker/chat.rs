//! Runs of agents over a WebSocket: what is answered, what everybody is told, and in which order.

use serde_json::{Value, json};

use crate::rig::{WebSocket, Worker, backend};

async fn connected(worker: &Worker) -> WebSocket {
    let mut socket = worker.websocket().await;
    socket.connect().await;
    socket
}

async fn ask(socket: &mut WebSocket, id: &str, method: &str, params: Value) {
    socket.send(&json!({"type": "req", "id": id, "method": method, "params": params})).await;
}

fn message(text: &str, key: &str) -> Value {
    json!({"sessionKey": "main", "message": text, "idempotencyKey": key})
}

/// Everything until a frame of which this holds.
async fn until(socket: &mut WebSocket, last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut frames = Vec::new();
    loop {
        let frame = socket.frame().await;
        let is_last = last(&frame);
        frames.push(frame);
        if is_last {
            return frames;
        }
    }
}

fn ends_chat(run: &str) -> impl Fn(&Value) -> bool {
    move |frame: &Value| {
        frame["event"] == "chat"
            && frame["payload"]["runId"] == run
            && frame["payload"]["state"] != "delta"
    }
}

#[tokio::test]
async fn a_message_is_answered_at_once_and_its_answer_told_in_the_recorded_events() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    ask(&mut socket, "1", "chat.send", message("hello there", "run-1")).await;
    let frames = until(&mut socket, ends_chat("run-1")).await;
    let answers: Vec<&Value> = frames.iter().filter(|frame| frame["type"] == "res").collect();
    assert_eq!(
        answers,
        [&json!({"type": "res", "id": "1", "ok": true,
            "payload": {"runId": "run-1", "status": "started"}})]
    );
    let told: Vec<&Value> = frames.iter().filter(|frame| frame["type"] == "event").collect();
    let of = |event: &str| -> Vec<&Value> {
        told.iter().filter(|frame| frame["event"] == event).map(|frame| &frame["payload"]).collect()
    };
    let (agent, chat) = (of("agent"), of("chat"));
    assert_eq!(agent[0]["data"]["phase"], "start");
    assert_eq!(agent[1]["stream"], "assistant");
    assert_eq!(agent[1]["data"], json!({"text": "hello", "delta": "hello"}));
    assert_eq!(agent[agent.len() - 1]["data"]["phase"], "end");
    for (index, payload) in agent.iter().enumerate() {
        assert_eq!(payload["seq"], index + 1, "{payload}");
        assert_eq!(payload["sessionKey"], "agent:main:main");
    }
    let last = chat[chat.len() - 1];
    assert_eq!((&last["state"], &last["seq"]), (&json!("final"), &json!(agent.len())));
    assert_eq!(last["message"]["content"], json!([{"type": "text", "text": "hello there"}]));
    let deltas: String = chat.iter().filter_map(|payload| payload["deltaText"].as_str()).collect();
    assert_eq!(deltas, "hello there");
    let numbers: Vec<u64> = told.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (2..2 + numbers.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn everybody_who_may_read_is_told_and_nobody_else() {
    let worker = Worker::start().await;
    let mut asker = connected(&worker).await;
    let mut reader = worker.websocket().await;
    let mut params = backend();
    params["scopes"] = json!(["operator.read"]);
    reader.connect_as(params).await;
    let mut stranger = worker.websocket().await;
    let mut params = backend();
    params["scopes"] = json!([]);
    stranger.connect_as(params).await;
    stranger.frame().await;
    ask(&mut asker, "1", "chat.send", message("hello", "run-1")).await;
    until(&mut reader, ends_chat("run-1")).await;
    assert_eq!(stranger.call("health").await["ok"], true, "the first it hears is its answer");
    ask(&mut reader, "2", "chat.send", message("hello", "run-2")).await;
    let refused = until(&mut reader, |frame| frame["id"] == "2").await;
    assert_eq!(refused.last().unwrap()["error"]["message"], "missing scope: operator.write");
}

#[tokio::test]
async fn an_agent_is_answered_when_it_is_accepted_and_when_it_has_ended() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    let params = json!({"message": "ping", "idempotencyKey": "run-1"});
    ask(&mut socket, "a", "agent", params).await;
    let answers = |frames: &[Value]| -> Vec<Value> {
        frames.iter().filter(|frame| frame["id"] == "a").cloned().collect()
    };
    let done = |frame: &Value| frame["id"] == "a" && frame["payload"]["status"] != "accepted";
    let frames = until(&mut socket, done).await;
    let [accepted, ended] = &answers(&frames)[..] else { panic!("{frames:?}") };
    assert_eq!(accepted["payload"]["status"], "accepted");
    assert!(accepted["payload"]["acceptedAt"].is_u64());
    assert_eq!((&ended["ok"], &ended["payload"]["status"]), (&json!(true), &json!("ok")));
    assert_eq!(ended["payload"]["result"]["payloads"][0]["text"], "ping");
    let params = json!({"message": "/fail no idea", "idempotencyKey": "run-2"});
    ask(&mut socket, "a", "agent", params).await;
    let frames = until(&mut socket, done).await;
    let failed = answers(&frames).pop().unwrap();
    assert_eq!((&failed["ok"], &failed["error"]["code"]), (&json!(false), &json!("UNAVAILABLE")));
    assert_eq!(
        failed["payload"],
        json!({"runId": "run-2", "status": "error", "summary": "no idea"})
    );
}

#[tokio::test]
async fn the_command_line_of_2026_4_26_is_answered_by_an_agent() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    // All that it sends when it is given an agent and a message.
    let params = json!({
        "message": "ping", "agentId": "main", "sessionKey": "agent:main:main", "deliver": false,
        "timeout": 600, "lane": "main", "cleanupBundleMcpOnRunEnd": true, "idempotencyKey": "run-1",
    });
    ask(&mut socket, "a", "agent", params).await;
    let done = |frame: &Value| frame["id"] == "a" && frame["payload"]["status"] != "accepted";
    let frames = until(&mut socket, done).await;
    let ended = frames.last().unwrap();
    assert_eq!(ended["payload"]["result"]["payloads"][0]["text"], "ping", "{ended}");
}

#[tokio::test]
async fn a_repeat_of_what_is_in_flight_begins_nothing_and_an_abort_ends_it() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    ask(&mut socket, "1", "chat.send", message("/slow 60000 never said", "run-1")).await;
    ask(&mut socket, "2", "chat.send", message("/slow 60000 never said", "run-1")).await;
    ask(&mut socket, "3", "chat.send", message("waits in the lane", "run-2")).await;
    let mut seen = Vec::new();
    for id in ["1", "2", "3"] {
        let ids = |frame: &Value| frame["id"] == id;
        if !seen.iter().any(ids) {
            seen.extend(until(&mut socket, ids).await);
        }
    }
    let status = |id: &str| {
        seen.iter().find(|frame| frame["id"] == id).unwrap()["payload"]["status"].clone()
    };
    let mut both = [status("1"), status("2")].map(|status| status.as_str().unwrap().to_owned());
    both.sort_unstable();
    assert_eq!(both, ["in_flight", "started"]);
    assert_eq!(status("3"), "started");
    ask(&mut socket, "4", "chat.abort", json!({"sessionKey": "main"})).await;
    let frames = until(&mut socket, |frame| frame["id"] == "4").await;
    let answer = &frames.last().unwrap()["payload"];
    assert_eq!(answer, &json!({"ok": true, "aborted": true, "runIds": ["run-1", "run-2"]}));
    for run in ["run-1", "run-2"] {
        let aborted = frames.iter().find(|frame| ends_chat(run)(frame)).unwrap();
        assert_eq!(aborted["payload"]["state"], "aborted", "before the answer");
    }
    ask(&mut socket, "5", "chat.abort", json!({"sessionKey": "main"})).await;
    let frames = until(&mut socket, |frame| frame["id"] == "5").await;
    assert_eq!(frames.last().unwrap()["payload"]["aborted"], false);
}

#[tokio::test]
async fn runs_of_one_session_follow_one_another_and_other_sessions_do_not_wait() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    for run in 0..5 {
        ask(&mut socket, "x", "chat.send", message("/slow 20 one two", &format!("run-{run}")))
            .await;
    }
    let mut other = message("quick", "other");
    other["sessionKey"] = json!("elsewhere");
    ask(&mut socket, "x", "chat.send", other).await;
    let mut running: Vec<Value> = Vec::new();
    let mut ended = Vec::new();
    while ended.len() < 6 {
        let frame = socket.frame().await;
        let payload = &frame["payload"];
        match payload["data"]["phase"].as_str() {
            Some("start") => {
                let session = payload["sessionKey"].clone();
                assert!(!running.contains(&session), "two at once: {frame}");
                running.push(session);
            }
            Some("end") => {
                running.retain(|session| *session != payload["sessionKey"]);
                ended.push(payload["runId"].clone());
            }
            _ => {}
        }
    }
    assert_eq!(ended.iter().position(|run| run == "other"), Some(0), "{ended:?}");
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let worker = Worker::start().await;
    let mut socket = connected(&worker).await;
    for (method, params, words) in [
        (
            "chat.send",
            json!({"sessionKey": "main", "message": "x"}),
            "invalid chat.send params: must have required property 'idempotencyKey'",
        ),
        (
            "chat.send",
            json!({"sessionKey": "main", "message": "x", "idempotencyKey": "k", "foo": 1}),
            "invalid chat.send params: at root: unexpected property 'foo'",
        ),
        ("chat.send", message("  ", "k"), "message or attachment required"),
        (
            "chat.abort",
            json!({}),
            "invalid chat.abort params: must have required property 'sessionKey'",
        ),
        (
            "agent",
            json!({"message": "x", "agentId": "nobody", "idempotencyKey": "k"}),
            "unknown agent id \"nobody\"",
        ),
    ] {
        ask(&mut socket, "w", method, params).await;
        let frames = until(&mut socket, |frame| frame["id"] == "w").await;
        assert_eq!(frames.last().unwrap()["error"]["message"], words);
    }
}
