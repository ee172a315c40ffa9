//! WebSockets: the handshake good and bad, calls, events, limits and closes.

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::rig::{TOKEN, WebSocket, Worker, backend, within};

#[tokio::test]
async fn both_protocols_are_spoken_and_the_newest_common_one_is_echoed() {
    let worker = Worker::start().await;
    for (least, most, spoken) in [(3, 3, 3), (4, 4, 4), (3, 4, 4), (1, 9, 4)] {
        let mut params = backend();
        params["minProtocol"] = json!(least);
        params["maxProtocol"] = json!(most);
        let hello = worker.websocket().await.connect_as(params).await;
        assert_eq!(hello["payload"]["protocol"], spoken, "{hello}");
    }
}

#[tokio::test]
async fn hello_ok_has_what_clients_read() {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    let hello = socket.connect_as(backend()).await;
    assert_eq!(
        (&hello["type"], &hello["id"], &hello["ok"]),
        (&json!("res"), &json!("c"), &json!(true))
    );
    let hello = &hello["payload"];
    assert_eq!(hello["type"], "hello-ok");
    assert!(hello["server"]["version"].is_string() && hello["server"]["connId"].is_string());
    let methods = hello["features"]["methods"].as_array().unwrap();
    assert!(methods.is_sorted_by_key(|method| method.as_str().unwrap()), "{methods:?}");
    for method in ["agent", "chat.abort", "chat.send", "device.pair.list", "health", "status"] {
        assert!(methods.contains(&json!(method)), "{method}");
    }
    assert!(hello["features"]["events"].as_array().unwrap().contains(&json!("tick")));
    assert_eq!(hello["auth"], json!({"role": "operator", "scopes": ["operator.admin"]}));
    let policy =
        json!({"maxPayload": 26_214_400, "maxBufferedBytes": 52_428_800, "tickIntervalMs": 30_000});
    assert_eq!(hello["policy"], policy);
    let snapshot = &hello["snapshot"];
    assert_eq!(snapshot["health"]["ok"], true);
    assert_eq!(snapshot["presence"][0]["mode"], "gateway");
    assert_eq!(snapshot["stateVersion"], json!({"presence": 1, "health": 1}));
    assert!(snapshot["uptimeMs"].is_u64());
    assert_eq!(snapshot["sessionDefaults"]["mainSessionKey"], "agent:main:main");
    let health = socket.frame().await;
    assert_eq!((&health["event"], &health["seq"]), (&json!("health"), &json!(1)));
    assert_eq!(health["stateVersion"], json!({"presence": 1, "health": 1}));
}

#[tokio::test]
async fn each_wrong_connect_is_answered_in_the_recorded_words_and_closed_with_them() {
    let worker = Worker::start().await;
    let with = |change: fn(&mut Value)| {
        let mut params = backend();
        change(&mut params);
        params
    };
    let cases = [
        (
            with(|p| p["auth"]["token"] = json!("nope")),
            json!({"code": "INVALID_REQUEST",
                "message": "unauthorized: gateway token mismatch (provide gateway auth token)",
                "details": {"code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch",
                    "canRetryWithDeviceToken": false,
                    "recommendedNextStep": "update_auth_credentials"}}),
            1008,
        ),
        (
            with(|p| p["auth"] = json!({})),
            json!({"code": "NOT_PAIRED", "message": "device identity required",
                "details": {"code": "DEVICE_IDENTITY_REQUIRED"}}),
            1008,
        ),
        (
            with(|p| {
                p["minProtocol"] = json!(1);
                p["maxProtocol"] = json!(2);
            }),
            json!({"code": "INVALID_REQUEST", "message": "protocol mismatch",
                "details": {"expectedProtocol": 4, "minimumProbeProtocol": 3}}),
            1002,
        ),
        (
            with(|p| p["client"]["id"] = json!("zzz")),
            json!({"code": "INVALID_REQUEST",
                "message": "invalid connect params: at /client/id: must be equal to one of the allowed values"}),
            1008,
        ),
        (
            with(|p| p["role"] = json!("root")),
            json!({"code": "INVALID_REQUEST", "message": "invalid role"}),
            1008,
        ),
        (
            with(|p| p["foo"] = json!(1)),
            json!({"code": "INVALID_REQUEST",
                "message": "invalid connect params: at root: unexpected property 'foo'"}),
            1008,
        ),
    ];
    for (params, error, code) in cases {
        let mut socket = worker.websocket().await;
        let refusal = socket.connect_as(params).await;
        assert_eq!(refusal, json!({"type": "res", "id": "c", "ok": false, "error": error}));
        assert_eq!(socket.closed().await, (code, error["message"].as_str().unwrap().to_owned()));
    }
}

