//! Agents that are programs: their sessions, their directories, and what is told when they fail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agents::told;
use crate::rig::{Process, WebSocket, Worker, command, saying, within};

/// The program that Cargo has built as an example.
fn fixture() -> PathBuf {
    let worker = Path::new(env!("CARGO_BIN_EXE_holdfast-worker"));
    let built = worker.parent().unwrap().join("examples/fixture-cli");
    assert!(built.exists(), "`cargo test -p holdfast-worker` builds {}", built.display());
    built
}

/// A configuration whose agents are `claude-cli`'s, which is the fixture.
fn config() -> Value {
    json!({"agents": {"defaults": {
        "model": "claude-cli/sonnet",
        "cliBackends": {"claude-cli": {"command": fixture()}},
    }}})
}

/// A worker whose agents are programs.
struct Scene {
    worker: Worker,
}

impl Scene {
    async fn start() -> Self {
        Self::configured(|_| {}).await
    }

    async fn configured(change: impl FnOnce(&mut Value)) -> Self {
        let mut config = config();
        change(&mut config["agents"]["defaults"]);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        std::fs::write(dir.path().join("state/openclaw.json"), config.to_string()).unwrap();
        Self { worker: started(dir).await }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.worker.dir.path().join("state").join(path)
    }

    async fn socket(&self) -> WebSocket {
        let mut socket = self.worker.websocket().await;
        socket.connect().await;
        socket
    }

    /// The arguments of each program that was started.
    fn starts(&self) -> Vec<String> {
        let starts = std::fs::read_to_string(self.at("workspace/starts")).unwrap_or_default();
        starts.lines().map(str::to_owned).collect()
    }

    /// The directories that programs have now.
    fn directories(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.at("cli")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    /// Ends when no program has a directory, nor anything that says so.
    async fn swept(&self) {
        let is_swept =
            || std::fs::read_dir(self.at("cli")).is_ok_and(|mut rest| rest.next().is_none());
        until("the directories are gone", is_swept).await;
    }

    /// Ends the worker, and says what it has logged.
    async fn end(mut self) -> String {
        self.worker.process.signal(Signal::SIGTERM);
        assert!(self.worker.process.exited().await.success());
        self.swept().await;
        self.worker.process.log.whole().await
    }

    /// Ends the worker as whoever runs out of memory does, and starts another in its place.
    async fn replaced(mut self, signal: Signal) -> Self {
        self.worker.process.signal(signal);
        self.worker.process.exited().await;
        let Worker { dir, .. } = self.worker;
        Self { worker: started(dir).await }
    }
}

async fn started(dir: TempDir) -> Worker {
    let listen = format!("unix:{}", dir.path().join("worker.sock").display());
    let process = Process::spawn(command(&dir).args(["--listen", &listen]));
    process.log.shows("listening").await;
    Worker { process, dir }
}

/// Ends when this holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !holds() {
            looks.tick().await;
        }
    };
    within(what, wait).await;
}

/// Whether a process is there, zombies apart.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

/// What an agent answers in the end, or the words in which it fails.
async fn turn(socket: &mut WebSocket, message: &str) -> Result<String, String> {
    let run = uuid::Uuid::new_v4().to_string();
    let params = json!({"message": message, "idempotencyKey": run});
    socket.send(&json!({"type": "req", "id": run, "method": "agent", "params": params})).await;
    loop {
        let frame = socket.frame().await;
        if frame["id"] == run.as_str() && frame["payload"]["status"] != "accepted" {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            return match frame["ok"] == true {
                true => Ok(text(&frame["payload"]["result"]["payloads"][0]["text"])),
                false => Err(text(&frame["error"]["message"])),
            };
        }
    }
}

