//! Plugins of a worker that has no front: the example that ships, in as many copies as a test needs.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::{Client, Process, WebSocket, command, get, within};

/// The example's program: cargo builds it with the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/demo-plugin")
}

/// A state directory with plugins, and the worker that has them.
struct House {
    process: Process,
    dir: TempDir,
}

/// The example as a plugin of this name that answers these words.
fn demo(words: &[&str]) -> Value {
    let mut command = vec![json!(program())];
    command.extend(words.iter().map(|word| json!(word)));
    json!({"command": command})
}

fn folder(dir: &TempDir, id: &str) -> PathBuf {
    dir.path().join("state/plugins").join(id)
}

/// Installs the example, with what `change` makes of its declaration; its methods are named after it.
fn install(dir: &TempDir, id: &str, words: &[&str], change: impl FnOnce(&mut Value)) {
    let mut declaration = demo(words);
    let method = |word: &&str| json!({"name": format!("{id}.{word}"), "scope": "read"});
    declaration["methods"] = words.iter().map(method).collect();
    change(&mut declaration);
    let folder = folder(dir, id);
    std::fs::create_dir_all(&folder).unwrap();
    // As an editor would that means well: whole or not at all.
    let beside = folder.join("next");
    std::fs::write(&beside, declaration.to_string()).unwrap();
    std::fs::rename(beside, folder.join("plugin.json")).unwrap();
}

impl House {
    fn spawn(dir: TempDir) -> Self {
        let listen = format!("unix:{}", dir.path().join("worker.sock").display());
        let process = Process::spawn(command(&dir).args(["--listen", &listen]));
        Self { process, dir }
    }

    async fn start(dir: TempDir) -> Self {
        let house = Self::spawn(dir);
        house.process.log.shows("listening").await;
        house
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("worker.sock")
    }

    async fn client(&self) -> WebSocket {
        let mut socket = WebSocket::open(&self.socket()).await;
        socket.connect().await;
        socket
    }

    /// What a probe is told.
    async fn ready(&self) -> (u16, Value) {
        let mut client = Client::connect(&self.socket()).await;
        client.send(get("/ready").as_bytes()).await;
        let reply = client.reply().await;
        (reply.status, reply.json())
    }

    /// Waits until a probe is told this.
    async fn until_ready_is(&self, status: u16) -> Value {
        let told = async {
            loop {
                let (now, body) = self.ready().await;
                if now == status {
                    return body;
                }
                tokio::task::yield_now().await;
            }
        };
        within("readiness", told).await
    }
}

async fn ask(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    socket.send(&json!({"type": "req", "id": method, "method": method, "params": params})).await;
    loop {
        let frame = socket.frame().await;
        if frame["type"] == "res" {
            assert_eq!(frame["id"], method);
            return frame;
        }
    }
}

/// Calls until the answer is what it should be.
async fn until(
    socket: &mut WebSocket,
    (method, params): (&str, Value),
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let asked = async {
        loop {
            let answer = ask(socket, method, params.clone()).await;
            if wanted(&answer) {
                return answer;
            }
            assert_ne!(answer["error"]["message"], format!("unknown method: {method}"), "{answer}");
        }
    };
    within(method, asked).await
}

fn is_ok(answer: &Value) -> bool {
    answer["ok"] == true
}

fn assert_come_back(answer: &Value) {
    assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
    assert_eq!(answer["error"]["retryable"], true, "{answer}");
    assert!(answer["error"]["retryAfterMs"].as_u64() > Some(0), "{answer}");
}

fn assert_invalid(answer: &Value, words: &str) {
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
}

