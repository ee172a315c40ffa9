//! Devices: paired, known again by their own tokens, and refused in the words real clients know.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::rig::{Process, TOKEN, WebSocket, Worker, command, within};

/// A machine with a key.
pub(crate) struct Device {
    key: SigningKey,
    id: String,
}

impl Device {
    pub(crate) fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let id = HEXLOWER.encode(&Sha256::digest(key.verifying_key().as_bytes()));
        Self { key, id }
    }

    /// What the recorded CLI says of itself, signed for this nonce.
    fn says(&self, nonce: &str, scope: &str, token: &str) -> Value {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let signed_at = u64::try_from(since.as_millis()).unwrap();
        let id = &self.id;
        let said = format!("v3|{id}|cli|cli|operator|{scope}|{signed_at}|{token}|{nonce}|linux|");
        json!({
            "minProtocol": 4, "maxProtocol": 4,
            "client": {"id": "cli", "version": "2026.5.12", "platform": "linux", "mode": "cli"},
            "caps": [], "role": "operator", "scopes": [scope], "auth": {"token": token},
            "device": {
                "id": id, "publicKey": BASE64URL_NOPAD.encode(self.key.verifying_key().as_bytes()),
                "signature": BASE64URL_NOPAD.encode(&self.key.sign(said.as_bytes()).to_bytes()),
                "signedAt": signed_at, "nonce": nonce,
            },
        })
    }

    /// Connects on a socket that was not challenged yet; the answer.
    pub(crate) async fn connect(&self, socket: &mut WebSocket, scope: &str, token: &str) -> Value {
        let nonce = nonce(socket).await;
        let params = self.says(&nonce, scope, token);
        answer(socket, params).await
    }

    pub(crate) async fn connect_to(&self, worker: &Worker, scope: &str, token: &str) -> Value {
        self.connect(&mut worker.websocket().await, scope, token).await
    }
}

async fn nonce(socket: &mut WebSocket) -> String {
    socket.frame().await["payload"]["nonce"].as_str().unwrap().to_owned()
}

async fn answer(socket: &mut WebSocket, params: Value) -> Value {
    socket.send(&json!({"type": "req", "id": "c", "method": "connect", "params": params})).await;
    socket.frame().await
}

/// A WebSocket of somebody for whom a proxy speaks.
async fn forwarded(worker: &Worker) -> WebSocket {
    let stream = UnixStream::connect(worker.dir.path().join("worker.sock")).await.unwrap();
    let mut request = "ws://localhost/".into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", "192.0.2.7".parse().unwrap());
    let upgrade = tokio_tungstenite::client_async(request, stream);
    WebSocket { inner: within("the upgrade", upgrade).await.unwrap().0 }
}

#[tokio::test]
async fn a_device_is_paired_at_once_and_comes_back_with_its_own_token() {
    let worker = Worker::with(&["--log-level", "debug"]).await;
    let device = Device::new(1);
    let hello = device.connect_to(&worker, "operator.admin", TOKEN).await;
    let auth = &hello["payload"]["auth"];
    let own = auth["deviceToken"].as_str().unwrap_or_else(|| panic!("{hello}"));
    let expected = json!({
        "role": "operator", "scopes": ["operator.admin", "operator.read", "operator.write"],
        "deviceToken": own, "issuedAtMs": auth["issuedAtMs"],
    });
    assert_eq!(*auth, expected);
    assert!(auth["issuedAtMs"].is_u64());

    let mut socket = forwarded(&worker).await;
    let again = device.connect(&mut socket, "operator.read", own).await;
    assert_eq!(again["payload"]["auth"], expected);
    assert_eq!(socket.call("status").await["ok"], true);
    // It asked for no more than to read.
    assert_eq!(again["payload"]["snapshot"].get("stateDir"), None);

    let log = worker.process.log.shows("a device was paired").await;
    assert!(!log.contains(own) && !log.contains(TOKEN), "{log}");
}

#[tokio::test]
async fn what_was_signed_for_another_connection_opens_nothing() {
    let worker = Worker::start().await;
    let device = Device::new(1);
    let mut first = worker.websocket().await;
    let said = device.says(&nonce(&mut first).await, "operator.read", TOKEN);
    assert_eq!(answer(&mut first, said.clone()).await["ok"], true);
    let mut second = worker.websocket().await;
    second.challenged().await;
    let refusal = answer(&mut second, said).await;
    let error = json!({"code": "INVALID_REQUEST", "message": "device nonce mismatch",
        "details": {"code": "DEVICE_AUTH_NONCE_MISMATCH", "reason": "device-nonce-mismatch"}});
    assert_eq!(refusal["error"], error);
    assert_eq!(second.closed().await, (1008, "device nonce mismatch".to_owned()));
}

