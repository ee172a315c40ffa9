//! Live sessions of CLI agents: what the worker adds to a turn, what a session costs it, and how long one stands still when it
//! moves.
//!
//! Nobody outside sees a session frozen but its own program, whose tools nobody answers then. So a prober asks for them all the
//! time, as the program would: the longest time that it waits for an answer has the pause in it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use holdfast_tests::rig::{Front, Process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::figures::Durations;
use crate::ledger::Promise;
use crate::report::{Goal, Report};

/// How many turns of each kind, one after the other.
const TURNS: usize = 500;
/// How many of both come before those that are counted.
const WARM: usize = 50;
/// How many sessions live.
const SESSIONS: usize = 64;
/// How many takeovers.
const TAKEOVERS: usize = 20;
/// The most that a worker may add to half of the turns.
const OVERHEAD_GOAL: Duration = Duration::from_millis(2);
/// The most memory of a session, in bytes.
const MEMORY_GOAL: u64 = 1024 * 1024;
/// The longest pause.
const PAUSE_GOAL: Duration = Duration::from_millis(5);

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "cli-sessions: live sessions of CLI agents",
        &format!(
            "A program that answers at once. {TURNS} turns each, bare and through the worker; {SESSIONS} sessions; \
             {TAKEOVERS} takeovers of one, whose tools are asked for all the time."
        ),
    );
    let dir = tempfile::tempdir().expect("a directory can be made");
    let front = front(&dir).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    turns(report, &mut socket, dir.path()).await;
    memory(report, &front, &mut socket).await;
    drop(front);
    pauses(report).await;
    Promise::Kept
}

async fn front(dir: &TempDir) -> Front {
    let config = json!({"agents": {"defaults": {
        "model": "claude-cli/sonnet",
        "workspace": dir.path().join("workspace"),
        "cliBackends": {"claude-cli": {"command": env!("CARGO_BIN_EXE_fixture-cli")}},
    }}});
    let path = dir.path().join("openclaw.json");
    std::fs::write(&path, config.to_string()).expect("the configuration can be written");
    let sessions = SESSIONS.to_string();
    Front::with(|setup| {
        let setup = setup.flag("--soak", "20ms").environment("OPENCLAW_CONFIG_PATH", path);
        setup.environment("HOLDFAST_CLI_SESSIONS", sessions)
    })
    .await
}

/// One turn, to its last answer.
async fn turn(socket: &mut BareWebSocket, session: &str, run: usize) {
    let id = format!("{session}-{run}");
    let params = json!({"message": "hello", "sessionKey": session, "idempotencyKey": id});
    socket.send(&frame(Part::Text, call(&id, "agent", params))).await;
    loop {
        let said = socket.text().await.expect("the connection lives");
        if said["id"] == id.as_str() && said["payload"]["status"] != "accepted" {
            assert_eq!(said["ok"], true, "{said}");
            return;
        }
    }
}

async fn turns(report: &Report, socket: &mut BareWebSocket, dir: &Path) {
    let bare = bare(&dir.join("bare"));
    let mut took = Vec::with_capacity(TURNS);
    for run in 0..WARM + TURNS {
        let begun_at = Instant::now();
        turn(socket, "main", run).await;
        took.push(begun_at.elapsed());
    }
    let took = Durations::from_iter(took.split_off(WARM));
    report.figure("a turn of the bare program", &bare.summary());
    report.figure("a turn through the worker", &took.summary());
    let added = took.median().saturating_sub(bare.median());
    report.figure_with_goal(
        "    added at the median",
        &format!("{:.2} ms", added.as_secs_f64() * 1000.0),
        Goal::new("< 2 ms", added < OVERHEAD_GOAL),
    );
}