async fn pid_of(socket: &mut WebSocket, id: &str) -> Pid {
    let who = ask(socket, &format!("{id}.who"), json!({})).await;
    Pid::from_raw(who["payload"]["pid"].as_i64().unwrap().try_into().unwrap())
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn advertised(house: &House) -> Vec<String> {
    let mut socket = WebSocket::open(&house.socket()).await;
    let hello = socket.connect().await;
    serde_json::from_value(hello["features"]["methods"].clone()).unwrap()
}

#[tokio::test]
async fn what_is_advertised_can_be_called_and_is_answered_by_the_plugin() {
    let dir = dir();
    install(&dir, "one", &["echo", "who"], |_| ());
    install(&dir, "two", &["echo"], |_| ());
    let house = House::start(dir).await;
    let advertised = advertised(&house).await;
    let mut socket = house.client().await;
    for name in &advertised {
        let answer = ask(&mut socket, name, json!({"no": "such"})).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.starts_with("unknown method"), "{name}: {answer}");
    }
    for name in ["one.echo", "two.echo"] {
        assert!(advertised.iter().any(|one| one == name), "{advertised:?}");
        let answer = ask(&mut socket, name, json!({"a": [1, null, "ä"]})).await;
        assert_eq!(answer["payload"], json!({"a": [1, null, "ä"]}), "{answer}");
    }
    assert_invalid(&ask(&mut socket, "two.who", json!({})).await, "unknown method: two.who");
}

#[tokio::test]
async fn the_plugin_that_ships_is_declared_well() {
    let dir = dir();
    let folder = folder(&dir, "demo");
    std::fs::create_dir_all(&folder).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo-plugin/plugin.json");
    std::fs::copy(shipped, folder.join("plugin.json")).unwrap();
    std::os::unix::fs::symlink(program(), folder.join("demo-plugin")).unwrap();
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let said = ask(&mut socket, "demo.wait", json!({"ms": 1})).await;
    assert_eq!(said["payload"], json!({"ms": 1}), "{said}");
}

