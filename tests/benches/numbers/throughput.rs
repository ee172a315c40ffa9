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

use crate::closed_loop;
use crate::http_loop::{CONNECTIONS, Reuse, Visitor};
use crate::ledger::Promise;
use crate::pairs::{Pair, print_cost};
use crate::report::{Goal, Report};

/// How many pairs of each kind.
const PAIRS: usize = 11;
/// How long each side of a pair is driven in one of its two turns, once it is warm.
const TURN: Duration = Duration::from_millis(400);
/// The least that is left of the worker's own throughput.
const GOAL: f64 = 0.98;

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
            let drive = |side| closed_loop::drive::<Visitor>(side, reuse, TURN);
            pairs.push((reuse, Pair::in_turns(number, under, lonely.side(), drive).await));
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

fn print(report: &Report, words: &str, pairs: &[Pair]) {
    let ratios = Pair::ratios(pairs);
    report.figure_with_goal(
        &format!("{words}: ratio, median of pairs"),
        &format!("{:.3}", ratios.median()),
        Goal::new("≥ 0.98", ratios.median() >= GOAL),
    );
    print_cost(report, pairs, ("under the front", "alone"), "worker", "answer");
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
