//! The worker under the front against the same worker alone.
//!
//! Both run at the same time and take turns; every pair has a fresh worker on either side, so that how
//! one process happens to lie in memory counts once. The client shares the cores with either side
//! alike. Beside the rate stands what the worker itself spends on an answer, which others' work on the
//! machine moves less.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use holdfast_tests::rig::{Front, Process, TOKEN, binaries, soon};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::closed_loop::{self, CONNECTIONS, Reuse, Round};
use crate::figures::Ratios;
use crate::ledger::Promise;
use crate::report::{Goal, Report};

/// How many pairs of each kind.
const PAIRS: usize = 11;
/// How long each side of a pair is driven in one of its two turns, once it is warm.
const TURN: Duration = Duration::from_millis(400);
/// The least that is left of the worker's own throughput.
const GOAL: f64 = 0.98;

/// The same requests to either side.
#[derive(Clone, Copy, Debug)]
struct Pair {
    under: Round,
    alone: Round,
}

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "throughput: the worker under the front ÷ the same worker alone",
        &format!(
            "GET /healthz in a closed loop of {CONNECTIONS} connections; {PAIRS} pairs with fresh \
             workers each, in turns of {TURN:?}: A B B A, then B A A B. The client takes the same cores."
        ),
    );
    let front = Front::with(|s| s.flag("--soak", "20ms")).await;
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        front.takeover().await.assert_committed();
        front.until("one generation is left", |status| status.is_settled()).await;
        let worker = front.serving().await.worker().expect("who serves is there");
        let under = (worker, front.tcp());
        let lonely = Lonely::start(&directory).await;
        for reuse in [Reuse::KeepAlive, Reuse::NewConnections] {
            pairs.push((reuse, drive(under, lonely.side(), reuse, number).await));
        }
    }
    for (reuse, words) in [
        (Reuse::KeepAlive, "requests per kept connection"),
        (Reuse::NewConnections, "a new connection per request"),
    ] {
        let of_kind = pairs.iter().filter(|(kind, _)| *kind == reuse).map(|(_, pair)| *pair);
        print(report, words, &of_kind.collect::<Vec<_>>());
    }
    Promise::Kept
}

/// Drives both sides in two turns each, so that a machine that gets slower slows both alike; every
/// other pair begins with the other side.
async fn drive(
    under: (Process, SocketAddr),
    alone: (Process, SocketAddr),
    reuse: Reuse,
    number: usize,
) -> Pair {
    let (first, second) = if number.is_multiple_of(2) { (under, alone) } else { (alone, under) };
    let mut rounds = Vec::new();
    for side in [first, second, second, first] {
        rounds.push(closed_loop::drive(side, reuse, TURN).await);
    }
    let outer = Round::mean(rounds[0], rounds[3]);
    let inner = Round::mean(rounds[1], rounds[2]);
    if number.is_multiple_of(2) {
        Pair { under: outer, alone: inner }
    } else {
        Pair { under: inner, alone: outer }
    }
}

fn print(report: &Report, words: &str, pairs: &[Pair]) {
    let ratios: Ratios = pairs.iter().map(|pair| pair.under.rate / pair.alone.rate).collect();
    report.figure_with_goal(
        &format!("{words}: ratio, median of pairs"),
        &format!("{:.3}", ratios.median()),
        Goal::new("≥ 0.98", ratios.median() >= GOAL),
    );
    report.figure("    of each pair, sorted", &ratios.all());
    let rates = |of: fn(&Pair) -> Round| {
        let median = pairs.iter().map(|pair| of(pair).rate).collect::<Ratios>().median();
        format!("{median:.0}/s")
    };
    let (under, alone) = (rates(|pair| pair.under), rates(|pair| pair.alone));
    report.figure("    median rate under the front, alone", &format!("{under}, {alone}"));
    let spent: Ratios =
        pairs.iter().map(|pair| pair.alone.worker_us / pair.under.worker_us).collect();
    let costs = |of: fn(&Pair) -> Round| {
        pairs.iter().map(|pair| of(pair).worker_us).collect::<Ratios>().median()
    };
    report.figure(
        "    worker's CPU time per answer under the front, alone",
        &format!(
            "{:.1} µs, {:.1} µs; alone ÷ under, median of pairs {:.3}",
            costs(|pair| pair.under),
            costs(|pair| pair.alone),
            spent.median()
        ),
    );
}

/// A worker without a front, ended when it is dropped.
struct Lonely {
    child: Child,
    address: SocketAddr,
    /// Kept open: what it writes there must not fail.
    _log: Lines<BufReader<ChildStderr>>,
}

impl Lonely {
    async fn start(directory: &TempDir) -> Self {
        let mut command = Command::new(binaries::holdfast_worker());
        // As the rig starts a front, and so its workers: with nothing else in the environment.
        command.env_clear().env("HOLDFAST_TOKEN", TOKEN).env("HOLDFAST_LOG_FORMAT", "json");
        command.env("HOLDFAST_STATE_DIR", directory.path().join("state"));
        command.args(["--listen", "127.0.0.1:0"]).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("holdfast-worker can be started");
        let log = child.stderr.take().expect("its stderr is a pipe");
        let mut lines = BufReader::new(log).lines();
        let address = soon("the worker listens", async {
            loop {
                let line = lines.next_line().await.expect("its log can be read");
                let line = line.expect("it listens before its log ends");
                let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if said["message"] == "listening" {
                    let word = said["address"].as_str().unwrap_or_default().to_owned();
                    break word.parse().expect("it names the address it listens on");
                }
            }
        })
        .await;
        Self { child, address, _log: lines }
    }

    fn side(&self) -> (Process, SocketAddr) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        (pid.and_then(Process::find).expect("the worker runs"), self.address)
    }
}
