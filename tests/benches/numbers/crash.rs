//! The only worker is killed while connections are opened all the time, with a standby beside it and without.
//!
//! A fresh front each time: one whose worker has lived a while starts the next at once, and so does one
//! whose worker dies young for the first time.

use std::time::{Duration, Instant};

use holdfast_tests::rig::{Front, Signal, soon};
use tokio::time::sleep;

use crate::clients::Clients;
use crate::figures::{Durations, grouped, in_ms};
use crate::ledger::{Loss, Lost, Promise};
use crate::report::{Goal, Report};
use crate::story::{Line, Moment, Story};

/// How many times.
const KILLS: usize = 60;
/// How often a connection is opened.
const NEW_EVERY: Duration = Duration::from_millis(1);
/// How many requests are answered before the worker is killed.
const FLOWING: u64 = 50;
/// How long the clients go on after the next answer.
const AFTERMATH: Duration = Duration::from_millis(20);
/// How often a value is looked at.
const GLANCE: Duration = Duration::from_millis(1);
/// How long after the signal the dying worker may still have accepted a connection.
const DYING: Duration = Duration::from_millis(5);
/// Who answers next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A worker that is started then.
    Started,
    /// One that stood by (`--standby`).
    StoodBy,
}

impl Next {
    /// From the kill to the next answer.
    const fn goal(self) -> (Duration, &'static str) {
        match self {
            Self::Started => (Duration::from_millis(150), "< 150 ms"),
            Self::StoodBy => (Duration::from_millis(20), "< 20 ms"),
        }
    }

    /// The steps in between, by the front's log: what, from and to which line.
    const fn steps(self) -> &'static [(&'static str, Option<&'static str>, &'static str)] {
        match self {
            Self::Started => &[
                ("1 SIGKILL → the front knows", None, GONE),
                ("2 known → started", Some(GONE), "started"),
                ("3 started → ready", Some("started"), "ready"),
                ("4 ready → admitted", Some("ready"), "admitted"),
            ],
            Self::StoodBy => &[
                ("1 SIGKILL → the front knows", None, GONE),
                ("2 known → admitted", Some(GONE), "admitted"),
            ],
        }
    }
}

/// What the front writes when it knows.
const GONE: &str = "the serving worker is gone";

/// One kill.
struct Kill {
    /// From the signal to the first answer of the next generation, at the client.
    next_answer: Duration,
    attempts: u64,
    refused: usize,
    /// Given to the worker that was killed, and cut with it.
    cut: usize,
    /// Begun when the worker was gone, and lost all the same.
    lost: Vec<Lost>,
    signalled_at: Moment,
    lines: Vec<Line>,
}

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "crash: from the death of the only worker to the next answer",
        &format!(
            "{KILLS} times a fresh front, a new connection every {NEW_EVERY:?}, and SIGKILL of its \
             worker. No client retries. What the worker had accepted is cut with it; what it had not \
             waits in the kernel's queue."
        ),
    );
    let started = measure_with(Next::Started, report).await;
    report.heading(
        "crash with a standby: the same, and a ready worker waits",
        "Each worker is killed when its standby is ready (`--standby`).",
    );
    started.and(measure_with(Next::StoodBy, report).await)
}

async fn measure_with(next: Next, report: &Report) -> Promise {
    let mut kills = Vec::with_capacity(KILLS);
    for _ in 0..KILLS {
        kills.push(kill(next).await);
    }
    let attempts: u64 = kills.iter().map(|kill| kill.attempts).sum();
    let sum = |of: fn(&Kill) -> usize| kills.iter().map(of).sum::<usize>();
    let (refused, cut, lost) = (sum(|k| k.refused), sum(|k| k.cut), sum(|k| k.lost.len()));
    report.figure("requests", &grouped(attempts));
    report.figure_with_goal("refused", &refused.to_string(), Goal::new("0", refused == 0));
    report.figure_with_goal(
        "lost though begun after the worker's death",
        &lost.to_string(),
        Goal::new("0", lost == 0),
    );
    report.figure("cut with the worker that was answering them", &cut.to_string());
    for lost in kills.iter().flat_map(|kill| &kill.lost).take(10) {
        report.note(&format!("lost: {lost:?}"));
    }
    let answers: Durations = kills.iter().map(|kill| kill.next_answer).collect();
    let (goal, in_words) = next.goal();
    report.figure_with_goal(
        "SIGKILL → next answer (client), worst",
        &in_ms(answers.percentile(100)),
        Goal::new(in_words, answers.percentile(100) < goal),
    );
    report.figure("    all of them", &answers.summary());
    for (words, from, to) in next.steps() {
        let between: Durations = kills.iter().filter_map(|kill| kill.between(*from, to)).collect();
        report.figure(&format!("    {words}"), &between.summary());
    }
    Promise::kept_if(refused == 0 && lost == 0)
}

async fn kill(next: Next) -> Kill {
    let front = Front::with(|s| {
        let s = s.flag("--log-file", "workers.log");
        if next == Next::StoodBy { s.switch("--standby") } else { s }
    })
    .await;
    if next == Next::StoodBy {
        front.until("somebody stands by", |s| s.standby().is_some()).await;
    }
    let incumbent = front.serving().await;
    let worker = incumbent.worker().expect("who serves is there");
    let mut clients = Clients::of(front.address());
    clients.open_connections(NEW_EVERY);
    let ledger = clients.ledger().clone();
    until("requests are answered", || (ledger.open().answered() >= FLOWING).then_some(())).await;
    let mut story = Story::of(&front);
    let (killed_at, signalled_at) = (Instant::now(), Moment::now());
    worker.signal(Signal::SIGKILL);
    let successor = incumbent.generation.next();
    let answered_at =
        until("somebody answers again", || ledger.open().first_answer(successor)).await;
    sleep(AFTERMATH).await;
    let ledger = clients.stop().await;
    let ledger = ledger.open();
    let is_cut = |lost: &&Lost| {
        matches!(lost.loss, Loss::Reset | Loss::Eof | Loss::Cut)
            && lost.begun_at < killed_at + DYING
    };
    let is_refused = |lost: &&Lost| lost.loss == Loss::Refused;
    let is_lost = |lost: &&Lost| !is_cut(lost) && !is_refused(lost);
    Kill {
        next_answer: answered_at.saturating_duration_since(killed_at),
        attempts: ledger.attempts(),
        refused: ledger.lost().iter().filter(is_refused).count(),
        cut: ledger.lost().iter().filter(is_cut).count(),
        lost: ledger.lost().iter().filter(is_lost).cloned().collect(),
        signalled_at,
        lines: story.read(),
    }
}

/// The first value `look` finds.
async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    soon(what, async {
        loop {
            match look() {
                Some(value) => return value,
                None => sleep(GLANCE).await,
            }
        }
    })
    .await
}

impl Kill {
    /// From one line of the front's log, or the signal, to another line.
    fn between(&self, from: Option<&str>, to: &str) -> Option<Duration> {
        let at = |message: &str| self.lines.iter().find(|line| line.message == message);
        let from = match from {
            Some(message) => at(message)?.at,
            None => self.signalled_at,
        };
        Some(at(to)?.at.since(from))
    }
}
