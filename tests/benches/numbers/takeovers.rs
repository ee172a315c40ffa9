//! Takeovers, one after the other, while clients of every kind are at work.
//!
//! Two clocks tell how long one takes. *Switched* is the front's statement that only the successor
//! accepts: the time stamp of that line in its log, against the wall clock just before the signal was
//! sent. The first answer is what a client sees: its own monotonic clock, from just before the signal
//! until a whole answer with the successor's `x-holdfast-generation` had come. It can be earlier than
//! *switched*, since both generations accept for a moment.

use std::time::{Duration, Instant};

use handoff::GenerationId;
use holdfast_tests::rig::{Front, Signal, soon};
use tokio::time::sleep;

use crate::clients::Clients;
use crate::figures::{Durations, in_ms};
use crate::ledger::Promise;
use crate::report::{Goal, Report};
use crate::size::Size;
use crate::story::{Line, Moment, Story};

/// How many takeovers.
const TAKEOVERS: usize = 500;
/// How often a connection is opened.
const NEW_EVERY: Duration = Duration::from_millis(3);
/// How many clients keep their connections.
const KEPT: usize = 16;
/// Every how many takeovers so many slow requests are under way.
const SLOW: (usize, usize) = (50, 8);
/// Every how many takeovers so many uploads are under way.
const UPLOADS: (usize, usize) = (10, 4);
/// How long those are under way when the signal is sent.
const HEAD_START: Duration = Duration::from_millis(50);
/// How often the log is looked at for the end of a takeover.
const GLANCE: Duration = Duration::from_millis(1);
/// From the signal to *switched*, in the middle of all takeovers.
const GOAL: Duration = Duration::from_millis(60);

/// One takeover.
struct Takeover {
    sent_at: Instant,
    signalled_at: Moment,
    /// What the front wrote of it.
    lines: Vec<Line>,
}

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "takeovers: requests lost, and from the signal to switched",
        &format!(
            "{TAKEOVERS} takeovers by SIGUSR1, each sent when the one before was drained; --soak 20ms. \
             A new connection every {NEW_EVERY:?}, {KEPT} busy keep-alive clients, {} slow requests \
             begun before every {}th takeover, {} uploads before every {}th. No client retries.",
            SLOW.1, SLOW.0, UPLOADS.1, UPLOADS.0
        ),
    );
    let front = Front::with(|s| {
        s.flag("--soak", "20ms").flag("--drain-timeout", "10s").flag("--log-file", "workers.log")
    })
    .await;
    let before = Size::of(front.process());
    let mut story = Story::of(&front);
    let mut clients = Clients::of(front.address());
    clients.open_connections(NEW_EVERY);
    clients.keep_connections(KEPT);
    let mut takeovers = Vec::with_capacity(TAKEOVERS);
    for number in 1..=TAKEOVERS {
        let (slow, uploads) = (number % SLOW.0 == 0, number % UPLOADS.0 == 0);
        if slow {
            clients.send_slow(SLOW.1);
        }
        if uploads {
            clients.send_uploads(UPLOADS.1);
        }
        if slow || uploads {
            sleep(HEAD_START).await;
        }
        takeovers.push(take_over(&front, &mut story).await);
    }
    let ledger = clients.stop().await;
    let ledger = ledger.open();
    ledger.print(report);
    let lost = ledger.promised_and_lost();
    report.figure_with_goal(
        &format!("requests lost over {} committed takeovers", committed(&takeovers)),
        &lost.to_string(),
        Goal::new("0", lost == 0),
    );
    let rolled_back = takeovers.len() - committed(&takeovers);
    report.figure_with_goal(
        "takeovers rolled back",
        &rolled_back.to_string(),
        Goal::new("0", rolled_back == 0),
    );
    print_times(report, &takeovers, |id| ledger.first_answer(id));
    report.figure("front before", &before.to_string());
    report.figure("front after", &Size::of(front.process()).to_string());
    Promise::kept_if(lost == 0)
}

/// One takeover from its signal until the incumbent is gone.
async fn take_over(front: &Front, story: &mut Story) -> Takeover {
    let (sent_at, signalled_at) = (Instant::now(), Moment::now());
    front.process().signal(Signal::SIGUSR1);
    let mut lines: Vec<Line> = Vec::new();
    let is_over = |line: &Line| ["drained", "takeover rolled back"].contains(&&*line.message);
    soon("the takeover ends", async {
        while !lines.iter().any(is_over) {
            sleep(GLANCE).await;
            lines.extend(story.read());
        }
    })
    .await;
    Takeover { sent_at, signalled_at, lines }
}

fn committed(takeovers: &[Takeover]) -> usize {
    takeovers.iter().filter(|takeover| takeover.line("committed").is_some()).count()
}

fn print_times(
    report: &Report,
    takeovers: &[Takeover],
    first_answer: impl Fn(GenerationId) -> Option<Instant>,
) {
    let switched =
        takeovers.iter().filter_map(|t| Some(t.line("switched")?.at.since(t.signalled_at)));
    let switched: Durations = switched.collect();
    report.figure_with_goal(
        "signal → switched (wall clock; the front's log), median",
        &in_ms(switched.median()),
        Goal::new("< 60 ms", switched.median() < GOAL),
    );
    report.figure("    all of them", &switched.summary());
    let answered: Durations = takeovers
        .iter()
        .filter_map(|t| Some(first_answer(t.successor()?)?.saturating_duration_since(t.sent_at)))
        .collect();
    report.figure("signal → successor's first answer (client, to 3 ms)", &answered.summary());
    let own: Durations = takeovers
        .iter()
        .filter_map(|t| t.line("switched")?.field("elapsed_ms").as_u64())
        .map(Duration::from_millis)
        .collect();
    report.figure("the front's own switched_ms (whole ms, rounded down)", &own.summary());
    for (words, from, to) in [
        ("1 signal → takeover requested", None, "takeover requested"),
        ("2 requested → started", Some("takeover requested"), "started"),
        ("3 started → ready", Some("started"), "ready"),
        ("4 ready → admitted", Some("ready"), "admitted"),
        ("5 admitted → switched", Some("admitted"), "switched"),
        ("6 switched → committed (the soak)", Some("switched"), "committed"),
        ("7 committed → drained", Some("committed"), "drained"),
    ] {
        let between: Durations = takeovers.iter().filter_map(|t| t.between(from, to)).collect();
        report.figure(&format!("    {words}"), &between.summary());
    }
}

impl Takeover {
    fn line(&self, message: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.message == message)
    }

    fn successor(&self) -> Option<GenerationId> {
        self.line("switched")?.field("generation").as_str()?.parse().ok()
    }

    /// From one line, or the signal, to another line.
    fn between(&self, from: Option<&str>, to: &str) -> Option<Duration> {
        let from = match from {
            Some(message) => self.line(message)?.at,
            None => self.signalled_at,
        };
        Some(self.line(to)?.at.since(from))
    }
}
