//! What this worker has done, counted, for Prometheus.
//!
//! | name | labels | counts |
//! | --- | --- | --- |
//! | `holdfast_worker_requests_total` | `route`, `status` | HTTP requests, by what they ask for and by class of status; `none` left before an answer |
//! | `holdfast_worker_request_seconds` | `route` | a histogram: from a request's head to the end of its answer, however long it streams |
//! | `holdfast_worker_calls_total` | `method` | calls over WebSockets; those of plugins and of nobody are `other` |
//! | `holdfast_worker_runs_total` | `outcome` | runs of agents that have ended |
//! | `holdfast_worker_run_failures_total` | `reason` | runs that ended without an answer, as the harness says why |
//! | `holdfast_worker_model_failures_total` | `reason` | models that did not answer, whoever was asked after them |
//! | `holdfast_worker_connections` | `kind` | open now: `http`, `websocket` |
//! | `holdfast_worker_in_flight` | | requests and calls that are being answered |
//! | `holdfast_worker_sessions` | | sessions in the database |
//!
//! **Invariants**
//! - Labels are of closed sets: nothing a client says becomes one.
//! - Counting takes no lock and makes no allocation. One process is one worker, so they are the process's.
//! - They begin at 0 with each generation. Whoever reads them takes that for the reset of a counter, as Prometheus does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use handoff::Report;
use hyper::StatusCode;

use crate::agents::Outcome;
use crate::agents::harness::Reason;
use crate::census::Work;
use crate::methods::BUNDLED;

/// What the histogram's buckets end at, in ms.
const BUCKETS_MS: [u64; 11] = [1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 30_000, 60_000];
/// Classes of status; the first is of requests that were left.
const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// How runs end.
const OUTCOMES: [&str; 4] = ["finished", "aborted", "lane-cleared", "failed"];
/// What stands for every method that is not the worker's own.
const OTHER: &str = "other";

/// The counters of this process.
static METRICS: Metrics = Metrics::new();

type Counter = AtomicU64;

#[derive(Debug)]
struct Metrics {
    requests: [[Counter; STATUSES.len()]; Work::ALL.len()],
    durations: [Histogram; Work::ALL.len()],
    calls: OnceLock<BTreeMap<&'static str, Counter>>,
    runs: [Counter; OUTCOMES.len()],
    run_failures: [Counter; Reason::ALL.len()],
    model_failures: [Counter; Reason::ALL.len()],
}

#[derive(Debug)]
struct Histogram {
    /// The last one is of what is longer.
    buckets: [Counter; BUCKETS_MS.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    const fn new() -> Self {
        Self { buckets: [const { Counter::new(0) }; BUCKETS_MS.len() + 1], sum_us: Counter::new(0) }
    }

    fn enter(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MS.iter().position(|end| us <= end * 1000);
        self.buckets[bucket.unwrap_or(BUCKETS_MS.len())].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }
}

impl Metrics {
    const fn new() -> Self {
        Self {
            requests: [const { [const { Counter::new(0) }; STATUSES.len()] }; Work::ALL.len()],
            durations: [const { Histogram::new() }; Work::ALL.len()],
            calls: OnceLock::new(),
            runs: [const { Counter::new(0) }; OUTCOMES.len()],
            run_failures: [const { Counter::new(0) }; Reason::ALL.len()],
            model_failures: [const { Counter::new(0) }; Reason::ALL.len()],
        }
    }

    fn calls(&self) -> &BTreeMap<&'static str, Counter> {
        self.calls.get_or_init(|| {
            let names = BUNDLED.iter().map(|method| method.name).chain([OTHER]);
            names.map(|name| (name, Counter::new(0))).collect()
        })
    }
}

/// A request has ended so long after it began; without a status nobody waited for one.
pub(crate) fn request(work: Work, status: Option<StatusCode>, duration: Duration) {
    let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
    let of_work = &METRICS.requests[work as usize];
    of_work.get(class).unwrap_or(&of_work[0]).fetch_add(1, Relaxed);
    METRICS.durations[work as usize].enter(duration);
}

/// A method was called by this name.
pub(crate) fn call(name: &str) {
    let calls = METRICS.calls();
    if let Some(counter) = calls.get(name).or_else(|| calls.get(OTHER)) {
        counter.fetch_add(1, Relaxed);
    }
}

/// A run has ended.
pub(crate) fn run(outcome: &Outcome) {
    let index = match outcome {
        Outcome::Finished(_) => 0,
        Outcome::Aborted => 1,
        Outcome::LaneCleared => 2,
        Outcome::Failed(_) => 3,
    };
    METRICS.runs[index].fetch_add(1, Relaxed);
}

/// A harness has no answer to give.
pub(crate) fn run_failed(reason: Reason) {
    METRICS.run_failures[reason as usize].fetch_add(1, Relaxed);
}

/// A model did not answer.
pub(crate) fn model_failed(reason: Reason) {
    METRICS.model_failures[reason as usize].fetch_add(1, Relaxed);
}

