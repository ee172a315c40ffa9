//! Agents that are made while clients are connected and workers replaced: what once closed the port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::moving::Clients;
use holdfast_tests::rig::{Front, TOKEN, WebSocket};
use serde_json::{Value, json};

use super::lively;
use crate::quick;

/// How often the reported script is run.
const ROUNDS: usize = 20;
/// The files that each of its rounds writes.
const NAMES: [&str; 4] = ["AGENTS.md", "SOUL.md", "TOOLS.md", "USER.md"];

async fn done(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    let answer = socket.call(method, params).await;
    assert_eq!(answer["ok"], true, "{answer}");
    answer["payload"].clone()
}

async fn created(front: &Front, socket: &mut WebSocket, name: &str) {
    let workspace = front.directory().join("workspaces").join(name);
    let answer = done(socket, "agents.create", json!({"name": name, "workspace": workspace})).await;
    assert_eq!(answer["agentId"], name);
}

/// Talks to an agent on a connection that is kept.
async fn talks(connection: &mut HttpConnection, agent: &str) {
    let body = json!({
        "model": format!("openclaw/{agent}"), "messages": [{"role": "user", "content": "hello"}],
    });
    let request = Request::post("/v1/chat/completions", body.to_string())
        .header("authorization", &format!("Bearer {TOKEN}"));
    let answer = connection.exchange(&request).await;
    let answer = answer.expect("the connection lives");
    assert_eq!(answer.code, 200, "{}", answer.text());
    assert!(answer.text().contains("hello"));
}

#[tokio::test]
async fn agents_create_keeps_every_connection_open_and_triggers_no_takeover() {
    let front = Front::with(lively).await;
    let callers = Clients::calling(&front, 5).await;
    let posters = Clients::posting(&front, 5).await;
    let worker = front.serving().await.worker();
    let mut socket = WebSocket::connected(&front.address()).await;
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    for round in 0..5 {
        let name = format!("agent-{round}");
        created(&front, &mut socket, &name).await;
        talks(&mut connection, &name).await;
        done(&mut socket, "agents.update", json!({"agentId": name, "emoji": "🧪"})).await;
    }
    done(&mut socket, "agents.delete", json!({"agentId": "agent-0"})).await;
    callers.each_is_answered(3).await;
    posters.each_is_answered(3).await;
    let status = front.status().await;
    assert_eq!((status.takeovers.committed, status.takeovers.rolled_back), (0, 0));
    assert_eq!((status.generations.len(), status.crashes), (1, 0));
    assert_eq!(front.serving().await.worker(), worker, "the same process serves");
    callers.stop().await.assert_nobody_noticed();
    posters.stop().await.assert_nobody_noticed();
}

#[tokio::test]
async fn agents_are_made_given_files_and_talked_to_while_takeovers_follow_one_another() {
    let front = Arc::new(Front::with(|s| quick(s).flag("--soak", "1ms")).await);
    let mut socket = WebSocket::connected(&front.address()).await;
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let takeovers = {
        let (front, over) = (Arc::clone(&front), Arc::clone(&over));
        tokio::spawn(async move {
            let mut committed = 0;
            while !over.load(Ordering::Relaxed) || committed < 3 {
                front.takeover().await.assert_committed();
                committed += 1;
            }
            committed
        })
    };
    for round in 0..ROUNDS {
        let name = format!("agent-{round}");
        created(&front, &mut socket, &name).await;
        for write in 0..12 {
            let file = NAMES[write % NAMES.len()];
            let content = format!("{write} of round {round}");
            let params = json!({"agentId": name, "name": file, "content": content});
            let answer = done(&mut socket, "agents.files.set", params).await;
            assert_eq!(answer["file"]["content"], content.as_str());
        }
        talks(&mut connection, &name).await;
    }
    over.store(true, Ordering::Relaxed);
    let committed: u64 = takeovers.await.unwrap();
    let listed = done(&mut socket, "agents.list", json!({})).await;
    assert_eq!(listed["agents"].as_array().map(Vec::len), Some(ROUNDS + 1), "{listed}");
    talks(&mut connection, "agent-0").await;
    assert_eq!(front.status().await.takeovers.committed, committed, "none but those asked for");
}
