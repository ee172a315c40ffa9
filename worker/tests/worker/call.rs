//! `holdfast-worker call`: what it prints, when it asks again, and how it exits.
//!
//! The gateways here that close, hang and refuse are made of a script: what each connection meets, one
//! after the other, the last for all that follow.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::rig::{Worker, command, within};

/// What a connection meets.
#[derive(Clone, Debug)]
enum Met {
    /// It is closed with this code instead of being challenged.
    ClosedAtOnce(u16),
    /// It hears nothing.
    Silence,
    /// Its `connect` is answered by this error.
    Refused(Value),
    /// Its request is answered by a close with this code.
    ClosedAtRequest(u16),
    /// Its request is never answered.
    SilenceAtRequest,
    /// Its request is answered.
    Answered,
}

/// A gateway made of a script.
struct Gateway {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    connections: usize,
    connects: Vec<Value>,
    requests: Vec<Value>,
}

impl Gateway {
    async fn of<const N: usize>(script: [Met; N]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            let last = script.last().cloned().unwrap();
            let mut script = script.into_iter();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.lock().unwrap().connections += 1;
                let met = script.next().unwrap_or_else(|| last.clone());
                tokio::spawn(meet(stream, met, Arc::clone(&shared)));
            }
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

async fn meet(stream: TcpStream, met: Met, seen: Arc<Mutex<Seen>>) {
    let mut socket = accept_async(stream).await.unwrap();
    match met {
        Met::ClosedAtOnce(code) => return closed(socket, code).await,
        // Until the client gives up.
        Met::Silence => {
            socket.next().await;
            return;
        }
        Met::Refused(_) | Met::ClosedAtRequest(_) | Met::SilenceAtRequest | Met::Answered => {}
    }
    let challenge =
        json!({"type": "event", "event": "connect.challenge", "payload": {"nonce": "n"}});
    said(&mut socket, &challenge).await;
    let connect = heard(&mut socket).await;
    seen.lock().unwrap().connects.push(connect["params"].clone());
    if let Met::Refused(error) = met {
        let answer = json!({"type": "res", "id": connect["id"], "ok": false, "error": error});
        said(&mut socket, &answer).await;
        return closed(socket, 1008).await;
    }
    let hello =
        json!({"type": "res", "id": connect["id"], "ok": true, "payload": {"type": "hello-ok"}});
    said(&mut socket, &hello).await;
    said(&mut socket, &json!({"type": "event", "event": "health", "payload": {}, "seq": 1})).await;
    let request = heard(&mut socket).await;
    seen.lock().unwrap().requests.push(request.clone());
    match met {
        Met::ClosedAtRequest(code) => closed(socket, code).await,
        Met::SilenceAtRequest => {
            socket.next().await;
        }
        _ => {
            let answer =
                json!({"type": "res", "id": request["id"], "ok": true, "payload": {"n": 1}});
            said(&mut socket, &answer).await;
            socket.next().await;
        }
    }
}

async fn said(socket: &mut WebSocketStream<TcpStream>, frame: &Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

async fn heard(socket: &mut WebSocketStream<TcpStream>) -> Value {
    let message = socket.next().await.unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

async fn closed(mut socket: WebSocketStream<TcpStream>, code: u16) {
    let reason = if code == 1012 { "service restart" } else { "" };
    let close = CloseFrame { code: code.into(), reason: reason.into() };
    socket.close(Some(close)).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

/// How a call ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    said: String,
}

impl Ended {
    /// # Panics
    /// When it did not end so, or said more than one line.
    #[track_caller]
    fn fails(&self, code: i32, words: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        assert!(self.said.contains(words), "{self:?}");
        assert_eq!(self.said.lines().count(), 1, "{self:?}");
    }

    #[track_caller]
    fn answers(&self) -> Value {
        assert_eq!((self.code, self.said.as_str()), (Some(0), ""), "{self:?}");
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }
}

async fn ended(command: &mut Command) -> Ended {
    let output = within("the call", command.stdout(Stdio::piped()).output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), said: text(output.stderr) }
}

/// A call in a directory of its own.
async fn call(arguments: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let ended = ended(command(&dir).arg("call").args(arguments)).await;
    assert!(!dir.path().join("state").exists(), "a call makes nothing");
    ended
}

fn url(worker: &Worker) -> String {
    format!("unix:{}", worker.dir.path().join("worker.sock").display())
}

fn written(dir: &TempDir, name: &str, content: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_answer_is_all_there_is_on_stdout_and_a_refusal_one_line_on_stderr() {
    let worker = Worker::start().await;
    let url = url(&worker);
    let answer = call(&["health", "--url", &url]).await.answers();
    assert_eq!(answer["ok"], true);
    let listed = call(&["cron.list", "--json", "--url", &url]).await.answers();
    assert_eq!(listed["jobs"], json!([]));
    let refused = call(&["no.such", "--url", &url]).await;
    refused.fails(1, "error: INVALID_REQUEST: unknown method: no.such");
    let refused = call(&["cron.list", "--params", "{\"no\": 1}", "--url", &url]).await;
    refused.fails(1, "INVALID_REQUEST: invalid cron.list params: ");
    let token = written(&worker.dir, "wrong", "another\n");
    let refused = call(&["health", "--token-file", &token, "--url", &url]).await;
    refused.fails(1, "the gateway refused to connect: INVALID_REQUEST: unauthorized: ");
    let refused = call(&["health", "--protocol", "9", "--url", &url]).await;
    refused.fails(1, "protocol mismatch");
}

#[tokio::test]
async fn the_token_is_found_where_the_worker_finds_it_and_never_an_argument() {
    let worker = Worker::start().await;
    let url = url(&worker);
    let mut bare = command(&worker.dir);
    let asking = bare.env_remove("HOLDFAST_TOKEN").args(["call", "health", "--url", &url]);
    ended(asking).await.fails(1, "error: no token was found; set HOLDFAST_TOKEN");
    written(&worker.dir, "state/token", &format!("{}\n", crate::rig::TOKEN));
    assert_eq!(ended(asking).await.answers()["ok"], true);
    let refused = call(&["health", "--token", "x", "--url", &url]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(64), ""));
    let refused = call(&["health", "--token-file", "/nowhere", "--url", &url]).await;
    refused.fails(78, "could not read the token from /nowhere: No such file");
}

#[tokio::test]
async fn parameters_are_an_argument_a_file_or_stdin_and_are_checked_before_anybody_is_asked() {
    let gateway = Gateway::of([Met::Answered]).await;
    let dir = tempfile::tempdir().unwrap();
    let broken = written(&dir, "broken.json", "{\n  \"a\": 1,\n  b\n}");
    for (params, words) in [
        ("{", "--params:1:1: the parameters are no JSON"),
        (&format!("@{broken}"), "broken.json:3:3: the parameters are no JSON"),
        ("@/nowhere", "could not read the parameters from /nowhere"),
    ] {
        call(&["m", "--params", params, "--url", &gateway.url()]).await.fails(64, words);
    }
    assert_eq!(gateway.seen().connections, 0);
    let exact = "{\"z\": 1.50,\n \"a\": 12345678901234567890}";
    let file = written(&dir, "params.json", exact);
    call(&["m", "--params", &format!("@{file}"), "--url", &gateway.url()]).await.answers();
    let mut piped = command(&dir);
    piped.args(["call", "m", "--params", "-", "--url", &gateway.url()]);
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(exact.as_bytes()).await.unwrap();
    drop(stdin);
    assert!(within("the call", child.wait()).await.unwrap().success());
    let asked = serde_json::from_str::<Value>(exact).unwrap();
    let requests = gateway.seen().requests;
    assert!(requests.len() == 2 && requests.iter().all(|request| request["params"] == asked));
}

#[tokio::test]
async fn the_port_is_the_configuration_s() {
    let gateway = Gateway::of([Met::Answered]).await;
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{{gateway: {{port: {}}}}}", gateway.address.port());
    let config = written(&dir, "openclaw.json", &config);
    ended(command(&dir).args(["call", "m", "--config", &config])).await.answers();
    ended(command(&dir).env("OPENCLAW_CONFIG_PATH", &config).args(["call", "m"])).await.answers();
    let config = written(&dir, "openclaw.json", "{gateway: {port: 'x'}}");
    let refused = ended(command(&dir).args(["call", "m", "--config", &config])).await;
    refused.fails(78, "gateway.port");
}

#[tokio::test]
async fn a_gateway_that_closes_1000_while_a_call_connects_is_asked_again_and_the_request_sent_once()
{
    let gateway =
        Gateway::of([Met::ClosedAtOnce(1000), Met::ClosedAtOnce(1000), Met::Answered]).await;
    // Not even of a method that must not be called twice.
    let params = r#"{"name":"x"}"#;
    let answer = call(&["cron.add", "--params", params, "--url", &gateway.url()]).await.answers();
    assert_eq!(answer, json!({"n": 1}));
    let seen = gateway.seen();
    assert_eq!(seen.connections, 3);
    assert_eq!(seen.requests.len(), 1, "{seen:?}");
    assert_eq!(seen.requests[0]["params"], json!({"name": "x"}));
    let client = &seen.connects[0]["client"];
    assert_eq!((&client["id"], &client["mode"]), (&json!("gateway-client"), &json!("backend")));
}

#[tokio::test]
async fn a_request_that_was_sent_is_sent_again_only_when_that_is_harmless() {
    for (method, params, requests) in [
        ("cron.add", "{}", 1),
        ("chat.send", r#"{"message":"m"}"#, 1),
        ("chat.send", r#"{"message":"m","idempotencyKey":"k"}"#, 2),
        ("cron.list", "{}", 2),
        ("health", "{}", 2),
    ] {
        let gateway = Gateway::of([Met::ClosedAtRequest(1012), Met::Answered]).await;
        let ended = call(&[method, "--params", params, "--url", &gateway.url()]).await;
        assert_eq!(gateway.seen().requests.len(), requests, "{method} {ended:?}");
        if requests == 1 {
            ended.fails(69, &format!("outcome unknown: {method} was sent to ws://"));
            ended.fails(69, "the gateway closed with 1012 before an answer came: service restart");
        } else {
            ended.answers();
        }
    }
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_time_ends_with_its_outcome_unknown_unless_it_only_reads() {
    let gateway = Gateway::of([Met::SilenceAtRequest]).await;
    for (method, words) in [("cron.add", "outcome unknown: cron.add"), ("health", "no answer from")]
    {
        let ended = call(&[method, "--timeout", "1500", "--url", &gateway.url()]).await;
        ended.fails(69, words);
        ended.fails(69, "an answer did not come in time");
    }
    assert_eq!(gateway.seen().requests.len(), 2);
}

#[tokio::test]
async fn a_connect_that_is_refused_is_not_tried_again() {
    let reason = json!({"code": "UNAVAILABLE", "message": "gateway is full", "retryable": true});
    let gateway = Gateway::of([Met::Refused(reason)]).await;
    let refused = call(&["health", "--url", &gateway.url()]).await;
    refused.fails(1, "the gateway refused to connect: UNAVAILABLE: gateway is full");
    assert_eq!(gateway.seen().connections, 1);
}

#[tokio::test]
async fn a_gateway_that_says_it_starts_is_asked_again_for_as_long_as_there_is_time() {
    let reason = json!({
        "code": "UNAVAILABLE", "message": "gateway starting; retry shortly", "retryable": true,
        "retryAfterMs": 1, "details": {"reason": "startup-sidecars"},
    });
    let starting = || Met::Refused(reason.clone());
    // More often than a restart is.
    let script = [starting(), starting(), starting(), starting(), starting(), starting()];
    let [a, b, c, d, e, f] = script;
    let gateway = Gateway::of([a, b, c, d, e, f, Met::Answered]).await;
    call(&["cron.add", "--url", &gateway.url()]).await.answers();
    assert_eq!((gateway.seen().connections, gateway.seen().requests.len()), (7, 1));
    let gateway = Gateway::of([starting()]).await;
    let refused = call(&["health", "--timeout", "1500", "--url", &gateway.url()]).await;
    refused.fails(1, "gateway starting; retry shortly");
    // Not 1 ms apart but 100.
    assert!((2..=15).contains(&gateway.seen().connections), "{:?}", gateway.seen());
}

#[tokio::test]
async fn a_challenge_that_does_not_come_is_waited_for_elsewhere_and_then_given_up() {
    let gateway = Gateway::of([Met::Silence, Met::Answered]).await;
    call(&["cron.add", "--timeout", "3000", "--url", &gateway.url()]).await.answers();
    assert_eq!(gateway.seen().connections, 2);
    let gateway = Gateway::of([Met::Silence]).await;
    let ended = call(&["cron.add", "--timeout", "1500", "--url", &gateway.url()]).await;
    ended.fails(69, "a challenge did not come in time");
    ended.fails(69, "no answer from ws://");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_tried_again_until_there_is_no_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    drop(listener);
    // 150 and 350 ms later it is tried again, and 750 ms after that there is no time.
    let ended = call(&["cron.add", "--timeout", "1000", "--url", &url]).await;
    ended.fails(69, &format!("no answer from {url} after 3 attempts"));
    let ended = call(&["health", "--url", "unix:/nowhere/worker.sock"]).await;
    ended.fails(69, "no answer from unix:/nowhere/worker.sock after 1 attempt: ");
}

#[tokio::test]
async fn the_last_answer_of_an_agent_is_waited_for_when_that_was_asked_for() {
    let worker = Worker::start().await;
    let url = url(&worker);
    let params = r#"{"message":"hello there","idempotencyKey":"run-1"}"#;
    let first = call(&["agent", "--params", params, "--url", &url]).await.answers();
    assert_eq!(first["status"], "accepted");
    let params = r#"{"message":"hello again","idempotencyKey":"run-2"}"#;
    let asking = ["agent", "--params", params, "--expect-final", "--url", &url];
    let last = call(&asking).await.answers();
    assert_eq!((&last["status"], &last["runId"]), (&json!("ok"), &json!("run-2")), "{last}");
    assert!(last.to_string().contains("hello again"), "{last}");
}
