//! Plugins while their worker is replaced: none of their calls is lost, and of an exclusive one there is one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_tests::rig::binaries::demo_plugin;
use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use holdfast_tests::rig::{Front, Process, Setup, Signal, TOKEN, WebSocket, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{generation, quick};

/// A state directory in which plugins are installed.
struct House {
    state: TempDir,
}

impl House {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap() }
    }

    /// Installs the example as a plugin that answers these words, with what `change` makes of it.
    fn install(&self, id: &str, words: &[&str], change: impl FnOnce(&mut Value)) {
        let mut command = vec![json!(demo_plugin())];
        command.extend(words.iter().map(|word| json!(word)));
        let method = |word: &&str| json!({"name": format!("{id}.{word}"), "scope": "write"});
        let mut declaration = json!({
            "command": command,
            "methods": words.iter().map(method).collect::<Vec<_>>(),
            "environment": {"DEMO_JOURNAL": self.journal(id)},
        });
        change(&mut declaration);
        let folder = self.state.path().join("plugins").join(id);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("plugin.json"), declaration.to_string()).unwrap();
    }

    fn journal(&self, id: &str) -> std::path::PathBuf {
        self.state.path().join(format!("{id}.journal"))
    }

    /// What a plugin has written down: `start PID GENERATION` and so on.
    fn entries(&self, id: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.journal(id)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn front(&self, setup: Setup) -> Setup {
        setup.environment("HOLDFAST_STATE_DIR", self.state.path())
    }
}

fn exclusive(declaration: &mut Value) {
    declaration["exclusive"] = json!(true);
}

/// Asks, and waits for the answer among whatever else is heard.
async fn ask(socket: &mut BareWebSocket, id: &str, method: &str, params: Value) -> Value {
    socket.send(&frame(Part::Text, call(id, method, params))).await;
    answer(socket, id).await
}

async fn answer(socket: &mut BareWebSocket, id: &str) -> Value {
    loop {
        let said = socket.text().await.expect("the connection lives");
        if said["id"] == id {
            return said;
        }
    }
}

/// Asks until the answer is no refusal; each refusal says when to come back.
async fn ask_again(front: &Front, method: &str) -> Value {
    eventually("the plugin answers", async || {
        let mut socket = BareWebSocket::connected(&front.address()).await;
        let answer = ask(&mut socket, "1", method, json!({})).await;
        assert_eq!(answer["ok"] == false, answer["error"]["retryable"] == true, "{answer}");
        (answer["ok"] == true).then(|| answer["payload"].clone())
    })
    .await
}

#[tokio::test]
async fn a_plugins_call_under_way_survives_a_takeover_and_is_answered_once() {
    let house = House::new();
    house.install("demo", &["wait", "who"], |_| ());
    let front = Front::with(|s| quick(house.front(s))).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let params = json!({"ms": 1500});
    socket.send(&frame(Part::Text, call("long", "demo.wait", params.clone()))).await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    // By the successor's own plugin, while the incumbent's is at the long call.
    let who = ask_again(&front, "demo.who").await;
    assert_eq!(who["generation"], "g2", "{who}");
    let said = answer(&mut socket, "long").await;
    assert_eq!(said["payload"], params, "{said}");
    takeover.end().await.assert_committed();
    let who = ask(&mut socket, "who", "demo.who", json!({})).await;
    assert_eq!(who["payload"]["generation"], "g2", "{who}");
    let ends = house.entries("demo").iter().filter(|entry| entry.starts_with("stop")).count();
    assert_eq!(ends, 1, "the incumbent's was asked to end: {:?}", house.entries("demo"));
}

#[tokio::test]
async fn an_exclusive_plugin_runs_once_at_a_time_and_is_there_for_everybody_all_the_while() {
    const TAKEOVERS: usize = 4;
    let house = House::new();
    house.install("bridge", &["who"], exclusive);
    let front = Arc::new(Front::with(|s| quick(house.front(s))).await);
    ask_again(&front, "bridge.who").await;
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (front, over) = (Arc::clone(&front), Arc::clone(&over));
            tokio::spawn(async move {
                let mut stays = BareWebSocket::connected(&front.address()).await;
                let mut calls = 0;
                while !over.load(Ordering::Relaxed) {
                    let mut comes = BareWebSocket::connected(&front.address()).await;
                    for socket in [&mut stays, &mut comes] {
                        let who = ask(socket, "who", "bridge.who", json!({})).await;
                        assert_eq!(who["ok"], true, "{who}");
                        calls += 1;
                    }
                }
                calls
            })
        })
        .collect();
    for _ in 0..TAKEOVERS {
        front.takeover().await.assert_committed();
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > TAKEOVERS, "it called too seldom");
    }
    let last = generation(TAKEOVERS as u64 + 1).to_string();
    assert_eq!(ask_again(&front, "bridge.who").await["generation"], last);
    let entries = house.entries("bridge");
    assert_eq!(entries.len(), 2 * TAKEOVERS + 1, "{entries:?}");
    for pair in entries.chunks(2) {
        let process = |entry: &str| entry.split(' ').nth(1).unwrap().to_owned();
        assert!(pair[0].starts_with("start"), "two of them ran at a time: {entries:?}");
        if let Some(stop) = pair.get(1) {
            assert!(stop.starts_with("stop"), "two of them ran at a time: {entries:?}");
            assert_eq!(process(&pair[0]), process(stop), "{entries:?}");
        }
    }
}

