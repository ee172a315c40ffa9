//! The numbers Holdfast promises, measured on release binaries, as one report.
//!
//! `cargo bench -p holdfast-tests` takes all of them, `-- takeovers` only that one, and
//! `-- moving --connections 1000` that one with fewer connections than it would take itself.
//!
//! | name | file | what is measured |
//! | --- | --- | --- |
//! | `takeovers` | `takeovers.rs` | requests lost over takeovers, and from the signal to *switched* |
//! | `size` | `size.rs` | the front's memory and descriptors before and after takeovers |
//! | `reexec` | `reexec.rs` | how long the front is gone while it renews itself, and its memory after 1,000 takeovers |
//! | `throughput` | `throughput.rs` | the worker under the front against the same worker alone |
//! | `crash` | `crash.rs` | from the only worker's death to the next answer, with a standby and without |
//! | `moving` | `moving.rs` | how long 10,000 WebSockets take to move, each one's pause, its CPU time |
//! | `idle-websockets` | `idle_websockets.rs` | the worker's memory with 10,000 of them |
//! | `wrappers` | `wrappers.rs` | what it costs a connection all its life that it could move |
//! | `latency` | `latency.rs` | HTTP latency around a takeover, and around a reload of its peers |
//! | `adapters` | `adapters.rs` | `relay` beside HAProxy, `activate` beside the program alone |
//! | `attached` | `attached.rs` | takeovers by workers in namespaces of their own against the front's |
//! | `cli-sessions` | `cli_sessions.rs` | what the worker adds to a turn of a CLI agent, a session's memory and its pause |
//! | `gateway` | `gateway.rs` | a handshake, calls per second, an agent that is made to last |
//! | `models` | `models.rs` | from a provider's first word to the client's |
//!
//! **Invariants**
//! - No number fails the run for being slow: goal and result stand side by side. Only a lost request
//!   that was promised an answer does.
//! - What is compared is compared within one run, taken in turns.

mod adapters;
mod attached;
mod cli_sessions;
mod clients;
mod closed_loop;
mod cpu;
mod crash;
mod echo_loop;
mod echo_server;
mod figures;
mod fleet;
mod gateway;
mod http_loop;
mod idle_websockets;
mod latency;
mod ledger;
mod models;
mod moving;
mod open_loop;
mod pairs;
mod pauses;
mod peers;
mod reexec;
mod report;
mod rpc_loop;
mod scale;
mod size;
mod story;
mod takeovers;
mod throughput;
mod wrappers;

use std::process::ExitCode;

use ledger::Promise;
use report::Report;
use scale::Scale;

/// The command line is not understood (sysexits.h).
const USAGE: u8 = 64;

/// One of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measurement {
    Takeovers,
    Size,
    Throughput,
    Crash,
    Moving,
    IdleWebSockets,
    Wrappers,
    Latency,
    Adapters,
    Gateway,
    Models,
    CliSessions,
    Reexec,
    Attached,
}

impl Measurement {
    const ALL: [Self; 14] = [
        Self::Takeovers,
        Self::Size,
        Self::Throughput,
        Self::Crash,
        Self::Moving,
        Self::IdleWebSockets,
        Self::Wrappers,
        Self::Latency,
        Self::Adapters,
        Self::Gateway,
        Self::Models,
        Self::CliSessions,
        Self::Reexec,
        Self::Attached,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Takeovers => "takeovers",
            Self::Size => "size",
            Self::Throughput => "throughput",
            Self::Crash => "crash",
            Self::Moving => "moving",
            Self::IdleWebSockets => "idle-websockets",
            Self::Wrappers => "wrappers",
            Self::Latency => "latency",
            Self::Adapters => "adapters",
            Self::Gateway => "gateway",
            Self::Models => "models",
            Self::CliSessions => "cli-sessions",
            Self::Reexec => "reexec",
            Self::Attached => "attached",
        }
    }

    async fn take(self, report: &Report, scale: Scale) -> Promise {
        match self {
            Self::Takeovers => takeovers::measure(report).await,
            Self::Size => size::measure(report).await,
            Self::Throughput => throughput::measure(report).await,
            Self::Crash => crash::measure(report).await,
            Self::Moving => moving::measure(report, scale).await,
            Self::IdleWebSockets => idle_websockets::measure(report, scale).await,
            Self::Wrappers => wrappers::measure(report).await,
            Self::Latency => latency::measure(report, scale).await,
            Self::Adapters => adapters::measure(report, scale).await,
            Self::Gateway => gateway::measure(report).await,
            Self::Models => models::measure(report).await,
            Self::CliSessions => cli_sessions::measure(report).await,
            Self::Reexec => reexec::measure(report).await,
            Self::Attached => attached::measure(report).await,
        }
    }
}

fn main() -> ExitCode {
    let report = Report;
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == echo_server::WORD) {
        return echo_server::run();
    }
    // Cargo says `--bench` when it measures; `cargo test --all-targets` only wants it to start.
    let Some(at) = words.iter().position(|word| word == "--bench") else {
        report.note("nothing measured: use cargo bench");
        return ExitCode::SUCCESS;
    };
    words.remove(at);
    let Some((chosen, scale)) = choose(&words) else {
        let names = Measurement::ALL.map(Measurement::name);
        report.note(&format!(
            "no such measurement: {words:?}; there are {names:?}, and `--connections N`"
        ));
        return ExitCode::from(USAGE);
    };
    report.begin(&words);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("an event loop can be made");
    let mut promise = Promise::Kept;
    for measurement in chosen {
        promise = promise.and(runtime.block_on(measurement.take(&report, scale)));
    }
    report.end(promise);
    match promise {
        Promise::Kept => ExitCode::SUCCESS,
        Promise::Broken => ExitCode::FAILURE,
    }
}

/// The measurements of these names, or all of them, and their scale; `None` when a word is neither a
/// name nor a scale.
fn choose(words: &[String]) -> Option<(Vec<Measurement>, Scale)> {
    let (mut chosen, mut scale) = (Vec::new(), Scale::default());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--connections" {
            scale = Scale::of(words.next()?.parse().ok()?);
        } else {
            chosen.push(Measurement::ALL.into_iter().find(|m| m.name() == word)?);
        }
    }
    if chosen.is_empty() {
        chosen.extend(Measurement::ALL);
    }
    Some((chosen, scale))
}