#[tokio::test]
async fn a_first_message_that_is_no_connect_is_closed_with_the_reason() {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    socket.challenged().await;
    socket.send(&json!({"type": "req", "id": "1", "method": "health"})).await;
    let words = "invalid handshake: first request must be connect";
    assert_eq!(socket.frame().await["error"]["message"], words);
    assert_eq!(socket.closed().await, (1008, words.to_owned()));
    for (message, reason) in [
        (r#"{"hello":1}"#, "invalid request frame"),
        ("garbage", "invalid request frame: not JSON"),
    ] {
        let mut socket = worker.websocket().await;
        socket.challenged().await;
        socket.send_text(message).await;
        assert_eq!(socket.closed().await, (1008, reason.to_owned()));
    }
}

#[tokio::test]
async fn a_client_that_never_connects_is_closed_1008_handshake_timeout() {
    let worker = Worker::with(&["--handshake-timeout", "200ms"]).await;
    let mut socket = worker.websocket().await;
    socket.challenged().await;
    assert_eq!(socket.closed().await, (1008, "handshake timeout".to_owned()));
}

#[tokio::test]
async fn what_is_advertised_answers_and_what_is_not_is_unknown() {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    let hello = socket.connect().await;
    for method in hello["features"]["methods"].as_array().unwrap() {
        let response = socket.call(method.as_str().unwrap()).await;
        // Without the parameters it needs, a method says which; without a front, nobody can be asked.
        let message = response["error"]["message"].as_str().unwrap_or("invalid params: ");
        assert!(message.contains(" params: ") || message.contains("has no front"), "{response}");
    }
    assert_eq!(socket.call("health").await["payload"]["defaultAgentId"], "main");
    // `sessions.create` needs no parameters.
    assert_eq!(socket.call("status").await["payload"]["sessions"]["count"], 1);
    let error = json!({"code": "INVALID_REQUEST", "message": "unknown method: nope.method"});
    assert_eq!(socket.call("nope.method").await["error"], error);
    let again = socket.call("connect").await;
    assert_eq!(again["error"]["message"], "connect is only valid as the first request");
}

#[tokio::test]
async fn a_call_without_its_scope_is_refused_and_health_needs_none() {
    let worker = Worker::start().await;
    let mut params = backend();
    params["client"] = json!({"id": "cli", "version": "x", "platform": "linux", "mode": "cli"});
    let mut socket = worker.websocket().await;
    let hello = socket.connect_as(params).await;
    assert_eq!(hello["payload"]["auth"]["scopes"], json!([]));
    assert_eq!(hello["payload"]["snapshot"].get("stateDir"), None);
    let error = json!({"code": "INVALID_REQUEST", "message": "missing scope: operator.read"});
    assert_eq!(socket.call("status").await["error"], error);
    assert_eq!(socket.call("health").await["ok"], true);
}

#[tokio::test]
async fn a_frame_that_is_no_request_is_refused_and_the_connection_stays() {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    socket.connect().await;
    for (message, id, words) in [
        ("garbage", "invalid", "invalid request frame: not JSON"),
        (
            r#"{"type":"req","id":"7"}"#,
            "7",
            "invalid request frame: must have required property 'method'",
        ),
        (
            r#"{"type":"event"}"#,
            "invalid",
            "invalid request frame: at /type: must be equal to one of the allowed values",
        ),
    ] {
        socket.send_text(message).await;
        let refusal = socket.frame().await;
        assert_eq!(refusal["id"], id);
        assert!(refusal["error"]["message"].as_str().unwrap().starts_with(words), "{refusal}");
        assert_eq!(refusal["error"]["code"], "INVALID_REQUEST");
    }
    assert_eq!(socket.call("health").await["ok"], true);
}

#[tokio::test]
async fn ticks_come_in_time_and_events_are_numbered_without_a_gap() {
    let worker = Worker::with(&["--tick-interval", "50ms", "--ping-interval", "20ms"]).await;
    let mut socket = worker.websocket().await;
    let hello = socket.connect().await;
    assert_eq!(hello["policy"]["tickIntervalMs"], 50);
    for seq in 2..6 {
        let tick = socket.frame().await;
        assert_eq!((&tick["event"], &tick["seq"]), (&json!("tick"), &json!(seq)));
        assert!(tick["payload"]["ts"].is_u64());
    }
}

#[tokio::test]
async fn a_ping_is_answered_and_a_close_is_echoed() {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    socket.connect().await;
    socket.inner.send(Message::Ping("hey".into())).await.unwrap();
    assert_eq!(socket.message().await, Message::Pong("hey".into()));
    let close = CloseFrame { code: 4000.into(), reason: "tick timeout".into() };
    socket.inner.send(Message::Close(Some(close))).await.unwrap();
    assert_eq!(socket.closed().await, (4000, "tick timeout".to_owned()));
}

#[tokio::test]
async fn more_than_64_kib_before_connect_is_closed_1009_and_is_fine_afterwards() {
    let worker = Worker::start().await;
    let mut params = backend();
    params["userAgent"] = json!("x".repeat(80_000));
    let mut socket = worker.websocket().await;
    socket.challenged().await;
    let connect = json!({"type": "req", "id": "c", "method": "connect", "params": params});
    socket.send(&connect).await;
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.as_str()), (1009, "more than 65536 bytes before connect"));

    let mut socket = worker.websocket().await;
    socket.connect().await;
    let params = json!({"padding": "x".repeat(1_000_000)});
    socket.send(&json!({"type": "req", "id": "1", "method": "health", "params": params})).await;
    assert_eq!(socket.frame().await["ok"], true);
}