#[tokio::test]
async fn calls_of_an_exclusive_plugin_are_answered_where_the_writer_lease_is() {
    let house = House::new();
    house.install("bridge", &["who", "exit"], exclusive);
    let front = Front::with(|s| house.front(s).flag("--soak", "10m")).await;
    ask_again(&front, "bridge.who").await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let mut newcomer = BareWebSocket::connected(&front.address()).await;
    let listed = ask(&mut newcomer, "list", "plugins.list", json!({})).await;
    assert_eq!(listed["payload"]["plugins"][0]["state"], "elsewhere", "{listed}");
    let who = ask(&mut newcomer, "who", "bridge.who", json!({})).await;
    assert_eq!(who["payload"]["generation"], "g1", "{who}");
    // What the plugin itself makes of a call is passed back as it is.
    let ended = ask(&mut newcomer, "exit", "bridge.exit", json!({})).await;
    assert_eq!(ended["error"]["code"], "UNAVAILABLE", "{ended}");
    assert_eq!(ask_again(&front, "bridge.who").await["generation"], "g1");
    let successor = front.status().await.generation(generation(2)).and_then(|g| g.worker());
    successor.expect("it has a process").signal(Signal::SIGKILL);
    takeover.end().await.assert_rolled_back();
    assert_eq!(ask_again(&front, "bridge.who").await["generation"], "g1");
}

#[tokio::test]
async fn an_exclusive_plugin_that_outlives_its_worker_is_ended_before_the_next_one_starts() {
    let house = House::new();
    house.install("bridge", &["who"], exclusive);
    let front = Front::with(|s| quick(house.front(s))).await;
    let who = ask_again(&front, "bridge.who").await;
    let pid = i32::try_from(who["pid"].as_i64().unwrap()).unwrap();
    let orphan = Process::find(pid).expect("it runs");
    // Stopped, it does not notice that nobody speaks to it any more.
    orphan.signal(Signal::SIGSTOP);
    front.serving().await.worker().expect("it has a process").signal(Signal::SIGKILL);
    front.until("it was replaced", |status| status.crashes == 1 && status.is_settled()).await;
    let who = ask_again(&front, "bridge.who").await;
    assert_ne!(who["pid"], pid);
    assert!(orphan.is_gone() || orphan.is_zombie(), "two of them run");
}

#[tokio::test]
async fn a_successor_whose_required_plugin_does_not_start_is_dropped_for_that_reason() {
    let house = House::new();
    house.install("demo", &["who"], |_| ());
    let front = Front::with(|s| quick(house.front(s)).flag("--ready-timeout", "3s")).await;
    house.install("vital", &["who"], |d| {
        d["command"] = json!(["./not-there"]);
        d["required"] = json!(true);
    });
    let takeover = front.takeover().await;
    takeover.assert_rolled_back();
    assert!(takeover.reason().contains("plugin:vital"), "{}", takeover.reason());
    assert_eq!(ask_again(&front, "demo.who").await["generation"], "g1");
    house.install("vital", &["who"], |d| d["required"] = json!(true));
    front.takeover().await.assert_committed();
    assert_eq!(ask_again(&front, "vital.who").await["plugin"], "vital");
}

#[tokio::test]
async fn after_ten_takeovers_each_advertised_method_dispatches_and_no_plugin_was_left_behind() {
    let house = House::new();
    house.install("demo", &["who", "echo"], |_| ());
    house.install("bridge", &["who"], exclusive);
    let front = Front::with(|s| quick(house.front(s)).flag("--soak", "1ms")).await;
    for _ in 0..10 {
        front.takeover().await.assert_committed();
    }
    ask_again(&front, "bridge.who").await;
    let mut socket = WebSocket::challenged(&front.address()).await;
    let hello = socket.call("connect", backend()).await;
    let methods = hello["payload"]["features"]["methods"].as_array().expect("a list").clone();
    for own in ["bridge.who", "demo.echo", "demo.who", "plugins.list"] {
        assert!(methods.contains(&json!(own)), "{own}: {methods:?}");
    }
    for method in methods {
        let method = method.as_str().unwrap();
        let answer = socket.call(method, json!({"no": "such"})).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.starts_with("unknown method"), "{method}: {answer}");
    }
    eventually("one of each plugin is left", async || {
        let is_demo = |process: &Process| process.executable().as_deref().is_some_and(is_demo);
        let left = front.process().descendants().into_iter().filter(is_demo).count();
        (left == 2).then_some(())
    })
    .await;
}

fn is_demo(program: &Path) -> bool {
    program.file_name() == demo_plugin().file_name()
}

fn backend() -> Value {
    json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
        "caps": [], "role": "operator", "scopes": ["operator.admin"], "auth": {"token": TOKEN},
    })
}
