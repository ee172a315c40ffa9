//! Completions: what is answered, how it streams, what is refused.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{Worker, completion, saying, streaming};

#[tokio::test]
async fn the_last_user_message_comes_back_whole() {
    let worker = Worker::start().await;
    for model in ["openclaw", "openclaw/main", "openclaw/default"] {
        let mut body = saying("hello from holdfast");
        body["model"] = json!(model);
        let reply = worker.complete(&body).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
        let said = reply.json();
        assert_eq!(said["object"], "chat.completion");
        assert_eq!(said["model"], model);
        assert!(said["id"].as_str().unwrap().starts_with("chatcmpl_"));
        let choice = json!([{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "hello from holdfast"}}]);
        assert_eq!(said["choices"], choice);
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6});
        assert_eq!(said["usage"], usage);
    }
}

#[tokio::test]
async fn a_stream_begins_with_a_role_says_word_by_word_and_ends_with_done() {
    let worker = Worker::start().await;
    let reply = worker.complete(&streaming("hello from holdfast")).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    let events = reply.events();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|c| serde_json::from_str(c).unwrap()).collect();
    let deltas: Vec<_> = chunks.iter().map(|c| &c["choices"][0]["delta"]).collect();
    let expected = [
        &json!({"role": "assistant"}),
        &json!({"content": "hello"}),
        &json!({"content": " from"}),
        &json!({"content": " holdfast"}),
        &json!({}),
    ];
    assert_eq!(deltas, expected);
    for (index, chunk) in chunks.iter().enumerate() {
        let finish = if index + 1 == chunks.len() { json!("stop") } else { json!(null) };
        assert_eq!(chunk["choices"][0]["finish_reason"], finish);
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert_eq!(chunk.get("usage"), None);
    }
}

#[tokio::test]
async fn a_stream_tells_its_usage_when_asked() {
    let worker = Worker::start().await;
    let mut body = streaming("a b");
    body["stream_options"] = json!({"include_usage": true});
    let reply = worker.complete(&body).await;
    let events = reply.events();
    let last: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!(last["choices"], json!([]));
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4});
    assert_eq!(last["usage"], usage);
    let first: Value = serde_json::from_str(events[0]).unwrap();
    assert_eq!(first["usage"], json!(null));
}

#[tokio::test]
async fn a_request_can_ask_for_a_slow_answer_and_gets_each_word_when_it_is_said() {
    let worker = Worker::start().await;
    let mut client = worker.connect().await;
    let begun_at = Instant::now();
    let slow = "x-holdfast-echo-delay-ms: 100\r\n";
    client.send(completion(&streaming("one two three"), slow).as_bytes()).await;
    client.head().await;
    let mut words = 0;
    while let Some(chunk) = client.chunk().await {
        if chunk.contains("content") {
            words += 1;
            assert!(begun_at.elapsed() >= Duration::from_millis(100 * words));
        }
    }
    assert_eq!(words, 3, "each in a chunk of its own");
    let reply = worker.ask(&completion(&saying("x"), "x-holdfast-echo-delay-ms: soon\r\n")).await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn a_large_message_streams_back_unharmed() {
    let worker = Worker::start().await;
    let message = "lorem ipsum \u{1f916} ".repeat(100_000);
    let reply = worker.complete(&streaming(&message)).await;
    let events = reply.events();
    let mut said = String::new();
    for event in &events[..events.len() - 1] {
        let chunk: Value = serde_json::from_str(event).unwrap();
        said.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    assert!(said == message, "{} bytes came back of {}", said.len(), message.len());
}

#[tokio::test]
async fn what_cannot_be_answered_is_400_in_the_recorded_words() {
    let worker = Worker::start().await;
    for (body, words) in [
        (
            json!({"model": "gpt-4", "messages": []}),
            "Invalid `model`. Use `openclaw` or `openclaw/<agentId>`.",
        ),
        (json!({"model": "openclaw"}), "Missing user message in `messages`."),
        (
            json!({"model": "openclaw", "messages": [{"role": "system", "content": "x"}]}),
            "Missing user message in `messages`.",
        ),
    ] {
        let reply = worker.complete(&body).await;
        assert_eq!(reply.status, 400);
        let error = json!({"error": {"message": words, "type": "invalid_request_error"}});
        assert_eq!(reply.json(), error);
    }
    let malformed = completion(&json!("x"), "").replace("\"x\"", "{ba");
    let reply = worker.ask(&malformed).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn an_unknown_agent_is_404_and_leaves_no_trace() {
    let worker = Worker::start().await;
    let files = || std::fs::read_dir(worker.dir.path().join("state")).unwrap().count();
    let before = files();
    for agent in ["nosuch", "../../etc", "main/x"] {
        let mut body = saying("hi");
        body["model"] = json!(format!("openclaw/{agent}"));
        let reply = worker.complete(&body).await;
        assert_eq!(reply.status, 404);
        assert_eq!(reply.json()["error"]["code"], "model_not_found");
    }
    assert_eq!(files(), before);
}

#[tokio::test]
async fn without_the_token_the_body_is_not_waited_for() {
    let worker = Worker::start().await;
    let mut client = worker.connect().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    client.send(head.as_bytes()).await;
    assert_eq!(client.reply().await.status, 401);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_run() {
    let worker = Worker::with(&["--access-log"]).await;
    let slow = "x-holdfast-echo-delay-ms: 60000\r\n";
    // One that has its head already, and one that has nothing yet.
    for (body, logged) in [(streaming("a b"), "status=200"), (saying("a b"), "completions\" ms=")] {
        let mut client = worker.connect().await;
        client.send(completion(&body, slow).as_bytes()).await;
        if body["stream"] == true {
            client.head().await;
        }
        drop(client);
        worker.process.log.shows(logged).await;
    }
}
