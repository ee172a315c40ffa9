//! Takeovers by workers that attach themselves: each worker in namespaces of its own, as containers are, against all of
//! them in the front's.
//!
//! Both sides start a process that attaches, so what differs is only where. The clock is the front's log: from where the
//! takeover begins, when the successor has attached, until only it accepts, and until all that was open has moved.

use std::time::Duration;

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{Attached, ELSEWHERE, Front, elsewhere_is_there, soon};
use tokio::time::sleep;

use crate::figures::{Durations, Ratios, in_ms};
use crate::ledger::Promise;
use crate::report::{Goal, Report};
use crate::story::{Line, Story};

/// How many pairs, of two takeovers a side.
const PAIRS: usize = 20;
/// How many connections move each time.
const KEPT: usize = 200;
/// How often the log is looked at for the end of a takeover.
const GLANCE: Duration = Duration::from_millis(1);
/// The median of the pairs' ratios.
const GOAL: f64 = 1.2;

/// A front whose workers are all started in the same way.
struct Side {
    wrapper: &'static [&'static str],
    front: Front,
    story: Story,
    worker: Attached,
    kept: Vec<HttpConnection>,
}

/// How long a takeover took.
#[derive(Clone, Copy, Debug)]
struct Times {
    switched: Duration,
    drained: Duration,
}

impl Side {
    async fn begin(wrapper: &'static [&'static str]) -> Self {
        let front = Front::with(|s| s.attachable().flag("--soak", "1ms")).await;
        let worker = front.attach(wrapper, &[]);
        front.until("the first worker serves", |status| status.serving().is_some()).await;
        let mut kept = Vec::with_capacity(KEPT);
        for _ in 0..KEPT {
            let opened = HttpConnection::open(&front.address()).await;
            kept.push(opened.expect("a front that serves accepts"));
        }
        let story = Story::of(&front);
        let mut side = Self { wrapper, front, story, worker, kept };
        side.ask_everybody().await;
        side
    }

    /// Every connection is answered, wherever it is by now.
    async fn ask_everybody(&mut self) {
        for connection in &mut self.kept {
            let answer = connection.exchange(&Request::get("/healthz")).await;
            answer.expect("a connection that has moved is answered");
        }
    }

    async fn take_over(&mut self) -> Times {
        let next = self.front.attach(self.wrapper, &[]);
        let mut lines: Vec<Line> = Vec::new();
        // The worker says that it has drained, too, and knows no generation.
        let of_front = |line: &Line, message: &str| {
            line.message == message
                && (line.field("generation").is_string() || message == "takeover")
        };
        soon("the takeover ends", async {
            while !lines.iter().any(|line| of_front(line, "drained")) {
                sleep(GLANCE).await;
                lines.extend(self.story.read());
            }
        })
        .await;
        let at = |message| {
            let line = lines.iter().find(|line| of_front(line, message));
            line.unwrap_or_else(|| panic!("the front says {message}: {lines:?}")).at
        };
        let began = at("takeover");
        let times =
            Times { switched: at("switched").since(began), drained: at("drained").since(began) };
        assert_eq!(self.worker.exit_code().await, 0, "the one before did not leave in good order");
        self.worker = next;
        self.ask_everybody().await;
        times
    }
}

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "attached: takeovers by workers in namespaces of their own ÷ in the front's",
        &format!(
            "Each worker is a process that attaches itself; {KEPT} kept connections move to it, and each is asked \
             afterwards. {PAIRS} pairs in turns: A B B A, then B A A B. --soak 1ms. Namespaces: {}.",
            ELSEWHERE[1..].join(" ")
        ),
    );
    if !elsewhere_is_there().await {
        report.note("not measured: no namespaces of its own can be had here");
        return Promise::Kept;
    }
    let mut here = Side::begin(&[]).await;
    let mut elsewhere = Side::begin(&ELSEWHERE).await;
    let (mut times_here, mut times_elsewhere) = (Vec::new(), Vec::new());
    for number in 0..PAIRS {
        let elsewhere_first = number.is_multiple_of(2);
        for outer in [true, false, false, true] {
            if outer == elsewhere_first {
                times_elsewhere.push(elsewhere.take_over().await);
            } else {
                times_here.push(here.take_over().await);
            }
        }
    }
    print(report, "switched", (&times_elsewhere, &times_here), |times| times.switched);
    print(report, "all moved", (&times_elsewhere, &times_here), |times| times.drained);
    // Each connection was answered after each takeover, or this was not reached.
    Promise::Kept
}

/// The ratio of each pair, which is two takeovers a side.
fn print(
    report: &Report,
    what: &str,
    (elsewhere, here): (&[Times], &[Times]),
    of: fn(&Times) -> Duration,
) {
    let sum = |pair: &[Times]| pair.iter().map(of).sum::<Duration>().as_secs_f64();
    let pairs = elsewhere.chunks_exact(2).zip(here.chunks_exact(2));
    let ratios: Ratios = pairs.map(|(elsewhere, here)| sum(elsewhere) / sum(here)).collect();
    let median = ratios.median();
    report.figure_with_goal(
        &format!("takeover → {what}: ratio, median of pairs"),
        &format!("{median:.3}"),
        Goal::new("≤ 1.2", median <= GOAL),
    );
    report.figure("    of each pair, sorted", &ratios.all());
    let median = |times: &[Times]| in_ms(times.iter().map(of).collect::<Durations>().median());
    report.figure(
        "    median in namespaces of their own, in the front's",
        &format!("{}, {}", median(elsewhere), median(here)),
    );
}
