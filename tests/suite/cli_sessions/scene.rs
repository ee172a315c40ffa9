//! A front whose workers' agents are the fixture program, and a client that talks to it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use holdfast_tests::rig::{Front, Process, Setup, Takeover, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::quick;

/// The front, and where its agents work.
pub(super) struct Scene {
    pub(super) front: Front,
    dir: TempDir,
    clients: AtomicUsize,
}

/// A client, and how many turns it has asked for.
pub(super) struct Client {
    pub(super) socket: BareWebSocket,
    name: String,
    asked: usize,
}

/// How a turn has ended: its answer, or the words in which it has failed.
pub(super) type Answer = Result<String, String>;

impl Scene {
    pub(super) async fn start() -> Self {
        Self::with(quick).await
    }

    /// With a front that differs in what `choose` says.
    pub(super) async fn with(choose: impl FnOnce(Setup) -> Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"agents": {"defaults": {
            "model": "claude-cli/sonnet",
            "workspace": dir.path().join("workspace"),
            "cliBackends": {"claude-cli": {"command": env!("CARGO_BIN_EXE_fixture-cli")}},
        }}});
        let path = dir.path().join("openclaw.json");
        fs::write(&path, config.to_string()).unwrap();
        let front = Front::with(|setup| {
            choose(setup)
                .environment("OPENCLAW_CONFIG_PATH", &path)
                .environment("HOLDFAST_STATE_DIR", dir.path().join("state"))
        })
        .await;
        Self { front, dir, clients: AtomicUsize::new(0) }
    }

    pub(super) async fn client(&self) -> Client {
        let name = format!("client-{}", self.clients.fetch_add(1, Ordering::Relaxed));
        Client { socket: BareWebSocket::connected(&self.front.address()).await, name, asked: 0 }
    }

    /// The arguments of each program that was started.
    pub(super) fn starts(&self) -> Vec<String> {
        let starts = fs::read_to_string(self.dir.path().join("workspace/starts"));
        starts.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The directories that programs have now, and what says whose they are.
    pub(super) fn scratch(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.dir.path().join("state/cli")) else {
            return Vec::new();
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// The only program there is.
    ///
    /// # Panics
    /// When there is none, or another.
    #[track_caller]
    pub(super) fn program(&self) -> Process {
        let programs = self.programs();
        assert_eq!(programs.len(), 1, "{programs:?}");
        programs[0]
    }

    /// All programs there are.
    pub(super) fn programs(&self) -> Vec<Process> {
        let all = self.front.process().descendants().into_iter();
        let is_program = |process: &Process| {
            process.executable().is_some_and(|path| path.ends_with("fixture-cli"))
        };
        all.filter(|process| !process.is_gone() && is_program(process)).collect()
    }

    /// Ends when no program has a directory any more.
    pub(super) async fn swept(&self) {
        eventually("the directories are gone", async || self.scratch().is_empty().then_some(()))
            .await;
    }
}

impl Client {
    /// Asks for a turn, and does not wait for it.
    pub(super) async fn ask(&mut self, message: &str) -> String {
        self.ask_in("main", message).await
    }

    /// As [`Self::ask`], in another session.
    pub(super) async fn ask_in(&mut self, session: &str, message: &str) -> String {
        self.asked += 1;
        let run = format!("{}-{}", self.name, self.asked);
        let params = json!({"message": message, "sessionKey": session, "idempotencyKey": run});
        self.socket.send(&frame(Part::Text, call(&run, "agent", params))).await;
        run
    }

    /// A whole turn.
    pub(super) async fn turn(&mut self, message: &str) -> Answer {
        let run = self.ask(message).await;
        self.answer(&run).await
    }

    /// A whole turn in another session.
    pub(super) async fn turn_in(&mut self, session: &str, message: &str) -> Answer {
        let run = self.ask_in(session, message).await;
        self.answer(&run).await
    }

    /// The answer to a turn that was asked for.
    pub(super) async fn answer(&mut self, run: &str) -> Answer {
        loop {
            let said = self.socket.text().await.expect("the connection lives");
            if said["id"] == run && said["payload"]["status"] != "accepted" {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return match said["ok"] == true {
                    true => Ok(text(&said["payload"]["result"]["payloads"][0]["text"])),
                    false => Err(text(&said["error"]["message"])),
                };
            }
        }
    }

    /// The next `chat` event of a run in which this is the state.
    pub(super) async fn hears(&mut self, run: &str, state: &str) -> Value {
        loop {
            let said = self.socket.text().await.expect("the connection lives");
            let payload = &said["payload"];
            if said["event"] == "chat" && payload["runId"] == run && payload["state"] == state {
                return payload.clone();
            }
        }
    }

    /// What a method answers.
    pub(super) async fn told(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = format!("call-{}", self.asked);
        self.socket.send(&frame(Part::Text, call(&id, method, params))).await;
        loop {
            let said = self.socket.text().await.expect("the connection lives");
            if said["id"] == id.as_str() {
                assert_eq!(said["ok"], true, "{said}");
                return said["payload"].clone();
            }
        }
    }
}

/// How many sessions the incumbent says that the successor goes on with.
pub(super) fn sessions(takeover: &Takeover) -> u64 {
    let drained = takeover.event("drained").unwrap_or_else(|| panic!("no drain: {takeover:?}"));
    drained["sessions"].as_u64().unwrap()
}
