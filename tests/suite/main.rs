//! The promise of Holdfast, claim by claim, on real processes and sockets.
//!
//! A file is a subject and a test's name is the claim it proves. Every front has its own directory and
//! ports, so the tests run side by side, in any order.

mod adapters;
mod admin;
mod attach;
mod broken_log;
mod chaos;
mod check;
mod checker;
mod children;
mod cli_sessions;
mod control;
mod crash;
mod crash_loop;
mod deploy;
mod documents;
mod drain;
mod endurance;
mod front_gone;
mod half_open;
mod hostile;
mod limits;
mod links;
mod listening;
mod logs;
mod moving;
mod package;
mod pause;
mod programs;
mod prove;
mod recovery;
mod reexec;
mod rollback;
mod signals;
mod skew;
mod standby;
mod status;
mod stop_first;
mod stopping;
mod systemd;
mod takeover;
mod top;
mod usage;
mod valgrind;
mod written;

use handoff::GenerationId;
use holdfast_tests::rig::binaries::holdfast_worker;
use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{Front, Gate, Outcome, Program, Setup, TOKEN, soon};
use tokio::process::Command;

/// A worker that misbehaves in the ways these words say; `src/bin/fixture-worker/script.rs` lists them.
fn fixture<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Program {
    let program = Program::new(env!("CARGO_BIN_EXE_fixture-worker"));
    words.into_iter().fold(program, |program, word| program.arg(word.as_ref()))
}

/// A front whose worker is a fixture without a fault, and whose takeovers are soon committed.
fn good(setup: Setup) -> Setup {
    quick(setup.worker(fixture(["serve"])))
}

/// Takeovers that are soon committed.
fn quick(setup: Setup) -> Setup {
    setup.flag("--soak", "20ms")
}

const fn generation(number: u64) -> GenerationId {
    GenerationId::new(number)
}

/// A request that the serving fixture has begun to answer, and finishes once the gate is open.
async fn held_request(front: &Front, gate: &Gate) -> HttpConnection {
    let before = front.serving().await.in_flight.unwrap_or(0);
    let mut connection = HttpConnection::open(&front.address()).await.expect("it is accepted");
    let (head, _) = Request::get(&gate.hold()).parts();
    connection.send(&head).await.expect("a request can be sent");
    front
        .until("the request is in flight", |status| {
            status.serving().and_then(|serving| serving.in_flight) == Some(before + 1)
        })
        .await;
    connection
}

/// What the gateway answers to `holdfast-worker call` with these arguments.
async fn called(front: &Front, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(holdfast_worker());
    command.env_clear().env("HOLDFAST_TOKEN", TOKEN).env("HOME", front.directory());
    command.args(["call", "--json", "--url"]).arg(format!("ws://{}", front.tcp()));
    let output = soon("a call", command.args(arguments).kill_on_drop(true).output()).await;
    output.expect("the worker's program is there").into()
}

/// Says on the test's output that it proved nothing here, and why.
#[expect(clippy::print_stderr, reason = "the test harness keeps it for whoever asks")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
