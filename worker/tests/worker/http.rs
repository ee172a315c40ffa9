//! HTTP: each path, each method, each refusal.

use serde_json::json;

use crate::rig::{TOKEN, Worker, get};

#[tokio::test]
async fn probes_are_answered_without_a_token_and_for_reading_only() {
    let worker = Worker::start().await;
    for path in ["/health", "/healthz", "/ready", "/readyz", "/startupz", "/gateway/ready"] {
        let reply = worker.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let said = reply.json();
        if path.starts_with("/health") {
            assert_eq!(said, json!({"ok": true, "status": "live"}));
        } else {
            assert_eq!((&said["ready"], &said["failing"]), (&json!(true), &json!([])));
            assert!(said["uptimeMs"].is_u64());
        }
        let reply = worker.ask(&format!("POST {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
        let mut client = worker.connect().await;
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: "), "{head}");
    }
}

#[tokio::test]
async fn every_response_names_the_generation_and_guards_the_browser() {
    let worker = Worker::start().await;
    for request in [
        get("/healthz"),
        get("/nowhere"),
        get("/"),
        "DELETE /v1/models HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GARBAGE\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(200_000)),
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
    ] {
        let mut client = worker.connect().await;
        client.try_send(request.as_bytes()).await;
        let reply = client.reply().await;
        let shown = request.lines().next();
        assert_eq!(reply.header("x-holdfast-generation"), Some("g0"), "{shown:?}: {reply:?}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{shown:?}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{shown:?}");
        assert!(reply.header("permissions-policy").is_some(), "{shown:?}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405_with_the_right_ones() {
    let worker = Worker::start().await;
    for path in ["/nowhere", "/v1", "/v1/chat", "/healthz/", "/"] {
        let reply = worker.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (404, "Not Found"), "{path}");
    }
    for (request, allowed) in [
        (get("/v1/chat/completions"), "POST"),
        (get("/v1/models").replace("GET", "PUT"), "GET, HEAD"),
        (get("/").replace("GET", "POST"), "GET"),
    ] {
        let reply = worker.ask(&request).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allowed)));
        assert_eq!(reply.body, "Method Not Allowed");
    }
}

#[tokio::test]
async fn what_is_no_request_is_400_and_a_head_without_end_is_431() {
    let worker = Worker::start().await;
    let reply = worker.ask("GARBAGE\r\n\r\n").await;
    assert_eq!((reply.status, reply.header("connection")), (400, Some("close")));
    let mut client = worker.connect().await;
    client.try_send(format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(200_000)).as_bytes()).await;
    assert_eq!(client.reply().await.status, 431);
}

#[tokio::test]
async fn only_the_token_opens_the_models() {
    let worker = Worker::start().await;
    for authorization in [
        "",
        "authorization: Bearer nope\r\n",
        "authorization: Basic x\r\n",
        "authorization: Bearer\r\n",
    ] {
        let reply =
            worker.ask(&format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{authorization}\r\n")).await;
        assert_eq!(reply.status, 401, "{authorization}");
        let unauthorized = json!({"error": {"message": "Unauthorized", "type": "unauthorized"}});
        assert_eq!(reply.json(), unauthorized);
    }
    let scheme =
        format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: bearer {TOKEN}\r\n\r\n");
    assert_eq!(worker.ask(&scheme).await.status, 200);
}

#[tokio::test]
async fn the_agents_are_the_models() {
    let worker = Worker::start().await;
    let list = worker.get("/v1/models").await.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(ids, ["openclaw", "openclaw/default", "openclaw/main"]);
    let model = json!({"id": "openclaw/main", "object": "model", "created": 0,
        "owned_by": "openclaw", "permission": []});
    for path in ["/v1/models/openclaw/main", "/v1/models/openclaw%2Fmain"] {
        assert_eq!(worker.get(path).await.json(), model);
    }
    let reply = worker.get("/v1/models/gpt-4").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn requests_sent_together_are_answered_in_order_on_one_connection() {
    let worker = Worker::start().await;
    let mut client = worker.connect().await;
    client.send([get("/healthz"), get("/nowhere"), get("/v1/models")].concat().as_bytes()).await;
    for status in [200, 404, 200] {
        assert_eq!(client.reply().await.status, status);
    }
    client.send(get("/healthz").as_bytes()).await;
    assert_eq!(client.reply().await.status, 200);
}