#[tokio::test]
async fn turns_of_a_session_are_answered_by_one_program_that_keeps_its_directory() {
    let scene = Scene::start().await;
    let mut socket = scene.socket().await;
    assert_eq!(turn(&mut socket, "one").await.as_deref(), Ok("hello turn 1: one"));
    let directory = scene.directories();
    assert_eq!(directory.len(), 1);
    // It reads its directory at each turn.
    assert_eq!(turn(&mut socket, "two").await.as_deref(), Ok("hello turn 2: two"));
    let tools = turn(&mut socket, "tools").await.unwrap();
    assert!(tools.contains(r#""tools":[]"#), "{tools}");
    assert_eq!((scene.starts().len(), scene.directories()), (1, directory));
    let session = told(&mut socket, "sessions.describe", json!({"key": "main"})).await;
    assert_eq!(session["session"]["inputTokens"], 3 * 3, "{session}");
    let words = ["hello turn 1: one", "hello turn 2: two", &tools].map(str::len);
    assert_eq!(session["session"]["outputTokens"], words.iter().sum::<usize>(), "{session}");
    drop(socket);
    scene.end().await;
}

#[tokio::test]
async fn a_completion_is_answered_by_a_program_that_is_told_what_came_before() {
    let scene = Scene::start().await;
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let mut ask = saying("what did I say?");
    ask["messages"] = json!([said("user", "a"), said("assistant", "b"), said("user", "c")]);
    let answer = scene.worker.complete(&ask).await;
    let content = answer.json()["choices"][0]["message"]["content"].clone();
    assert_eq!(
        content,
        "hello turn 1: [What was said before]\nuser: a\n\nassistant: b\n\n[What is said now]\nc"
    );
    scene.end().await;
}

#[tokio::test]
async fn what_a_program_would_be_started_differently_for_starts_another_that_resumes() {
    let scene = Scene::start().await;
    let mut socket = scene.socket().await;
    assert_eq!(turn(&mut socket, "one").await.as_deref(), Ok("hello turn 1: one"));
    std::fs::write(scene.at("workspace/SOUL.md"), "be kind").unwrap();
    let skill = scene.at("workspace/skills/weather");
    std::fs::create_dir_all(&skill).unwrap();
    std::fs::write(skill.join("SKILL.md"), "look up").unwrap();
    assert_eq!(turn(&mut socket, "two").await.as_deref(), Ok("hello turn 2: two"));
    let starts = scene.starts();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!(starts[1].contains("--resume conversation-"), "{starts:?}");
    let [directory] = scene.directories().try_into().expect("the first one's is gone with it");
    let given = directory.join("plugin/skills/weather/SKILL.md");
    assert_eq!(std::fs::read_to_string(given).unwrap(), "look up");
    drop(socket);
    // What is only linked to stays.
    let scene = scene.replaced(Signal::SIGTERM).await;
    scene.swept().await;
    assert!(skill.join("SKILL.md").exists());
    scene.end().await;
}

#[tokio::test]
async fn a_new_configuration_holds_from_the_next_turn_on() {
    let scene = Scene::start().await;
    let mut socket = scene.socket().await;
    assert_eq!(turn(&mut socket, "one").await.as_deref(), Ok("hello turn 1: one"));
    let mut changed = config();
    let defaults = &mut changed["agents"]["defaults"];
    defaults["cliBackends"]["claude-cli"]["env"] = json!({"KEY": "hunter2-and-more"});
    defaults["cliBackends"]["mine"] =
        json!({"command": fixture(), "args": ["--plain"], "output": "text"});
    changed["agents"]["list"] = json!([{"id": "main"}, {"id": "other", "model": "mine"}]);
    std::fs::write(scene.at("openclaw.json"), changed.to_string()).unwrap();
    scene.worker.process.log.shows("the configuration").await;
    let agents = async {
        loop {
            let listed = told(&mut socket, "agents.list", json!({})).await;
            if listed["agents"].as_array().unwrap().len() == 2 {
                return;
            }
        }
    };
    within("the new configuration", agents).await;
    let failed = turn(&mut socket, "crash hunter2-and-more").await.unwrap_err();
    let words = "claude-cli/sonnet failed: it exited with 3 before it had answered: [redacted]";
    assert_eq!(failed, words);
    let starts = scene.starts();
    assert!(starts.len() == 2 && starts[1].contains("--resume"), "{starts:?}");
    let mut ask = saying("say this");
    ask["model"] = json!("openclaw/other");
    let answer = scene.worker.complete(&ask).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "say this\n1", "{}", answer.body);
    drop(socket);
    let log = scene.end().await;
    assert!(!log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_program_that_ends_with_its_turn_has_its_directory_for_as_long() {
    let one_shot = json!({
        "command": fixture(), "args": ["-p"], "resumeArgs": ["--resume", "{sessionId}"],
        "output": "jsonl", "input": "stdin", "bundleMcp": true, "sessionArg": "--session-id",
    });
    let scene = Scene::configured(|defaults| {
        defaults["model"] = json!("mine/m");
        defaults["cliBackends"]["mine"] = one_shot;
    })
    .await;
    let mut socket = scene.socket().await;
    for n in 1..=2 {
        let said = turn(&mut socket, "again").await;
        assert_eq!(said, Ok(format!("hello turn {n}: again")));
        assert_eq!(scene.directories().len(), 0);
    }
    let starts = scene.starts();
    assert!(starts[0].contains("--session-id") && starts[1].contains("--resume"), "{starts:?}");
    drop(socket);
    scene.end().await;
}

#[tokio::test]
async fn silence_is_told_for_what_it_is_and_so_is_a_turn_without_end() {
    let brief = json!({"noOutputTimeoutMs": 1000});
    let hasty = json!({
        "command": fixture(), "output": "jsonl", "input": "stdin",
        "liveSession": "claude-stdio", "reliability": {"watchdog": {"fresh": brief, "resume": brief}},
    });
    let scene = Scene::configured(|defaults| {
        defaults["model"] = json!({"primary": "hasty/m", "fallbacks": ["gone/x"]});
        defaults["cliBackends"]["hasty"] = hasty;
    })
    .await;
    let mut socket = scene.socket().await;
    let failed = turn(&mut socket, "silent").await.unwrap_err();
    assert_eq!(
        failed,
        "no model answered: hasty/m: no output for 1 s; gone/x: not asked: harness \"gone\" is not registered"
    );
    let kept = told(&mut socket, "sessions.get", json!({"key": "main"})).await;
    assert_eq!(kept["modelFallback"]["decisions"][0]["reason"], "no-output");
    drop(socket);
    scene.end().await;

    let scene = Scene::configured(|defaults| defaults["timeoutSeconds"] = json!(1)).await;
    let mut socket = scene.socket().await;
    let failed = turn(&mut socket, "silent").await.unwrap_err();
    assert_eq!(failed, "claude-cli/sonnet failed: no end within 1 s");
    drop(socket);
    scene.end().await;
}

#[tokio::test]
async fn a_crash_is_told_in_the_programs_words_and_what_was_said_stays() {
    let scene = Scene::configured(|defaults| {
        defaults["model"] = json!({"primary": "claude-cli/sonnet", "fallbacks": ["echo"]});
    })
    .await;
    let mut socket = scene.socket().await;
    turn(&mut socket, "one").await.unwrap();
    let failed = turn(&mut socket, "crash the disk is full").await.unwrap_err();
    assert_eq!(
        failed,
        "claude-cli/sonnet failed: it exited with 3 before it had answered: the disk is full; not asked: echo"
    );
    scene.swept().await;
    let history = told(&mut socket, "sessions.get", json!({"key": "main"})).await;
    assert_eq!(history["messages"][3]["content"][0]["text"], "I was about to ", "{history}");
    // Nothing is out of an answer that is refused: somebody else is asked.
    let said = turn(&mut socket, "refuse Credit balance is too low").await;
    assert_eq!(said.as_deref(), Ok("refuse Credit balance is too low"));
    let kept = told(&mut socket, "sessions.get", json!({"key": "main"})).await;
    assert_eq!(kept["modelFallback"]["decisions"][0]["reason"], "billing", "{kept}");
    drop(socket);
    scene.end().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_not_called_its_failure() {
    let scene = Scene::configured(|defaults| {
        defaults["cliBackends"]["claude-cli"]["command"] = json!("/nowhere/claude");
        defaults["cliBackends"]["odd"] = json!({"command": "x", "output": "yaml"});
        defaults["model"] = json!({"primary": "claude-cli/sonnet", "fallbacks": ["odd/m"]});
    })
    .await;
    let mut socket = scene.socket().await;
    let failed = turn(&mut socket, "hello").await.unwrap_err();
    assert!(
        failed.starts_with(
            "no model answered: claude-cli/sonnet: not asked: there is no program /nowhere/claude; odd/m: not asked: agents.defaults.cliBackends.odd: unknown variant `yaml`"
        ),
        "{failed}"
    );
    drop(socket);
    scene.end().await;
}

#[tokio::test]
async fn a_run_that_is_aborted_ends_its_program_and_the_next_turn_resumes() {
    let scene = Scene::start().await;
    let mut socket = scene.socket().await;
    turn(&mut socket, "one").await.unwrap();
    let params = json!({"sessionKey": "main", "message": "falter", "idempotencyKey": "1"});
    told(&mut socket, "chat.send", params).await;
    while socket.frame().await["event"] != "chat" {}
    let directory = scene.directories();
    let aborted = told(&mut socket, "chat.abort", json!({"sessionKey": "main"})).await;
    assert_eq!(aborted["runIds"], json!(["1"]));
    scene.swept().await;
    assert_eq!(turn(&mut socket, "two").await.as_deref(), Ok("hello turn 2: two"));
    let starts = scene.starts();
    assert!(starts.len() == 2 && starts[1].contains("--resume"), "{starts:?}");
    assert_ne!(scene.directories(), directory, "nothing is taken from the program before");
    drop(socket);
    scene.end().await;
}

#[tokio::test]
async fn a_session_that_is_reset_is_of_a_program_that_knows_nothing_of_it() {
    let scene = Scene::start().await;
    let mut socket = scene.socket().await;
    turn(&mut socket, "one").await.unwrap();
    turn(&mut socket, "two").await.unwrap();
    told(&mut socket, "sessions.reset", json!({"key": "main"})).await;
    assert_eq!(turn(&mut socket, "three").await.as_deref(), Ok("hello turn 1: three"));
    let starts = scene.starts();
    assert!(starts.len() == 2 && !starts[1].contains("--resume"), "{starts:?}");
    drop(socket);
    scene.end().await;
}

#[tokio::test]
async fn a_worker_that_follows_another_resumes_what_that_had_begun() {
    let scene = Scene::start().await;
    let mut socket = scene.socket().await;
    turn(&mut socket, "one").await.unwrap();
    drop(socket);
    let scene = scene.replaced(Signal::SIGTERM).await;
    scene.swept().await;
    let mut socket = scene.socket().await;
    assert_eq!(turn(&mut socket, "two").await.as_deref(), Ok("hello turn 2: two"));
    assert!(scene.starts()[1].contains("--resume"), "{:?}", scene.starts());
    drop(socket);
    scene.end().await;
}

#[tokio::test]
async fn what_a_worker_leaves_that_is_killed_is_ended_by_the_next_one() {
    let scene = Scene::start().await;
    let mut socket = scene.socket().await;
    turn(&mut socket, "one").await.unwrap();
    let child = turn(&mut socket, "child").await.unwrap();
    let params = json!({"sessionKey": "main", "message": "stubborn", "idempotencyKey": "1"});
    told(&mut socket, "chat.send", params).await;
    // It has said something by then, and does not listen any more.
    while socket.frame().await["event"] != "chat" {}
    assert!(runs(&child) && scene.directories().len() == 1);
    drop(socket);
    let scene = scene.replaced(Signal::SIGKILL).await;
    scene.swept().await;
    until("the program and what it had started are gone", || !runs(&child)).await;
    let mut socket = scene.socket().await;
    assert_eq!(turn(&mut socket, "two").await.as_deref(), Ok("hello turn 2: two"));
    assert!(scene.starts()[1].contains("--resume"), "{:?}", scene.starts());
    drop(socket);
    scene.end().await;
}
