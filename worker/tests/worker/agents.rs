//! Agents and their files: what clients are answered, what is on disk then, and what stays out of reach.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::rig::{WebSocket, Worker, backend, saying, within};

/// A worker without agents, and a client that may do anything.
async fn started() -> (Worker, WebSocket) {
    let worker = Worker::start().await;
    let mut socket = worker.websocket().await;
    socket.connect().await;
    (worker, socket)
}

/// What a call is answered; events before it are skipped.
pub(crate) async fn ask(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    socket.send(&json!({"type": "req", "id": method, "method": method, "params": params})).await;
    loop {
        let frame = socket.frame().await;
        if frame["type"] == "res" {
            assert_eq!(frame["id"], method);
            return frame;
        }
    }
}

/// The payload of a call that succeeds.
pub(crate) async fn told(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    let answer = ask(socket, method, params).await;
    assert_eq!(answer["ok"], true, "{answer}");
    answer["payload"].clone()
}

/// The words in which a call is refused.
pub(crate) async fn refused(socket: &mut WebSocket, method: &str, params: Value) -> String {
    let answer = ask(socket, method, params).await;
    assert_eq!(
        (&answer["ok"], &answer["error"]["code"]),
        (&json!(false), &json!("INVALID_REQUEST"))
    );
    answer["error"]["message"].as_str().unwrap().to_owned()
}

pub(crate) fn config_path(worker: &Worker) -> PathBuf {
    worker.dir.path().join("state/openclaw.json")
}

async fn created(worker: &Worker, socket: &mut WebSocket, name: &str) -> PathBuf {
    let workspace = worker.dir.path().join(format!("ws {name}"));
    told(socket, "agents.create", json!({"name": name, "workspace": workspace})).await;
    workspace
}

async fn listed(socket: &mut WebSocket) -> Vec<String> {
    let listed = told(socket, "agents.list", json!({})).await;
    let ids = listed["agents"].as_array().unwrap().iter();
    ids.map(|agent| agent["id"].as_str().unwrap().to_owned()).collect()
}

