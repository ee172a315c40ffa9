//! A model that is answering when its worker is replaced: the incumbent's connection to the provider stays where it is.

#[path = "../../src/bin/fixture-provider/script.rs"]
mod script;
#[path = "../../src/bin/fixture-provider/server.rs"]
mod server;

use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use holdfast_tests::rig::{Front, soon};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use self::server::FixtureProvider;
use super::{all_with, websocket};
use crate::{generation, quick};

/// A provider, and a front whose workers' agents have its models.
async fn scene() -> (FixtureProvider, Front, TempDir) {
    let provider = FixtureProvider::serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
    let config = json!({
        "agents": {"list": [
            {"id": "main", "model": "fake/stuck"}, {"id": "other", "model": "fake/echo"},
        ]},
        "models": {"providers": {"fake": {"baseUrl": provider.base_url()}}},
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("openclaw.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let front = Front::with(|setup| quick(setup).environment("OPENCLAW_CONFIG_PATH", &path)).await;
    (provider, front, dir)
}

async fn ask(socket: &mut BareWebSocket, id: &str, method: &str, params: Value) {
    socket.send(&frame(Part::Text, call(id, method, params))).await;
}

/// The answer with this id in which this holds.
async fn answered(socket: &mut BareWebSocket, id: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    loop {
        let said = socket.text().await.expect("the connection lives");
        if said["id"] == id && is_it(&said["payload"]) {
            return said;
        }
    }
}

#[tokio::test]
async fn a_model_of_the_incumbent_is_ended_through_the_successor_which_has_models_of_its_own() {
    let (provider, front, _dir) = scene().await;
    let mut heard = provider.heard();
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let params = json!({"sessionKey": "main", "message": "hello", "idempotencyKey": "run"});
    ask(&mut socket, "send", "chat.send", params).await;
    let sent = answered(&mut socket, "send", |_| true).await;
    assert_eq!(sent["payload"]["status"], "started", "{sent}");
    soon("the request", heard.wait_for(|heard| heard.open == 1)).await.unwrap();
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    all_with(&front, generation(2), websocket(1)).await;
    assert_eq!(heard.borrow().open, 1, "the incumbent listens on");
    let params = json!({"agentId": "other", "message": "hello you", "idempotencyKey": "other"});
    ask(&mut socket, "other", "agent", params).await;
    let said = answered(&mut socket, "other", |payload| payload["status"] != "accepted").await;
    assert_eq!(said["payload"]["result"]["payloads"][0]["text"], "hello you", "{said}");
    ask(&mut socket, "abort", "chat.abort", json!({"sessionKey": "main"})).await;
    let aborted = answered(&mut socket, "abort", |_| true).await;
    assert_eq!(aborted["payload"]["runIds"], json!(["run"]), "{aborted}");
    soon("the end of the answer", heard.wait_for(|heard| heard.open == 0)).await.unwrap();
    // Nothing holds the incumbent any more.
    takeover.end().await.assert_committed();
    assert_eq!(heard.borrow().requests.len(), 2);
}