#[tokio::test]
async fn a_message_over_25_mib_is_closed_1009() {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    socket.connect().await;
    // The worker may close before all of it is sent.
    let _ = socket.inner.send(Message::text("x".repeat(26_214_401))).await;
    assert_eq!(socket.closed().await, (1009, "message exceeds 26214400 bytes".to_owned()));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_1008_slow_consumer() {
    let worker = Worker::with(&["--max-buffered-bytes", "100000", "--log-level", "debug"]).await;
    let mut socket = worker.websocket().await;
    socket.connect().await;
    let call = json!({"type": "req", "id": "1", "method": "health"}).to_string();
    let flood = async {
        // Until the worker reads no more.
        while socket.inner.send(Message::text(call.clone())).await.is_ok() {}
    };
    tokio::select! {
        () = flood => {}
        _ = worker.process.log.shows("code=1008 reason=\"slow consumer\"") => {}
    }
    // Who begins to read then still learns why.
    loop {
        match socket.message().await {
            Message::Text(_) => {}
            Message::Close(close) => {
                let close = close.unwrap();
                assert_eq!((u16::from(close.code), &*close.reason), (1008, "slow consumer"));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_connection_that_does_not_read_keeps_nobody_else_waiting() {
    let worker = Worker::with(&["--threads", "1"]).await;
    let mut stalled = worker.websocket().await;
    stalled.connect().await;
    let call = json!({"type": "req", "id": "1", "method": "health"}).to_string();
    for _ in 0..1_000 {
        stalled.send_text(&call).await;
    }
    let mut other = worker.websocket().await;
    other.connect().await;
    assert_eq!(other.call("health").await["ok"], true);
    assert_eq!(worker.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn an_address_has_so_many_places_for_who_has_not_connected() {
    let worker = Worker::with(&["--preauth-per-address", "2"]).await;
    let mut first = worker.websocket().await;
    let _second = worker.websocket().await;
    let upgrade = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let reply = worker.ask(upgrade).await;
    assert_eq!(reply.status, 429);
    assert!(reply.body.contains("the limit is 2"), "{reply:?}");
    first.connect().await;
    worker.websocket().await.connect().await;
}

#[tokio::test]
async fn compression_is_declined_and_bytes_sent_with_the_upgrade_are_not_lost() {
    let worker = Worker::start().await;
    let mut client = worker.connect().await;
    // RFC 6455, 5.2: a final text frame, masked with zeroes, of 16-bit length.
    let connect =
        json!({"type": "req", "id": "c", "method": "connect", "params": backend()}).to_string();
    let length = u16::try_from(connect.len()).unwrap().to_be_bytes();
    let upgrade = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let frame = [&[0x81, 0xFE][..], &length, &[0; 4], connect.as_bytes()].concat();
    client.send(&[upgrade.as_bytes(), &frame].concat()).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert!(
        !head.contains("permessage-deflate") && head.contains("x-holdfast-generation: g0"),
        "{head}"
    );
    let mut socket = WebSocket::after_upgrade(client).await;
    socket.challenged().await;
    assert_eq!(socket.frame().await["payload"]["type"], "hello-ok");
}

#[tokio::test]
async fn a_request_that_cannot_become_a_websocket_is_refused_by_its_status() {
    let worker = Worker::start().await;
    let good = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (wrong, status) in [
        (good.replace("version: 13", "version: 8"), 426),
        (good.replace("NhbXBs", "!"), 400),
        (good.replace("connection: upgrade", "connection: close"), 400),
        (good.replace("GET / ", "GET /socket "), 404),
        (good.replace("upgrade: websocket", "upgrade: h2c"), 404),
    ] {
        assert_eq!(worker.ask(&wrong).await.status, status, "{wrong}");
    }
}

#[tokio::test]
async fn the_token_in_the_wrong_place_opens_nothing() {
    let worker = Worker::start().await;
    let mut params = backend();
    params["auth"] = json!({"password": TOKEN});
    let refusal = worker.websocket().await.connect_as(params).await;
    assert_eq!(refusal["ok"], false);
}

#[tokio::test]
async fn a_page_of_another_site_is_refused_and_one_of_this_machine_is_not() {
    let worker = Worker::start().await;
    for (origin, expected) in [
        ("http://evil.example:18789", Some("origin not allowed")),
        ("null", Some("origin missing or invalid")),
        ("http://localhost:5173", None),
    ] {
        let path = worker.dir.path().join("worker.sock");
        let stream = tokio::net::UnixStream::connect(path).await.unwrap();
        let mut request = "ws://localhost/".into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        let upgrade = tokio_tungstenite::client_async(request, stream);
        let mut socket = WebSocket { inner: within("the upgrade", upgrade).await.unwrap().0 };
        let answer = socket.connect_as(backend()).await;
        match expected {
            Some(reason) => {
                let details = json!({"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": reason});
                assert_eq!(answer["error"]["details"], details);
                let (code, words) = socket.closed().await;
                assert_eq!(code, 1008);
                assert!(words.starts_with("origin not allowed"), "{words}");
            }
            None => assert_eq!(answer["ok"], true, "{answer}"),
        }
    }
}