fn content(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn an_agent_is_created_as_recorded_and_answers_at_once() {
    let (worker, mut socket) = started().await;
    let path = config_path(&worker);
    std::fs::write(&path, "{\n  // ours\n  ui: {seamColor: '#112233'},\n}\n").unwrap();
    let workspace = worker.dir.path().join("ws-probe");
    let params = json!({"name": "Probe Bot", "workspace": workspace, "emoji": "🤖"});
    let answer = told(&mut socket, "agents.create", params.clone()).await;
    let expected =
        json!({"ok": true, "agentId": "probe-bot", "name": "Probe Bot", "workspace": workspace});
    assert_eq!(answer, expected);
    let said = content(&workspace.join("IDENTITY.md"));
    assert_eq!(said, "# IDENTITY.md - Agent Identity\n\n- Name: Probe Bot\n- Emoji: 🤖\n");
    let state = worker.dir.path().join("state");
    assert!(state.join("agents/probe-bot/sessions").is_dir());
    let written = content(&path);
    assert!(written.contains("// ours") && written.contains("seamColor"), "{written}");

    let list = told(&mut socket, "agents.list", json!({})).await;
    let expected = json!({
        "defaultId": "main", "mainKey": "main", "scope": "per-sender",
        "agents": [
            {
                "id": "main", "workspace": std::fs::canonicalize(&state).unwrap().join("workspace"),
                "agentRuntime": {"id": "echo", "source": "implicit"},
            },
            {
                "id": "probe-bot", "name": "Probe Bot",
                "identity": {"name": "Probe Bot", "emoji": "🤖"},
                "workspace": workspace, "agentRuntime": {"id": "echo", "source": "implicit"},
            },
        ],
    });
    assert_eq!(list, expected);
    let mut body = saying("hello");
    body["model"] = json!("openclaw/probe-bot");
    assert_eq!(worker.complete(&body).await.status, 200);
    let models = worker.get("/v1/models").await.json();
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    assert_eq!(ids, ["openclaw", "openclaw/default", "openclaw/main", "openclaw/probe-bot"]);

    for (method, params, words) in [
        ("agents.create", params, "agent \"probe-bot\" already exists"),
        ("agents.create", json!({"name": "main", "workspace": "/x"}), "\"main\" is reserved"),
        (
            "agents.create",
            json!({}),
            "invalid agents.create params: must have required property 'name'; must have required property 'workspace'",
        ),
        ("agents.update", json!({"agentId": "nobody"}), "agent \"nobody\" not found"),
        ("agents.delete", json!({"agentId": "nobody"}), "agent \"nobody\" not found"),
        ("agents.delete", json!({"agentId": "main"}), "\"main\" cannot be deleted"),
        ("agents.files.list", json!({"agentId": "nobody"}), "unknown agent id"),
    ] {
        assert_eq!(refused(&mut socket, method, params).await, words);
    }
    assert_eq!(content(&path), written, "what is refused writes nothing");
}

#[tokio::test]
async fn an_agent_is_changed_and_deleted_and_its_workspace_stays() {
    let (worker, mut socket) = started().await;
    let workspace = created(&worker, &mut socket, "b").await;
    let params = json!({"agentId": "b", "emoji": "🧪", "model": "p/m"});
    let answer = told(&mut socket, "agents.update", params).await;
    assert_eq!(answer, json!({"ok": true, "agentId": "b"}));
    let list = told(&mut socket, "agents.list", json!({})).await;
    assert_eq!(list["agents"][1]["identity"], json!({"name": "b", "emoji": "🧪"}));
    assert_eq!(list["agents"][1]["model"], json!({"primary": "p/m"}));
    assert!(content(&workspace.join("IDENTITY.md")).ends_with("- Name: b\n- Emoji: 🧪\n"));
    let answer = told(&mut socket, "agents.delete", json!({"agentId": "b"})).await;
    assert_eq!(answer, json!({"ok": true, "agentId": "b", "removedBindings": 0}));
    assert_eq!(listed(&mut socket).await, ["main"]);
    let state = worker.dir.path().join("state");
    assert!(workspace.join("IDENTITY.md").exists() && !state.join("agents/b").exists());
    let mut body = saying("hello");
    body["model"] = json!("openclaw/b");
    assert_eq!(worker.complete(&body).await.status, 404);
    assert!(!state.join("agents/b").exists(), "nothing is made for an agent that is not there");
    assert_eq!(told(&mut socket, "health", json!({})).await["ok"], true);
}

#[tokio::test]
async fn files_are_set_read_and_listed_as_recorded() {
    let (worker, mut socket) = started().await;
    let workspace = created(&worker, &mut socket, "b").await;
    let params = json!({"agentId": "b", "name": "SOUL.md", "content": "# soul\n"});
    let set = told(&mut socket, "agents.files.set", params).await;
    let updated_at = set["file"]["updatedAtMs"].as_u64().unwrap();
    let file = json!({
        "name": "SOUL.md", "path": workspace.join("SOUL.md"), "missing": false, "size": 7,
        "updatedAtMs": updated_at, "content": "# soul\n",
    });
    let expected = json!({"ok": true, "agentId": "b", "workspace": workspace, "file": file});
    assert_eq!(set, expected);
    let get =
        told(&mut socket, "agents.files.get", json!({"agentId": "b", "name": "SOUL.md"})).await;
    assert_eq!(get, json!({"agentId": "b", "workspace": workspace, "file": file}));
    let get =
        told(&mut socket, "agents.files.get", json!({"agentId": "b", "name": "USER.md"})).await;
    let missing = json!({"name": "USER.md", "path": workspace.join("USER.md"), "missing": true});
    assert_eq!(get["file"], missing);
    let list = told(&mut socket, "agents.files.list", json!({"agentId": "b"})).await;
    let files = list["files"].as_array().unwrap();
    let names: Vec<_> = files.iter().map(|file| file["name"].as_str().unwrap()).collect();
    let expected = [
        "AGENTS.md",
        "SOUL.md",
        "TOOLS.md",
        "IDENTITY.md",
        "USER.md",
        "HEARTBEAT.md",
        "BOOTSTRAP.md",
        "MEMORY.md",
    ];
    assert_eq!(names, expected);
    assert_eq!((&files[1]["size"], &files[3]["missing"]), (&json!(7), &json!(false)));
    assert_eq!(files[4], missing);
}

#[tokio::test]
async fn nothing_outside_of_the_workspace_is_read_or_written() {
    let (worker, mut socket) = started().await;
    let workspace = created(&worker, &mut socket, "b").await;
    let secret = worker.dir.path().join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    for name in ["../x.md", "../secret", "SOUL.md/../../secret", "/etc/passwd", "secret"] {
        for method in ["agents.files.get", "agents.files.set"] {
            let mut params = json!({"agentId": "b", "name": name});
            if method == "agents.files.set" {
                params["content"] = json!("x");
            }
            let words = refused(&mut socket, method, params).await;
            assert_eq!(words, format!("unsupported file {name:?}"));
        }
    }
    std::os::unix::fs::symlink(&secret, workspace.join("SOUL.md")).unwrap();
    let params = json!({"agentId": "b", "name": "SOUL.md"});
    let words = refused(&mut socket, "agents.files.get", params).await;
    assert!(words.ends_with("SOUL.md is not a plain file"), "{words}");
    let params = json!({"agentId": "b", "name": "SOUL.md", "content": "x"});
    let words = refused(&mut socket, "agents.files.set", params).await;
    assert!(words.ends_with("SOUL.md is not a plain file"), "{words}");
    assert_eq!(content(&secret), "hunter2");
    let huge = "x".repeat(1024 * 1024 + 1);
    let params = json!({"agentId": "b", "name": "USER.md", "content": huge});
    let words = refused(&mut socket, "agents.files.set", params).await;
    assert!(words.ends_with("USER.md would be longer than 1048576 bytes"), "{words}");
    assert_eq!(listed(&mut socket).await, ["main", "b"]);
}

#[tokio::test]
async fn who_may_only_read_changes_nothing() {
    let (worker, mut socket) = started().await;
    created(&worker, &mut socket, "b").await;
    let mut reader = worker.websocket().await;
    let mut params = backend();
    params["scopes"] = json!(["operator.read", "operator.write"]);
    reader.connect_as(params).await;
    reader.frame().await;
    assert_eq!(listed(&mut reader).await, ["main", "b"]);
    told(&mut reader, "agents.files.list", json!({"agentId": "b"})).await;
    for method in ["agents.create", "agents.update", "agents.delete", "agents.files.set"] {
        let words = refused(&mut reader, method, json!({})).await;
        assert_eq!(words, "missing scope: operator.admin");
    }
}

#[tokio::test]
async fn agents_that_another_program_writes_are_listed() {
    let (worker, mut socket) = started().await;
    created(&worker, &mut socket, "b").await;
    let path = config_path(&worker);
    let beside = worker.dir.path().join("state/openclaw.json.tmp");
    std::fs::write(&beside, "{agents: {list: [{id: 'main'}, {id: 'ops'}]}}").unwrap();
    std::fs::rename(&beside, &path).unwrap();
    assert_eq!(listed(&mut socket).await, ["main", "ops"]);
    std::fs::write(&path, "{agents: {list: [{id: 'main'}, {id: 'late'}]}}").unwrap();
    let mut body = saying("hello");
    body["model"] = json!("openclaw/late");
    assert_eq!(worker.complete(&body).await.status, 200, "whoever is named is looked for");
    // Without anybody who asks for it, the watcher finds it.
    std::fs::write(&path, "{agents: {list: [{id: 'main'}, {id: 'seen'}]}}").unwrap();
    within("the watcher", async {
        while !worker.get("/v1/models").await.body.contains("openclaw/seen") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn under_changes_one_after_the_other_no_reader_finds_an_agent_missing() {
    let (worker, mut socket) = started().await;
    created(&worker, &mut socket, "stays").await;
    let over = tokio::sync::watch::Sender::new(false);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut client, over) = (worker.connect().await, over.subscribe());
        readers.spawn(async move {
            let mut body = saying("hello");
            body["model"] = json!("openclaw/stays");
            let mut answered = 0;
            while !*over.borrow() {
                client.send(crate::rig::completion(&body, "").as_bytes()).await;
                let reply = client.reply().await;
                assert_eq!(reply.status, 200, "{}", reply.body);
                answered += 1;
            }
            answered
        });
    }
    for _ in 0..20 {
        created(&worker, &mut socket, "comes and goes").await;
        told(&mut socket, "agents.delete", json!({"agentId": "comes-and-goes"})).await;
    }
    over.send_replace(true);
    while let Some(answered) = readers.join_next().await {
        assert!(answered.unwrap() > 0);
    }
}
