//! Who is answered, and what.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn toolbox() -> Toolbox {
    let call = |session: &str, arguments: Value| -> Called {
        let text = arguments["text"].as_str().map(|text| format!("{session} said {text}"));
        Box::pin(async move { text.ok_or_else(|| "there is no text".to_owned()) })
    };
    let input_schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    Toolbox::new(vec![Tool {
        name: "say",
        description: "Says it.",
        input_schema,
        call: Box::new(call),
    }])
}

async fn raw(address: SocketAddr, request: String) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn post(endpoint: &Endpoint, head: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-session-key: agent:main:main\r\n\
         content-length: {length}\r\n{head}\r\n{body}"
    );
    raw(endpoint.address(), request).await
}

fn head(endpoint: &Endpoint) -> String {
    format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", endpoint.token())
}

async fn asked(endpoint: &Endpoint, message: Value) -> Value {
    let (status, body) = post(endpoint, &head(endpoint), &message.to_string()).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn who_does_not_show_the_token_is_told_nothing() {
    let endpoint = Endpoint::open(toolbox()).unwrap();
    let json = "content-type: application/json\r\n";
    let with = |more: &str| format!("{}{more}", head(&endpoint));
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (head, body, status) in [
        (json.to_owned(), ping, 401),
        (format!("{json}authorization: Bearer wrong\r\n"), ping, 401),
        (with("origin: http://localhost\r\n"), ping, 403),
        (format!("authorization: Bearer {}\r\n", endpoint.token()), ping, 415),
        (with(""), "{", 400),
        (with(""), ping, 200),
        (with(""), r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, 202),
    ] {
        assert_eq!(post(&endpoint, &head, body).await.0, status, "{head}");
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(raw(endpoint.address(), get("/mcp")).await.0, 405);
    assert_eq!(raw(endpoint.address(), get("/.well-known/x")).await.0, 404);
}

#[tokio::test]
async fn what_is_listed_can_be_called_and_nothing_else() {
    let endpoint = Endpoint::open(toolbox()).unwrap();
    let call = |name: &str, arguments: Value| json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": name, "arguments": arguments}});
    let list = asked(&endpoint, json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list"})).await;
    assert_eq!(list["id"], "a");
    assert_eq!(list["result"]["tools"][0]["name"], "say");
    assert_eq!(list["result"]["tools"][0]["inputSchema"]["type"], "object");
    for (name, arguments, text, is_error) in [
        ("say", json!({"text": "hi"}), "agent:main:main said hi", false),
        ("say", json!({}), "there is no text", true),
        ("shout", json!({}), "Tool not available: shout", true),
    ] {
        let called = asked(&endpoint, call(name, arguments)).await;
        assert_eq!(called["result"]["content"][0]["text"], text);
        assert_eq!(called["result"]["isError"], is_error);
    }
}

#[tokio::test]
async fn a_client_is_told_the_version_that_both_speak() {
    for (version, told) in [("2025-03-26", "2025-03-26"), ("1999-01-01", VERSIONS[0])] {
        let params = json!({"protocolVersion": version});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        let answer = rpc(&Toolbox::default(), "", message).await.unwrap();
        assert_eq!(answer["result"]["protocolVersion"], told);
    }
    for (message, code) in [
        (json!({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}), -32601),
        (json!({"jsonrpc": "2.0", "id": 1}), -32600),
        (json!([1]), -32600),
        (json!("text"), -32600),
    ] {
        let answer = rpc(&Toolbox::default(), "", message).await.unwrap();
        assert_eq!(answer["error"]["code"], code);
    }
}

#[tokio::test]
async fn it_answers_at_the_same_place_for_its_next_owner() {
    let endpoint = Endpoint::open(Toolbox::default()).unwrap();
    let (address, head) = (endpoint.address(), head(&endpoint));
    let (listener, token) = endpoint.into_parts().await.unwrap();
    // Who asks while nobody is its owner waits in the listener's queue.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let length = body.len();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}"
    );
    let asking = tokio::spawn(raw(address, request));
    let endpoint = Endpoint::resume(listener, token, toolbox()).unwrap();
    assert_eq!(endpoint.address(), address);
    let (status, body) = asking.await.unwrap();
    assert_eq!(status, 200);
    assert!(body.contains("say"), "{body}");
}

#[tokio::test]
async fn a_client_that_came_before_it_moved_is_answered_though_it_asks_after() {
    let endpoint = Endpoint::open(toolbox()).unwrap();
    let (address, head) = (endpoint.address(), head(&endpoint));
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Accepted or not, it is somebody's.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let (listener, token) = endpoint.into_parts().await.unwrap();
    let _endpoint = Endpoint::resume(listener, token, toolbox()).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let length = body.len();
    let request =
        format!("POST /mcp HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{head}\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
}
