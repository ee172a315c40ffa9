//! Devices: paired, known again by their own tokens, and refused in the words real clients know.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::rig::{Process, TOKEN, WebSocket, Worker, command, within};

/// A machine with a key.
struct Device {
    key: SigningKey,
    id: String,
}

impl Device {
    fn new(seed: u8) -> Self {
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
    async fn connect(&self, socket: &mut WebSocket, scope: &str, token: &str) -> Value {
        let nonce = nonce(socket).await;
        let params = self.says(&nonce, scope, token);
        answer(socket, params).await
    }

    async fn connect_to(&self, worker: &Worker, scope: &str, token: &str) -> Value {
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
