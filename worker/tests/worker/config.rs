//! OpenClaw's configuration, over the gateway and under it: shown, patched, written by others, and wrong.

use serde_json::{Value, json};

use crate::agents::{ask, config_path, refused, told};
use crate::rig::{Process, WebSocket, Worker, command};

async fn started(text: &str) -> (Worker, WebSocket) {
    let worker = Worker::start().await;
    std::fs::write(config_path(&worker), text).unwrap();
    let mut socket = worker.websocket().await;
    socket.connect().await;
    (worker, socket)
}

async fn hash(socket: &mut WebSocket) -> String {
    told(socket, "config.get", json!({})).await["hash"].as_str().unwrap().to_owned()
}

async fn agents(socket: &mut WebSocket) -> Vec<Value> {
    let listed = told(socket, "agents.list", json!({})).await;
    listed["agents"].as_array().unwrap().iter().map(|agent| agent["id"].clone()).collect()
}

#[tokio::test]
async fn a_file_is_shown_without_its_secrets_and_patched_without_losing_them() {
    let text = "{\n  // ours\n  models: {providers: {p: {baseUrl: 'http://x/v1', apiKey: 'hunter2', models: [{id: 'm'}]}}},\n}\n";
    let (worker, mut socket) = started(text).await;
    let shown = told(&mut socket, "config.get", json!({})).await;
    assert_eq!(
        (&shown["exists"], &shown["valid"], &shown["raw"]),
        (&json!(true), &json!(true), &json!(null))
    );
    assert!(!shown.to_string().contains("hunter2"));
    assert_eq!(shown["parsed"]["models"]["providers"]["p"]["apiKey"], "__OPENCLAW_REDACTED__");
    let mut patch = shown["parsed"].clone();
    patch["agents"] = json!({"list": [{"id": "main"}, {"id": "b"}]});
    let params = json!({"raw": patch.to_string(), "baseHash": shown["hash"]});
    let answer = told(&mut socket, "config.patch", params).await;
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["path"], shown["path"]);
    assert_eq!(answer["config"]["agents"]["list"][1]["id"], "b");
    assert!(!answer.to_string().contains("hunter2"));
    let written = std::fs::read_to_string(config_path(&worker)).unwrap();
    assert!(written.contains("// ours") && written.contains("hunter2"), "{written}");
    assert!(!written.contains("REDACTED"), "{written}");
    assert_eq!(agents(&mut socket).await, ["main", "b"]);
    assert_eq!(answer["hash"], hash(&mut socket).await);
    let models = told(&mut socket, "models.list", json!({"view": "configured"})).await;
    let model = json!({
        "provider": "p", "id": "m", "name": "m", "reasoning": false, "input": ["text"],
    });
    assert_eq!(models, json!({"models": [model]}));
}

#[tokio::test]
async fn a_patch_is_refused_in_the_recorded_words_and_the_fourth_in_a_minute_waits() {
    let (worker, mut socket) = started("{ui: {a: 1}}").await;
    let raw = "{\"ui\":{\"a\":2}}";
    let words = refused(&mut socket, "config.patch", json!({"raw": raw})).await;
    assert_eq!(words, "config base hash required; re-run config.get and retry");
    let words = refused(&mut socket, "config.patch", json!({"raw": raw, "baseHash": "x"})).await;
    assert_eq!(words, "config changed since it was read; re-run config.get and retry");
    let base = hash(&mut socket).await;
    let params = json!({"raw": "{gateway: {port: 'x'}}", "baseHash": base});
    let words = refused(&mut socket, "config.patch", params).await;
    assert!(words.contains("gateway.port"), "{words}");
    let answer = ask(&mut socket, "config.patch", json!({"raw": raw, "baseHash": base})).await;
    let error = &answer["error"];
    assert_eq!(
        (&error["code"], &error["details"]["limit"]),
        (&json!("UNAVAILABLE"), &json!("3 per 60s"))
    );
    let words = error["message"].as_str().unwrap();
    assert!(words.starts_with("rate limit exceeded for config.patch; retry after "), "{words}");
    assert_eq!(std::fs::read_to_string(config_path(&worker)).unwrap(), "{ui: {a: 1}}");
}