#[tokio::test]
async fn a_scope_upgrade_is_closed_with_the_request_that_waits() {
    let worker = Worker::start().await;
    let device = Device::new(1);
    device.connect_to(&worker, "operator.read", TOKEN).await;
    let mut socket = worker.websocket().await;
    let refusal = device.connect(&mut socket, "operator.admin", TOKEN).await;
    let error = &refusal["error"];
    assert_eq!(error["code"], "NOT_PAIRED");
    assert_eq!(error["details"]["reason"], "scope-upgrade");
    let request = error["details"]["requestId"].as_str().unwrap();
    let words = "pairing required: device is asking for more scopes than currently approved";
    assert_eq!(error["message"], words);
    let reason = format!("{words} (requestId: {request})");
    assert_eq!(socket.closed().await, (1008, reason[..120].to_owned()));
    let pending = worker.dir.path().join("state/devices/pending.json");
    let pending: Value = serde_json::from_slice(&std::fs::read(pending).unwrap()).unwrap();
    assert_eq!(pending[request]["scopes"], json!(["operator.admin"]));
    // What it had it still has.
    assert_eq!(device.connect_to(&worker, "operator.read", TOKEN).await["ok"], true);
}

#[tokio::test]
async fn a_device_from_elsewhere_waits_for_an_approval() {
    let worker = Worker::start().await;
    let mut socket = forwarded(&worker).await;
    let refusal = Device::new(1).connect(&mut socket, "operator.read", TOKEN).await;
    let error = &refusal["error"];
    assert_eq!(error["message"], "pairing required: device is not approved yet");
    assert_eq!(error["details"]["reason"], "not-paired");
    assert_eq!(error["details"].get("approvedScopes"), None);
    assert!(!worker.dir.path().join("state/devices/paired.json").exists());
}

#[tokio::test]
async fn two_workers_that_pair_at_the_same_time_lose_nobody() {
    const EACH: u8 = 12;
    let worker = Worker::start().await;
    let path = worker.dir.path().join("other.sock");
    let listen = format!("unix:{}", path.display());
    let other = Process::spawn(command(&worker.dir).args(["--listen", &listen]));
    other.log.shows("listening").await;
    let mut tokens = tokio::task::JoinSet::new();
    for seed in 0..2 * EACH {
        let path = if seed < EACH { worker.dir.path().join("worker.sock") } else { path.clone() };
        tokens.spawn(async move {
            let mut socket = WebSocket::open(&path).await;
            let hello = Device::new(seed).connect(&mut socket, "operator.read", TOKEN).await;
            let token = hello["payload"]["auth"]["deviceToken"].as_str();
            (seed, token.unwrap_or_else(|| panic!("{hello}")).to_owned())
        });
    }
    // Each is known to the one that it was not paired by.
    for (seed, token) in tokens.join_all().await {
        let path = if seed < EACH { path.clone() } else { worker.dir.path().join("worker.sock") };
        let mut socket = WebSocket::open(&path).await;
        let hello = Device::new(seed).connect(&mut socket, "operator.read", &token).await;
        assert_eq!(hello["payload"]["auth"]["deviceToken"], token, "{hello}");
    }
}

/// A client that may do everything, on this machine.
async fn administrator(worker: &Worker) -> WebSocket {
    let mut socket = worker.websocket().await;
    socket.connect().await;
    socket
}

/// The response to a call; the events before it.
async fn ask(socket: &mut WebSocket, method: &str, params: Value) -> (Value, Vec<Value>) {
    socket.send(&json!({"type": "req", "id": "a", "method": method, "params": params})).await;
    let mut events = Vec::new();
    loop {
        let frame = socket.frame().await;
        if frame["type"] == "res" {
            assert_eq!(frame["id"], "a");
            return (frame, events);
        }
        events.push(frame);
    }
}

/// The next event of this name.
async fn event(socket: &mut WebSocket, name: &str) -> Value {
    loop {
        let frame = socket.frame().await;
        if frame["event"] == name {
            return frame["payload"].clone();
        }
    }
}

