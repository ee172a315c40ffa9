//! The shared token: which of its places decides, and what a change of it means for whoever is connected.

use std::path::Path;

use serde_json::{Value, json};

use crate::agents::{config_path, told};
use crate::devices::Device;
use crate::rig::{Process, TOKEN, WebSocket, Worker, backend, command, get};

fn with_token(token: &str) -> String {
    format!("{{gateway: {{auth: {{token: '{token}'}}}}}}")
}

/// A worker with this configuration and whatever `set` puts into its environment.
async fn started(config: &str, set: &[(&str, &str)]) -> Worker {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    std::fs::write(dir.path().join("state/openclaw.json"), config).unwrap();
    let listen = format!("unix:{}", dir.path().join("worker.sock").display());
    let mut command = command(&dir);
    command.env_remove("HOLDFAST_TOKEN").envs(set.iter().copied()).args(["--listen", &listen]);
    let process = Process::spawn(&mut command);
    process.log.shows("listening").await;
    Worker { process, dir }
}

fn params(token: &str) -> Value {
    let mut params = backend();
    params["auth"]["token"] = json!(token);
    params
}

async fn lets_in(worker: &Worker, token: &str) -> bool {
    worker.websocket().await.connect_as(params(token)).await["ok"] == true
}

async fn answers(worker: &Worker, token: &str) -> bool {
    worker.ask(&get("/v1/models").replace(TOKEN, token)).await.status == 200
}

async fn connected(worker: &Worker, token: &str) -> WebSocket {
    let mut socket = worker.websocket().await;
    assert_eq!(socket.connect_as(params(token)).await["ok"], true);
    assert_eq!(socket.frame().await["event"], "health");
    socket
}

fn exists(worker: &Worker, name: &str) -> bool {
    Path::new(&worker.dir.path().join("state").join(name)).exists()
}

#[tokio::test]
async fn the_configurations_token_is_asked_for_and_none_is_made_up_beside_it() {
    let worker = started(&with_token("of the config"), &[]).await;
    let log = worker.process.log.shows("curl").await;
    assert!(log.contains("the token is gateway.auth.token of "), "{log}");
    assert!(!log.contains("of the config"), "{log}");
    assert!(lets_in(&worker, "of the config").await && answers(&worker, "of the config").await);
    assert!(!lets_in(&worker, TOKEN).await && !answers(&worker, TOKEN).await);
    assert!(!exists(&worker, "token"));
}

#[tokio::test]
async fn the_environments_token_goes_before_the_configurations() {
    for name in ["HOLDFAST_TOKEN", "OPENCLAW_GATEWAY_TOKEN"] {
        let worker = started(&with_token("of the config"), &[(name, "of the shell")]).await;
        assert!(lets_in(&worker, "of the shell").await && answers(&worker, "of the shell").await);
        assert!(!lets_in(&worker, "of the config").await);
    }
}

#[tokio::test]
async fn the_configurations_token_may_name_a_variable() {
    let worker = started(&with_token("${ITS_NAME}"), &[("ITS_NAME", "of the shell")]).await;
    assert!(lets_in(&worker, "of the shell").await && !lets_in(&worker, "${ITS_NAME}").await);
}

#[tokio::test]
async fn whoever_changes_the_token_is_answered_and_all_who_showed_it_are_closed_4001() {
    let worker = started(&with_token("first"), &[]).await;
    let mut changing = connected(&worker, "first").await;
    let mut beside = connected(&worker, "first").await;
    let shown = told(&mut changing, "config.get", json!({})).await;
    let patch = json!({"raw": with_token("second"), "baseHash": shown["hash"]});
    assert_eq!(told(&mut changing, "config.patch", patch).await["ok"], true);
    for socket in [&mut changing, &mut beside] {
        assert_eq!(socket.closed().await, (4001, "gateway auth changed".to_owned()));
    }
    assert!(lets_in(&worker, "second").await && answers(&worker, "second").await);
    assert!(!lets_in(&worker, "first").await && !answers(&worker, "first").await);
}

#[tokio::test]
async fn a_device_with_a_token_of_its_own_stays_when_the_shared_one_changes() {
    let worker = started(&with_token("first"), &[]).await;
    let device = Device::new(7);
    let hello = device.connect_to(&worker, "operator.read", "first").await;
    let own = hello["payload"]["auth"]["deviceToken"].as_str().unwrap().to_owned();
    let mut socket = worker.websocket().await;
    assert_eq!(device.connect(&mut socket, "operator.read", &own).await["ok"], true);
    std::fs::write(config_path(&worker), with_token("second")).unwrap();
    worker.process.log.shows("the shared token has changed").await;
    assert!(told(&mut socket, "status", json!({})).await["runtimeVersion"].is_string());
    assert!(lets_in(&worker, "second").await);
}

#[tokio::test]
async fn a_token_that_cannot_be_used_changes_nothing_and_is_said() {
    let worker = started(&with_token("first"), &[]).await;
    let mut socket = connected(&worker, "first").await;
    std::fs::write(config_path(&worker), with_token(" ")).unwrap();
    let log = worker.process.log.shows("the last good one stays in force").await;
    assert!(log.contains("gateway.auth.token is empty"), "{log}");
    assert!(lets_in(&worker, "first").await);
    told(&mut socket, "status", json!({})).await;
}

#[tokio::test]
async fn a_token_in_an_unknown_place_exits_78() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    let config = "{gateway: {auth: {token: {source: 'exec', provider: 'p', id: 'x'}}}}";
    std::fs::write(dir.path().join("state/openclaw.json"), config).unwrap();
    let mut command = command(&dir);
    command.env_remove("HOLDFAST_TOKEN").args(["--listen", "127.0.0.1:0"]);
    let mut process = Process::spawn(&mut command);
    assert_eq!(process.exited().await.code(), Some(78));
    let log = process.log.whole().await;
    assert!(log.contains("set OPENCLAW_GATEWAY_TOKEN instead"), "{log}");
}