#[tokio::test]
async fn a_whole_configuration_takes_the_place_of_the_other_and_keeps_its_secrets() {
    let text = "{\n  // ours\n  gateway: {auth: {token: 'hunter2'}},\n  agents: {list: [{id: 'main'}, {id: 'b'}]},\n}\n";
    let (worker, mut socket) = started(text).await;
    for (method, id) in [("config.set", "c"), ("config.apply", "d")] {
        let shown = told(&mut socket, "config.get", json!({})).await;
        let mut whole = shown["parsed"].clone();
        whole["agents"]["list"] = json!([{"id": "main"}, {"id": id}]);
        let params = json!({"raw": whole.to_string(), "baseHash": shown["hash"]});
        let answer = told(&mut socket, method, params).await;
        assert_eq!((&answer["ok"], &answer["path"]), (&json!(true), &shown["path"]));
        assert_eq!(answer["config"]["agents"]["list"][1]["id"], id);
        assert!(!answer.to_string().contains("hunter2"));
        assert_eq!(agents(&mut socket).await, ["main", id]);
        let written = std::fs::read_to_string(config_path(&worker)).unwrap();
        assert!(written.contains("// ours") && written.contains("hunter2"), "{written}");
    }
    let raw = json!({"raw": "{}"});
    let words = refused(&mut socket, "config.set", raw.clone()).await;
    assert_eq!(words, "config base hash required; re-run config.get and retry");
    // They and config.patch share what a client may do in a minute.
    let answer = ask(&mut socket, "config.apply", raw).await;
    assert_eq!(answer["error"]["details"]["method"], "config.apply", "{answer}");
    let words = refused(&mut socket, "config.set", json!({"raw": "{}", "note": "n"})).await;
    assert!(words.ends_with("at root: unexpected property 'note'"), "{words}");
}

#[tokio::test]
async fn the_schema_is_told_whole_and_key_by_key() {
    let (_worker, mut socket) = started("{}").await;
    let schema = told(&mut socket, "config.schema", json!({})).await;
    assert!(schema["schema"]["properties"]["gateway"].is_object());
    let params = json!({"path": "gateway.auth"});
    let node = told(&mut socket, "config.schema.lookup", params).await;
    assert_eq!(node["path"], "gateway.auth");
    let children = node["children"].as_array().unwrap();
    assert!(children.iter().any(|child| child["path"] == "gateway.auth.mode"), "{node}");
    let words = refused(&mut socket, "config.schema.lookup", json!({"path": "nope"})).await;
    assert_eq!(words, "config schema path not found");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_the_last_good_one_and_is_named_with_its_place() {
    let (worker, mut socket) = started("{agents: {list: [{id: 'main'}, {id: 'b'}]}}").await;
    assert_eq!(agents(&mut socket).await, ["main", "b"]);
    let path = config_path(&worker);
    std::fs::write(&path, "{\n  agents: {list: [7]},\n}\n").unwrap();
    let log = worker.process.log.shows("the last good one holds").await;
    assert!(log.contains("openclaw.json:2:19"), "{log}");
    assert_eq!(agents(&mut socket).await, ["main", "b"]);
    let shown = told(&mut socket, "config.get", json!({})).await;
    assert_eq!(
        (&shown["valid"], &shown["issues"][0]["path"]),
        (&json!(false), &json!("agents.list[0]"))
    );
    let params = json!({"name": "c", "workspace": worker.dir.path().join("ws")});
    let words = refused(&mut socket, "agents.create", params).await;
    assert!(words.starts_with("the config has errors"), "{words}");
    std::fs::write(&path, "{agents: {list: [{id: 'main'}, {id: 'c'}]}}").unwrap();
    assert_eq!(agents(&mut socket).await, ["main", "c"]);
}

#[tokio::test]
async fn a_change_that_only_a_takeover_brings_in_is_said_and_the_rest_of_it_holds() {
    let (worker, mut socket) = started("{}").await;
    let text = "{gateway: {port: 1, bind: 'lan'}, agents: {list: [{id: 'main'}, {id: 'b'}]}}";
    std::fs::write(config_path(&worker), text).unwrap();
    let log = worker.process.log.shows("only a fresh worker helps").await;
    assert!(log.contains("takeover(gateway.bind, gateway.port)"), "{log}");
    assert_eq!(agents(&mut socket).await, ["main", "b"]);
}

#[tokio::test]
async fn a_worker_does_not_start_with_a_file_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    let path = dir.path().join("state/openclaw.json");
    for (text, place) in
        [("{\n gateway: {port: 'x'}}", "openclaw.json:2:18"), ("{", "openclaw.json:1")]
    {
        std::fs::write(&path, text).unwrap();
        let mut process = Process::spawn(command(&dir).args(["--listen", "127.0.0.1:0"]));
        assert_eq!(process.exited().await.code(), Some(78));
        let log = process.log.whole().await;
        assert!(log.contains(place), "{log}");
    }
}