/// How long turns of a program take that nobody is in front of.
fn bare(workspace: &PathBuf) -> Durations {
    std::fs::create_dir(workspace).expect("a directory can be made");
    let mut child = Command::new(env!("CARGO_BIN_EXE_fixture-cli"))
        .args(["--input-format", "stream-json", "--session-id", "bare"])
        .current_dir(workspace)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
    let mut lines = stdout.lines().map(|line| line.expect("it says something"));
    let asked = json!({"type": "user", "message": {"role": "user", "content": "hello"}});
    let mut took = Vec::with_capacity(WARM + TURNS);
    for _ in 0..WARM + TURNS {
        let begun_at = Instant::now();
        writeln!(stdin, "{asked}").expect("it listens");
        lines.find(|line| line.contains(r#""type":"result""#)).expect("it answers");
        took.push(begun_at.elapsed());
    }
    drop(stdin);
    child.wait().expect("it ends");
    took.split_off(WARM).into_iter().collect()
}

async fn memory(report: &Report, front: &Front, socket: &mut BareWebSocket) {
    let worker = front.serving().await.worker().expect("who serves is there");
    let before = worker.resident_bytes();
    for session in 1..SESSIONS {
        turn(socket, &format!("s{session}"), 0).await;
    }
    let grown = worker.resident_bytes().saturating_sub(before);
    let each = grown / (SESSIONS as u64 - 1);
    report.figure_with_goal(
        "the worker's memory for each live session",
        &format!("{} KiB", each / 1024),
        Goal::new("< 1 MB", each < MEMORY_GOAL),
    );
}

/// How long a session's tools do not answer while it moves, and while it does not.
async fn pauses(report: &Report) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let front = front(&dir).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    turn(&mut socket, "main", 0).await;
    let tools = Tools::of(&front);
    let (mut moving, mut resting) = (Vec::new(), Vec::new());
    for run in 1..=TAKEOVERS {
        resting.push(tools.longest(tokio::time::sleep(Duration::from_millis(100))).await);
        let takeover = async {
            let takeover = front.takeover().await;
            let moved = takeover.event("drained").map(|drained| drained["sessions"].clone());
            assert_eq!(moved, Some(json!(1)), "{takeover:?}");
        };
        moving.push(tools.longest(takeover).await);
        turn(&mut socket, "main", run).await;
    }
    let (moving, resting) = (Durations::from_iter(moving), Durations::from_iter(resting));
    report.figure("longest wait for its tools while it rests", &resting.summary());
    report.figure_with_goal(
        "longest wait for its tools during a takeover in which it moves",
        &moving.summary(),
        Goal::new("pause < 5 ms", moving.median() < PAUSE_GOAL),
    );
}

/// Where a program asks for its tools, and with what.
struct Tools {
    host: String,
    request: String,
}

impl Tools {
    /// Those of the only program of a front.
    fn of(front: &Front) -> Self {
        let mut programs = front.process().descendants().into_iter();
        let is_program = |process: &Process| {
            process.executable().is_some_and(|path| path.ends_with("fixture-cli"))
        };
        let program = programs.find(is_program).expect("it lives");
        let arguments = program.arguments();
        let at = arguments.iter().position(|word| word == "--mcp-config").expect("it has tools");
        let config = std::fs::read_to_string(&arguments[at + 1]).expect("it can be read");
        let config: Value = serde_json::from_str(&config).expect("it is JSON");
        let server = &config["mcpServers"]["openclaw"];
        let url = server["url"].as_str().expect("it has an address");
        let host = url.trim_start_matches("http://").split('/').next().expect("it has a host");
        let environment = program.environment();
        let mut headers = String::new();
        for (name, value) in server["headers"].as_object().expect("it has headers") {
            let mut value = value.as_str().expect("it is a text").to_owned();
            for (variable, secret) in &environment {
                value = value.replace(&format!("${{{variable}}}"), secret);
            }
            headers.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{headers}\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        Self { host: host.to_owned(), request }
    }

    /// The longest wait for an answer until this ends.
    async fn longest(&self, until: impl Future<Output = ()>) -> Duration {
        let mut longest = Duration::ZERO;
        let asking = async {
            loop {
                let begun_at = Instant::now();
                let mut stream = TcpStream::connect(&self.host).await.expect("it is there");
                stream.write_all(self.request.as_bytes()).await.expect("it listens");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("it answers");
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                longest = longest.max(begun_at.elapsed());
            }
        };
        tokio::select! {
            () = until => {}
            () = asking => {}
        }
        longest
    }
}