/// All of it in the text format of Prometheus, with what is true at this moment.
pub(crate) fn exposition(report: &Report, sessions: u64) -> String {
    let mut page = Page::default();
    page.family("requests_total", "counter", "HTTP requests by route and class of status.");
    for work in Work::ALL {
        for (status, counter) in STATUSES.iter().zip(&METRICS.requests[work as usize]) {
            let labels = format!("route=\"{}\",status=\"{status}\"", work.route());
            page.line("requests_total", &labels, counter.load(Relaxed));
        }
    }
    page.family("request_seconds", "histogram", "From a request's head to its answer's end.");
    for work in Work::ALL {
        page.histogram(work.route(), &METRICS.durations[work as usize]);
    }
    page.family("calls_total", "counter", "Calls over WebSockets by method.");
    for (name, counter) in METRICS.calls() {
        page.line("calls_total", &format!("method=\"{name}\""), counter.load(Relaxed));
    }
    page.family("runs_total", "counter", "Runs of agents that have ended, by how.");
    for (outcome, counter) in OUTCOMES.iter().zip(&METRICS.runs) {
        page.line("runs_total", &format!("outcome=\"{outcome}\""), counter.load(Relaxed));
    }
    for (name, help, counters) in [
        (
            "run_failures_total",
            "Runs without an answer, by the harness's reason.",
            &METRICS.run_failures,
        ),
        ("model_failures_total", "Models that did not answer, by reason.", &METRICS.model_failures),
    ] {
        page.family(name, "counter", help);
        for (reason, counter) in Reason::ALL.iter().zip(counters) {
            page.line(name, &format!("reason=\"{}\"", reason.name()), counter.load(Relaxed));
        }
    }
    page.family("connections", "gauge", "Connections that are open, by kind.");
    page.line("connections", "kind=\"http\"", report.connections.http);
    page.line("connections", "kind=\"websocket\"", report.connections.websocket);
    page.family("in_flight", "gauge", "Requests and calls that are being answered.");
    page.line("in_flight", "", report.in_flight);
    page.family("sessions", "gauge", "Sessions in the database.");
    page.line("sessions", "", sessions);
    page.text
}

/// The text in the making. Writing to a string does not fail.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP holdfast_worker_{name} {help}");
        let _ = writeln!(self.text, "# TYPE holdfast_worker_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels {
            "" => writeln!(self.text, "holdfast_worker_{name} {value}"),
            labels => writeln!(self.text, "holdfast_worker_{name}{{{labels}}} {value}"),
        };
    }

    fn histogram(&mut self, route: &str, histogram: &Histogram) {
        let mut below = 0;
        let ends = BUCKETS_MS.iter().map(|ms| seconds(ms * 1000)).chain(["+Inf".to_owned()]);
        for (end, counter) in ends.zip(&histogram.buckets) {
            below += counter.load(Relaxed);
            let labels = format!("route=\"{route}\",le=\"{end}\"");
            self.line("request_seconds_bucket", &labels, below);
        }
        let labels = format!("route=\"{route}\"");
        self.line("request_seconds_sum", &labels, seconds(histogram.sum_us.load(Relaxed)));
        self.line("request_seconds_count", &labels, below);
    }
}

/// µs as seconds, exactly.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_exactly() {
        for (us, written) in
            [(0, "0"), (1_000, "0.001"), (60_000_000, "60"), (1_500_001, "1.500001")]
        {
            assert_eq!(seconds(us), written);
        }
    }

    #[test]
    fn reasons_are_counted_in_the_order_in_which_they_are_named() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
        for (index, work) in Work::ALL.iter().enumerate() {
            assert_eq!(*work as usize, index, "{}", work.route());
        }
    }

    #[test]
    fn a_bucket_has_everything_below_its_end() {
        let histogram = Histogram::new();
        for ms in [0, 1, 2, 70_000] {
            histogram.enter(Duration::from_millis(ms));
        }
        let mut page = Page::default();
        page.histogram("probe", &histogram);
        for line in [
            "holdfast_worker_request_seconds_bucket{route=\"probe\",le=\"0.001\"} 2\n",
            "holdfast_worker_request_seconds_bucket{route=\"probe\",le=\"0.005\"} 3\n",
            "holdfast_worker_request_seconds_bucket{route=\"probe\",le=\"+Inf\"} 4\n",
            "holdfast_worker_request_seconds_sum{route=\"probe\"} 70.003\n",
            "holdfast_worker_request_seconds_count{route=\"probe\"} 4\n",
        ] {
            assert!(page.text.contains(line), "no {line}{}", page.text);
        }
    }

    #[test]
    fn a_method_that_nobody_knows_becomes_no_label() {
        call("made up by a client");
        let text = exposition(&Report::default(), 7);
        assert!(!text.contains("made up") && text.contains("method=\"other\""), "{text}");
        assert!(text.ends_with("holdfast_worker_sessions 7\n"), "{text}");
    }
}