#[tokio::test]
async fn a_plugin_that_is_killed_takes_its_own_methods_with_it_and_comes_back() {
    let dir = dir();
    install(&dir, "mortal", &["who", "echo"], |_| ());
    install(&dir, "other", &["who"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let (mortal, other) = (pid_of(&mut socket, "mortal").await, pid_of(&mut socket, "other").await);
    kill(mortal, Signal::SIGKILL).unwrap();
    let call = ("mortal.echo", json!({}));
    let answer = until(&mut socket, call.clone(), |answer| answer["error"]["retryable"] == true);
    assert_come_back(&answer.await);
    let listed = ask(&mut socket, "plugins.list", json!({})).await;
    let states = |listed: &Value| {
        let plugins = listed["payload"]["plugins"].as_array().unwrap().clone();
        plugins.iter().map(|plugin| plugin["state"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(states(&listed)[1], "running", "{listed}");
    assert!(advertised(&house).await.contains(&"mortal.echo".to_owned()));
    until(&mut socket, call, is_ok).await;
    assert_eq!(pid_of(&mut socket, "other").await, other);
    assert_ne!(pid_of(&mut socket, "mortal").await, mortal);
}

#[tokio::test]
async fn a_call_whose_plugin_ends_is_told_that_nobody_knows() {
    let dir = dir();
    install(&dir, "demo", &["exit", "echo"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let answer = ask(&mut socket, "demo.exit", json!({})).await;
    assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("whether it was done is unknown"), "{message}");
    house.process.log.shows("it was asked to end").await;
    until(&mut socket, ("demo.echo", json!({})), is_ok).await;
}

#[tokio::test]
async fn plugins_that_claim_one_method_are_both_named_and_neither_is_loaded() {
    let dir = dir();
    install(&dir, "one", &["echo"], |_| ());
    install(&dir, "two", &["echo"], |d| d["methods"][0]["name"] = json!("one.echo"));
    install(&dir, "three", &["echo"], |_| ());
    install(&dir, "four", &["echo"], |d| d["methods"][0]["name"] = json!("agents.list"));
    let house = House::start(dir).await;
    let both = r#"the plugins "one" and "two" both claim the method "one.echo""#;
    let mut socket = house.client().await;
    let listed = ask(&mut socket, "plugins.list", json!({})).await;
    let plugins = listed["payload"]["plugins"].as_array().unwrap();
    let of = |id: &str| plugins.iter().find(|plugin| plugin["id"] == id).unwrap();
    assert_eq!((&of("one")["state"], &of("one")["error"]), (&json!("refused"), &json!(both)));
    assert_eq!(of("two")["error"], both);
    let gateway =
        "the plugin \"four\" claims the method \"agents.list\", and so does the gateway itself";
    assert_eq!(of("four")["error"], gateway);
    assert!(is_ok(&ask(&mut socket, "three.echo", json!({})).await));
    assert!(is_ok(&ask(&mut socket, "agents.list", json!({})).await));
    assert_invalid(&ask(&mut socket, "one.echo", json!({})).await, "unknown method");
}

#[tokio::test]
async fn a_declaration_that_is_wrong_is_placed_and_stops_nobody_else() {
    let dir = dir();
    install(&dir, "good", &["echo"], |_| ());
    std::fs::create_dir_all(folder(&dir, "bad")).unwrap();
    let path = folder(&dir, "bad").join("plugin.json");
    std::fs::write(&path, "{\n  \"command\": [\"x\"],\n  \"colour\": 1\n}").unwrap();
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let listed = ask(&mut socket, "plugins.list", json!({})).await;
    let error = listed["payload"]["plugins"][1]["error"].as_str().unwrap();
    assert!(error.ends_with("bad/plugin.json:3:3: colour: this key is not known"), "{error}");
    assert!(is_ok(&ask(&mut socket, "good.echo", json!({})).await));
    let refused = ask(&mut socket, "plugins.reload", json!({})).await;
    assert_invalid(&refused, "plugin.json:3:3: colour: this key is not known");
    assert!(is_ok(&ask(&mut socket, "good.echo", json!({})).await));
}

#[tokio::test]
async fn a_worker_is_ready_when_its_required_plugin_is_and_says_which_one_is_not() {
    let dir = dir();
    let gate = dir.path().join("gate");
    install(&dir, "late", &["who"], |d| {
        d["required"] = json!(true);
        d["startTimeoutMs"] = json!(60_000);
        d["environment"] = json!({"DEMO_GATE": gate});
    });
    install(&dir, "early", &["who"], |_| ());
    let house = House::spawn(dir);
    house.process.log.shows("a plugin runs plugin=early").await;
    assert!(!house.process.log.text().contains("listening"), "it is ready without its plugin");
    std::fs::write(&gate, "").unwrap();
    house.process.log.shows("listening").await;
    assert_eq!(house.ready().await.0, 200);
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "late").await;
    std::fs::remove_file(&gate).unwrap();
    kill(pid, Signal::SIGKILL).unwrap();
    let told = house.until_ready_is(503).await;
    assert_eq!(told["failing"], json!(["plugin:late"]));
    let mut client = Client::connect(&house.socket()).await;
    client.send(get("/startupz").as_bytes()).await;
    assert_eq!(client.reply().await.status, 200, "it has started all the same");
    std::fs::write(&gate, "").unwrap();
    house.until_ready_is(200).await;
}

#[tokio::test]
async fn a_worker_whose_required_plugin_was_left_out_is_never_ready_and_ends_when_it_is_told_to() {
    let dir = dir();
    install(&dir, "one", &["echo"], |d| d["methods"][0]["name"] = json!("a.b"));
    install(&dir, "two", &["echo"], |d| {
        d["methods"][0]["name"] = json!("a.b");
        d["required"] = json!(true);
    });
    let mut house = House::spawn(dir);
    house.process.log.shows("both claim the method").await;
    house.process.signal(Signal::SIGTERM);
    assert!(house.process.exited().await.success());
    assert!(!house.process.log.whole().await.contains("listening"));
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up_and_the_plugin_told() {
    let dir = dir();
    let journal = dir.path().join("journal");
    install(&dir, "demo", &["wait", "echo"], |d| {
        d["methods"][0]["timeoutMs"] = json!(50);
        d["environment"] = json!({"DEMO_JOURNAL": journal});
    });
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let answer = ask(&mut socket, "demo.wait", json!({"ms": 60_000})).await;
    assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("did not answer within 50ms"), "{message}");
    assert!(is_ok(&ask(&mut socket, "demo.echo", json!({})).await), "it is as alive as before");
    within("the plugin to be told", async {
        while !std::fs::read_to_string(&journal).unwrap().contains("cancel") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_says_what_is_no_message_or_too_long_a_line_is_started_again() {
    for line in ["this is no JSON".to_owned(), "[]".to_owned(), "x".repeat(1024 * 1024 + 1)] {
        let dir = dir();
        install(&dir, "demo", &["say", "who"], |_| ());
        let house = House::start(dir).await;
        let mut socket = house.client().await;
        let pid = pid_of(&mut socket, "demo").await;
        let answer = ask(&mut socket, "demo.say", json!({"line": line})).await;
        assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
        let who = until(&mut socket, ("demo.who", json!({})), is_ok).await;
        assert_ne!(who["payload"]["pid"], pid.as_raw(), "{who}");
        house.process.log.shows("a plugin does not run").await;
    }
}

#[tokio::test]
async fn what_a_plugin_refuses_is_refused_in_its_own_words() {
    let dir = dir();
    install(&dir, "demo", &["deny"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    for (code, known_as) in
        [(-32602, "INVALID_REQUEST"), (7, "INVALID_REQUEST"), (-32000, "UNAVAILABLE")]
    {
        let answer = ask(&mut socket, "demo.deny", json!({"code": code})).await;
        let expected = json!({
            "code": known_as, "message": "it would rather not",
            "details": {"plugin": "demo", "code": code},
        });
        assert_eq!(answer["error"], expected);
    }
}

#[tokio::test]
async fn a_plugin_is_given_no_token_and_nothing_that_it_did_not_ask_for() {
    let dir = dir();
    install(&dir, "plain", &["who"], |_| ());
    install(&dir, "trusted", &["who"], |d| d["inherit"] = json!(["HOLDFAST_TOKEN"]));
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let environment = |who: &Value| -> Vec<String> {
        serde_json::from_value(who["payload"]["environment"].clone()).unwrap()
    };
    let plain = environment(&ask(&mut socket, "plain.who", json!({})).await);
    assert_eq!(plain, ["HOLDFAST_PLUGIN"], "the tests' worker has nothing else that is passed on");
    let trusted = environment(&ask(&mut socket, "trusted.who", json!({})).await);
    assert!(trusted.contains(&"HOLDFAST_TOKEN".to_owned()), "{trusted:?}");
    let pid = pid_of(&mut socket, "plain").await;
    let descriptors = |pid: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect()
    };
    // What whoever started the tests gave to everybody below is not the worker's.
    let (given, ours) = (descriptors(&pid.to_string()), descriptors("self"));
    assert_eq!(given.iter().filter(|target| !ours.contains(target)).count(), 3, "{given:?}");
    assert!(!given.iter().any(|target| target.starts_with("socket:")), "{given:?}");
    let group = nix::unistd::getpgid(Some(pid)).unwrap();
    assert_eq!(group, pid, "it leads a group of its own");
}

#[tokio::test]
async fn a_reload_adds_and_removes_methods_at_once_while_others_call() {
    let dir = dir();
    install(&dir, "stays", &["who", "echo"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "stays").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut caller, stopped) = (house.client().await, stopped.clone());
        callers.spawn(async move {
            let mut calls = 0;
            while !*stopped.borrow() {
                let answer = ask(&mut caller, "stays.echo", json!({"n": calls})).await;
                assert_eq!(answer["payload"], json!({"n": calls}), "{answer}");
                let answer = ask(&mut caller, "comes.echo", json!({})).await;
                let unknown = answer["error"]["message"] == "unknown method: comes.echo";
                assert!(is_ok(&answer) || unknown, "{answer}");
                calls += 1;
            }
            calls
        });
    }
    for round in 0..5 {
        install(&house.dir, "comes", &["echo"], |d| d["timeoutMs"] = json!(1000 + round));
        let answer = ask(&mut socket, "plugins.reload", json!({})).await;
        assert_eq!(answer["payload"], json!({"started": ["comes"], "ended": []}), "{answer}");
        assert!(is_ok(&ask(&mut socket, "comes.echo", json!({})).await));
        // Changed, it is replaced, and nobody notices.
        install(&house.dir, "comes", &["echo"], |d| d["timeoutMs"] = json!(2000 + round));
        let answer = ask(&mut socket, "plugins.reload", json!({})).await;
        assert_eq!(
            answer["payload"],
            json!({"started": ["comes"], "ended": ["comes"]}),
            "{answer}"
        );
        std::fs::remove_dir_all(folder(&house.dir, "comes")).unwrap();
        let answer = ask(&mut socket, "plugins.reload", json!({})).await;
        assert_eq!(answer["payload"], json!({"started": [], "ended": ["comes"]}), "{answer}");
        assert_invalid(&ask(&mut socket, "comes.echo", json!({})).await, "unknown method");
    }
    stop.send_replace(true);
    while let Some(calls) = callers.join_next().await {
        assert!(calls.unwrap() > 0, "somebody never called");
    }
    assert_eq!(pid_of(&mut socket, "stays").await, pid, "what did not change was left alone");
}

#[tokio::test]
async fn a_call_under_way_is_answered_by_the_plugin_that_was_removed() {
    let dir = dir();
    let journal = dir.path().join("journal");
    install(&dir, "demo", &["wait", "who"], |d| {
        d["environment"] = json!({"DEMO_JOURNAL": journal});
    });
    let house = House::start(dir).await;
    let (mut caller, mut socket) = (house.client().await, house.client().await);
    let pid = pid_of(&mut socket, "demo").await;
    caller
        .send(&json!({"type": "req", "id": "1", "method": "demo.wait", "params": {"ms": 300}}))
        .await;
    until(&mut socket, ("plugins.list", json!({})), |listed| {
        listed["payload"]["plugins"][0]["inFlight"] == 1
    })
    .await;
    std::fs::remove_dir_all(folder(&house.dir, "demo")).unwrap();
    assert!(is_ok(&ask(&mut socket, "plugins.reload", json!({})).await));
    assert_invalid(&ask(&mut socket, "demo.who", json!({})).await, "unknown method");
    assert!(is_ok(&caller.frame().await));
    within("the plugin to end", async {
        while kill(pid, None).is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(std::fs::read_to_string(&journal).unwrap().contains("stop"), "it was asked to");
}

#[tokio::test]
async fn a_reload_that_is_refused_leaves_everything_as_it_was() {
    let dir = dir();
    install(&dir, "one", &["who", "echo"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "one").await;
    install(&house.dir, "two", &["echo"], |d| d["methods"][0]["name"] = json!("one.echo"));
    let refused = ask(&mut socket, "plugins.reload", json!({})).await;
    assert_invalid(&refused, r#"the plugins "one" and "two" both claim the method "one.echo""#);
    install(&house.dir, "two", &["echo"], |d| d["command"] = json!(["./not-there"]));
    let refused = ask(&mut socket, "plugins.reload", json!({})).await;
    assert_eq!(refused["error"]["code"], "UNAVAILABLE", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("not-there"), "{refused}");
    // One that is not what it says: it answers `echo`, and declares something else.
    install(&house.dir, "two", &["echo"], |d| d["methods"][0]["name"] = json!("two.other"));
    let refused = ask(&mut socket, "plugins.reload", json!({})).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("two.other"), "{refused}");
    assert_eq!(pid_of(&mut socket, "one").await, pid);
    let listed = ask(&mut socket, "plugins.list", json!({})).await;
    assert_eq!(listed["payload"]["plugins"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[tokio::test]
async fn plugins_go_on_through_a_change_of_the_configuration_which_may_forbid_them() {
    let dir = dir();
    install(&dir, "demo", &["who"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "demo").await;
    let created = json!({"name": "ops", "workspace": house.dir.path().join("ops")});
    assert!(is_ok(&ask(&mut socket, "agents.create", created).await));
    assert_eq!(pid_of(&mut socket, "demo").await, pid);
    let config = house.dir.path().join("state/openclaw.json");
    std::fs::write(&config, "{plugins: {deny: ['demo']}}").unwrap();
    until(&mut socket, ("agents.list", json!({})), |listed| {
        listed["payload"]["agents"].as_array().map(Vec::len) == Some(1)
    })
    .await;
    assert!(is_ok(&ask(&mut socket, "plugins.reload", json!({})).await));
    assert_invalid(&ask(&mut socket, "demo.who", json!({})).await, "unknown method");
}

#[tokio::test]
async fn an_agent_whose_model_is_a_plugins_harness_is_run_by_it() {
    let dir = dir();
    let journal = dir.path().join("journal");
    install(&dir, "demo", &[], |d| {
        d["harnesses"] = json!(["parrot"]);
        d["environment"] = json!({
            "DEMO_HARNESSES": "parrot", "DEMO_JOURNAL": journal, "DEMO_PAUSE_MS": "20",
        });
    });
    std::fs::write(
        dir.path().join("state/openclaw.json"),
        "{agents: {list: [{id: 'main', model: 'plugin-harness/parrot'}, {id: 'lost', model: 'plugin-harness/x'}]}}",
    )
    .unwrap();
    let house = House::start(dir).await;
    let mut client = Client::connect(&house.socket()).await;
    let complete = |text: &str| crate::rig::completion(&crate::rig::saying(text), "");
    client.send(complete("hello there").as_bytes()).await;
    let said = client.reply().await.json();
    assert_eq!(said["choices"][0]["message"]["content"], "hello hello there there ", "{said}");

    // A run that is aborted is told to the plugin.
    let mut socket = house.client().await;
    let many = "word ".repeat(10_000);
    let params = json!({"sessionKey": "main", "message": many, "idempotencyKey": "k"});
    assert!(is_ok(&ask(&mut socket, "chat.send", params).await));
    until(&mut socket, ("plugins.list", json!({})), |listed| {
        listed["payload"]["plugins"][0]["inFlight"] == 1
    })
    .await;
    let aborted = ask(&mut socket, "chat.abort", json!({"sessionKey": "main"})).await;
    assert_eq!(aborted["payload"]["runIds"], json!(["k"]), "{aborted}");
    within("the plugin to be told", async {
        while !std::fs::read_to_string(&journal).unwrap().contains("cancel") {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let params = json!({"sessionKey": "agent:lost:main", "message": "hi", "idempotencyKey": "l"});
    assert!(is_ok(&ask(&mut socket, "chat.send", params).await));
    let ended = ask(&mut socket, "agent.wait", json!({"runId": "l"})).await;
    assert_eq!(ended["payload"]["status"], "error", "{ended}");
    assert!(ended.to_string().contains("no plugin has a harness"), "{ended}");
}

#[tokio::test]
async fn a_plugin_that_does_not_say_how_it_is_is_started_again() {
    let dir = dir();
    install(&dir, "demo", &["who"], |d| d["healthIntervalMs"] = json!(10));
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "demo").await;
    kill(pid, Signal::SIGSTOP).unwrap();
    house.process.log.shows("it did not say within").await;
    let who = until(&mut socket, ("demo.who", json!({})), is_ok).await;
    assert_ne!(who["payload"]["pid"], pid.as_raw());
}

#[tokio::test]
async fn plugins_end_with_their_worker() {
    let dir = dir();
    install(&dir, "demo", &["who"], |_| ());
    install(&dir, "stuck", &["who"], |_| ());
    let mut house = House::start(dir).await;
    let mut socket = house.client().await;
    let demo = pid_of(&mut socket, "demo").await;
    let stuck = pid_of(&mut socket, "stuck").await;
    kill(stuck, Signal::SIGSTOP).unwrap();
    drop(socket);
    house.process.signal(Signal::SIGTERM);
    house.process.exited().await;
    for pid in [demo, stuck] {
        within("the plugin to end", async {
            while std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
