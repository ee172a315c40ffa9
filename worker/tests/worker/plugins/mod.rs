//! Plugins of a worker that has no front: the example that ships, in as many copies as a test needs.

mod answers;
mod deaths;
mod loading;
mod reloads;

use std::path::PathBuf;

use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

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
        let mut command = command(&dir);
        Self::spawn_by(&mut command, dir)
    }

    fn spawn_by(command: &mut Command, dir: TempDir) -> Self {
        let listen = format!("unix:{}", dir.path().join("worker.sock").display());
        let process = Process::spawn(command.args(["--listen", &listen]));
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
