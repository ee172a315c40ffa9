//! Devices whose connections move: they stay who they are, and lose their access wherever they are.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey};
use holdfast_tests::rig::moving::{BareWebSocket, Part, UPGRADE, call, frame};
use holdfast_tests::rig::{Front, TOKEN};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{all_with, websocket};
use crate::{generation, quick};

/// A machine with a key.
pub(super) struct Device {
    key: SigningKey,
    pub(super) id: String,
}

impl Device {
    pub(super) fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let id = HEXLOWER.encode(&Sha256::digest(key.verifying_key().as_bytes()));
        Self { key, id }
    }

    /// A connection of this device, which is paired at once, and the token that it is told.
    pub(super) async fn connected(&self, front: &Front, token: &str) -> (BareWebSocket, String) {
        let mut socket = BareWebSocket::open(&front.address()).await;
        socket.send(UPGRADE).await;
        socket.upgraded().await;
        let challenge = socket.text().await.expect("a challenge comes");
        let nonce = challenge["payload"]["nonce"].as_str().unwrap();
        let said = call("connect", "connect", self.says(nonce, token));
        socket.send(&frame(Part::Text, said)).await;
        let hello = socket.text().await.expect("an answer to connect comes");
        let own = hello["payload"]["auth"]["deviceToken"].as_str();
        let own = own.unwrap_or_else(|| panic!("{hello}")).to_owned();
        assert_eq!(socket.text().await.unwrap()["event"], "health");
        (socket, own)
    }

    /// Its public key, as tables of devices have it.
    pub(super) fn public_key(&self) -> String {
        BASE64URL_NOPAD.encode(self.key.verifying_key().as_bytes())
    }

    /// What OpenClaw's command line says of itself, signed for this nonce.
    fn says(&self, nonce: &str, token: &str) -> Value {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let signed_at = u64::try_from(since.as_millis()).unwrap();
        let (id, scope) = (&self.id, "operator.pairing");
        let said = format!("v3|{id}|cli|cli|operator|{scope}|{signed_at}|{token}|{nonce}|linux|");
        json!({
            "minProtocol": 4, "maxProtocol": 4,
            "client": {"id": "cli", "version": "2026.5.12", "platform": "linux", "mode": "cli"},
            "caps": [], "role": "operator", "scopes": [scope], "auth": {"token": token},
            "device": {
                "id": id, "publicKey": self.public_key(),
                "signature": BASE64URL_NOPAD.encode(&self.key.sign(said.as_bytes()).to_bytes()),
                "signedAt": signed_at, "nonce": nonce,
            },
        })
    }
}

/// The answer to a call.
async fn ask(socket: &mut BareWebSocket, method: &str, params: Value) -> Value {
    socket.send(&frame(Part::Text, call("a", method, params))).await;
    loop {
        let said = socket.text().await.unwrap_or_else(|| panic!("no answer to {method}"));
        if said["type"] == "res" {
            return said;
        }
    }
}

fn removed() -> Option<(u16, String)> {
    Some((4001, "device removed".to_owned()))
}

#[tokio::test]
async fn a_device_stays_who_it_is_through_takeovers_until_it_is_removed() {
    let front = Front::with(quick).await;
    let (device, other) = (Device::new(1), Device::new(2));
    let (mut shared, own) = device.connected(&front, TOKEN).await;
    let (mut confined, _) = device.connected(&front, &own).await;
    let (mut unconcerned, _) = other.connected(&front, TOKEN).await;
    for number in 2..=3 {
        front.takeover().await.assert_committed();
        all_with(&front, generation(number), websocket(3)).await;
        // Who came with the shared token sees all, who came with a device's own that one alone.
        let listed = ask(&mut shared, "device.pair.list", json!({})).await;
        assert_eq!(listed["payload"]["paired"].as_array().unwrap().len(), 2, "{listed}");
        let listed = ask(&mut confined, "device.pair.list", json!({})).await;
        let only = listed["payload"]["paired"].as_array().unwrap();
        assert_eq!((only.len(), &only[0]["deviceId"]), (1, &json!(device.id)), "{listed}");
    }
    let mut admin = BareWebSocket::connected(&front.address()).await;
    let answer = ask(&mut admin, "device.pair.remove", json!({"deviceId": device.id})).await;
    assert_eq!(answer["ok"], true, "{answer}");
    assert_eq!(shared.closed().await, removed());
    assert_eq!(confined.closed().await, removed());
    assert_eq!(ask(&mut unconcerned, "device.pair.list", json!({})).await["ok"], true);
}

#[tokio::test]
async fn access_that_is_taken_while_connections_move_is_lost_wherever_they_are() {
    let front = Front::with(quick).await;
    // After a rotation the role is there as before, and its token is another.
    let (revoke, rotate) = ("device.token.revoke", "device.token.rotate");
    for (seed, (moment, method)) in (1..).zip([
        ("ready", rotate),
        ("switched", revoke),
        ("switched", rotate),
        ("committed", revoke),
    ]) {
        let device = Device::new(seed);
        let (mut first, own) = device.connected(&front, TOKEN).await;
        let (mut second, _) = device.connected(&front, &own).await;
        let mut admin = BareWebSocket::connected(&front.address()).await;
        let mut takeover = front.begin_takeover();
        takeover.until(moment).await;
        let token = json!({"deviceId": device.id, "role": "operator"});
        let answer = ask(&mut admin, method, token).await;
        assert_eq!(answer["ok"], true, "{moment}: {answer}");
        assert_eq!(first.closed().await, removed(), "{moment}");
        assert_eq!(second.closed().await, removed(), "{moment}");
        takeover.end().await.assert_committed();
    }
}