/// How a connection was closed, whatever it heard before.
async fn end(socket: &mut WebSocket) -> (u16, String) {
    loop {
        if let Message::Close(Some(close)) = socket.message().await {
            return (close.code.into(), close.reason.to_string());
        }
    }
}

fn removed() -> (u16, String) {
    (4001, "device removed".to_owned())
}

/// A connection of a device that came with this token.
async fn connected(worker: &Worker, device: &Device, scope: &str, token: &str) -> WebSocket {
    let mut socket = worker.websocket().await;
    let hello = device.connect(&mut socket, scope, token).await;
    assert_eq!(hello["ok"], true, "{hello}");
    assert_eq!(socket.frame().await["event"], "health");
    socket
}

/// The token that a device is told when it is paired.
async fn paired(worker: &Worker, device: &Device, scope: &str) -> String {
    let hello = device.connect_to(worker, scope, TOKEN).await;
    hello["payload"]["auth"]["deviceToken"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_device_that_another_client_approves_is_let_in() {
    let worker = Worker::start().await;
    let mut admin = administrator(&worker).await;
    let device = Device::new(1);
    let refusal = device.connect(&mut forwarded(&worker).await, "operator.read", TOKEN).await;
    let request = refusal["error"]["details"]["requestId"].clone();
    let asked = event(&mut admin, "device.pair.requested").await;
    assert_eq!((&asked["requestId"], &asked["deviceId"]), (&request, &json!(device.id)));
    // Asking again is no news.
    device.connect(&mut forwarded(&worker).await, "operator.read", TOKEN).await;
    let (listed, events) = ask(&mut admin, "device.pair.list", json!({})).await;
    assert_eq!(listed["payload"], json!({"pending": [asked], "paired": []}));
    assert!(events.iter().all(|event| event["event"] != "device.pair.requested"), "{events:?}");

    let (answer, mut events) =
        ask(&mut admin, "device.pair.approve", json!({"requestId": request})).await;
    let approved = &answer["payload"];
    assert_eq!(approved["requestId"], request, "{answer}");
    assert_eq!(approved["device"]["scopes"], json!(["operator.read"]));
    assert_eq!(approved["device"]["tokens"][0].get("token"), None);
    let resolved = match events.pop() {
        Some(resolved) => resolved["payload"].clone(),
        None => event(&mut admin, "device.pair.resolved").await,
    };
    let expected = json!({"requestId": request, "deviceId": device.id, "decision": "approved",
        "ts": resolved["ts"]});
    assert_eq!(resolved, expected);
    let hello = device.connect(&mut forwarded(&worker).await, "operator.read", TOKEN).await;
    assert_eq!(hello["ok"], true, "{hello}");
    let (listed, _) = ask(&mut admin, "device.pair.list", json!({})).await;
    assert_eq!(listed["payload"]["pending"], json!([]));
    assert_eq!(listed["payload"]["paired"][0]["deviceId"], device.id);
}

#[tokio::test]
async fn a_request_is_rejected_once() {
    let worker = Worker::start().await;
    let mut admin = administrator(&worker).await;
    let device = Device::new(1);
    device.connect(&mut forwarded(&worker).await, "operator.read", TOKEN).await;
    let request = event(&mut admin, "device.pair.requested").await["requestId"].clone();
    let params = json!({"requestId": request});
    let (rejected, _) = ask(&mut admin, "device.pair.reject", params.clone()).await;
    assert_eq!(rejected["payload"], json!({"requestId": request, "deviceId": device.id}));
    let (again, _) = ask(&mut admin, "device.pair.reject", params).await;
    let error = json!({"code": "INVALID_REQUEST", "message": "unknown requestId"});
    assert_eq!(again["error"], error);
    let (wrong, _) = ask(&mut admin, "device.pair.reject", json!({"deviceId": 7})).await;
    let words = wrong["error"]["message"].as_str().unwrap();
    assert!(words.starts_with("invalid device.pair.reject params: "), "{words}");
}

#[tokio::test]
async fn whose_access_is_taken_is_closed_and_nobody_else() {
    let worker = Worker::start().await;
    let mut admin = administrator(&worker).await;
    let (device, other) = (Device::new(1), Device::new(2));
    let mut unconcerned = connected(&worker, &other, "operator.read", TOKEN).await;
    for method in ["device.token.rotate", "device.token.revoke", "device.pair.remove"] {
        let own = paired(&worker, &device, "operator.read").await;
        let mut sockets = [
            connected(&worker, &device, "operator.read", &own).await,
            connected(&worker, &device, "operator.read", TOKEN).await,
        ];
        let mut params = json!({"deviceId": device.id});
        if method != "device.pair.remove" {
            params["role"] = json!("operator");
        }
        let (answer, _) = ask(&mut admin, method, params).await;
        assert_eq!(answer["payload"]["deviceId"], device.id, "{method}: {answer}");
        assert_eq!(answer["payload"].get("token"), None);
        for socket in &mut sockets {
            assert_eq!(end(socket).await, removed(), "{method}");
        }
        let refusal = device.connect_to(&worker, "operator.read", &own).await;
        assert_eq!(refusal["ok"], false, "{method}: {refusal}");
    }
    assert_eq!(unconcerned.call("status").await["ok"], true);
}

#[tokio::test]
async fn a_device_that_gives_itself_up_is_answered_and_touches_no_other() {
    let worker = Worker::start().await;
    let (device, other) = (Device::new(1), Device::new(2));
    let own = paired(&worker, &device, "operator.pairing").await;
    paired(&worker, &other, "operator.read").await;
    let mut socket = connected(&worker, &device, "operator.pairing", &own).await;
    let theirs = json!({"deviceId": other.id});
    let (denied, _) = ask(&mut socket, "device.pair.remove", theirs).await;
    assert_eq!(denied["error"]["message"], "device pairing removal denied");
    let rotate = json!({"deviceId": device.id, "role": "operator"});
    let (rotated, _) = ask(&mut socket, "device.token.rotate", rotate).await;
    let own = rotated["payload"]["token"].as_str().unwrap_or_else(|| panic!("{rotated}"));
    assert_eq!(end(&mut socket).await, removed());

    let mut socket = connected(&worker, &device, "operator.pairing", own).await;
    let (answer, _) = ask(&mut socket, "device.pair.remove", json!({"deviceId": device.id})).await;
    assert_eq!(answer["payload"], json!({"deviceId": device.id}));
    assert_eq!(end(&mut socket).await, removed());
}

#[tokio::test]
async fn devices_are_managed_by_who_holds_the_scope_for_it() {
    let worker = Worker::start().await;
    let mut reader = connected(&worker, &Device::new(1), "operator.read", TOKEN).await;
    let (refused, _) = ask(&mut reader, "device.pair.list", json!({})).await;
    assert_eq!(refused["error"]["message"], "missing scope: operator.pairing");
    // Nor does it hear of requests: the next event is for everybody.
    Device::new(2).connect(&mut forwarded(&worker).await, "operator.read", TOKEN).await;
    let (_, events) = ask(&mut reader, "device.pair.list", json!({})).await;
    assert_eq!(events, Vec::<Value>::new());
}

#[tokio::test]
async fn a_device_that_is_taken_out_of_the_file_is_closed() {
    let worker = Worker::start().await;
    let (device, other) = (Device::new(1), Device::new(2));
    let mut socket = connected(&worker, &device, "operator.read", TOKEN).await;
    let mut kept = connected(&worker, &other, "operator.read", TOKEN).await;
    let path = worker.dir.path().join("state/devices/paired.json");
    let mut table: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    table.as_object_mut().unwrap().remove(&device.id);
    std::fs::write(&path, table.to_string()).unwrap();
    assert_eq!(end(&mut socket).await, removed());
    assert_eq!(kept.call("status").await["ok"], true);
}

#[tokio::test]
async fn a_table_that_cannot_be_used_is_the_gateways_fault_and_closes_nobody() {
    let worker = Worker::start().await;
    let mut admin = administrator(&worker).await;
    let device = Device::new(1);
    let mut before = connected(&worker, &device, "operator.read", TOKEN).await;
    let path = worker.dir.path().join("state/devices/paired.json");
    std::fs::write(&path, "{").unwrap();
    let mut socket = worker.websocket().await;
    let refusal = device.connect(&mut socket, "operator.read", TOKEN).await;
    let error = json!({"code": "UNAVAILABLE", "message": "device pairing is unavailable"});
    assert_eq!(refusal["error"], error);
    assert_eq!(socket.closed().await, (1011, "device pairing is unavailable".to_owned()));
    let (refusal, _) = ask(&mut admin, "device.pair.list", json!({})).await;
    assert_eq!(refusal["error"], error);
    worker.process.log.shows("what was revoked in the table of devices cannot be seen").await;
    assert_eq!(before.call("status").await["ok"], true);
}
