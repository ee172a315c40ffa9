//! What the front says of itself, in Prometheus' text format (version 0.0.4).
//!
//! **Invariants**
//! - Labels have closed sets, and every series of a family is there from the first scrape on: none is named after a
//!   generation, a program or a client.
//! - A counter comes from the front's own sums, which outlive workers and re-execs.
//! - A front that does not answer is `holdfast_up 0`, and nothing is made up about it.

use std::fmt::{Display, Write as _};

use handoff::message::Connections;

use super::look::Seen;
use crate::control::document::{GenerationStatus, Status};
use crate::tally::{Histogram, Tally};

/// What a generation is, for whoever adds up: its state has finer words.
const ROLES: [&str; 4] = ["starting", "standby", "serving", "draining"];

/// The metrics of a look at the front.
pub(super) fn exposition(look: &Result<Seen, String>) -> String {
    let mut text = Text::default();
    let up = u64::from(look.is_ok());
    text.one("holdfast_up", Kind::Gauge, "Whether the front answers.", up);
    if let Ok(Seen { status, tally }) = look {
        front(&mut text, status);
        workers(&mut text, status);
        takeovers(&mut text, status);
        if let Some(tally) = tally {
            counted(&mut text, tally);
        }
    }
    text.0
}

fn front(text: &mut Text, status: &Status) {
    use Kind::{Counter, Gauge};
    let front = &status.front;
    let (version, commit) = front.version.split_once(" (").unwrap_or((&front.version, ""));
    let commit = commit.trim_end_matches(')');
    text.family("holdfast_build_info", Gauge, "The front's version, as labels; always 1.");
    text.sample("holdfast_build_info", &[("version", version), ("commit", commit)], 1);
    let seconds = Seconds(front.uptime_ms);
    text.one(
        "holdfast_front_uptime_seconds",
        Gauge,
        "Since the front was started; re-execs do not count.",
        seconds,
    );
    text.one(
        "holdfast_front_resident_bytes",
        Gauge,
        "Memory that the front has resident.",
        front.resident_bytes,
    );
    text.one(
        "holdfast_front_descriptors",
        Gauge,
        "Descriptors that the front has open.",
        front.descriptors,
    );
    let limit = front.limits.map_or(0, |limits| limits.descriptors);
    text.one(
        "holdfast_descriptors_limit",
        Gauge,
        "How many the front, and each worker, may have open.",
        limit,
    );
    let lost = front.log_lines_lost;
    text.one(
        "holdfast_log_lines_lost_total",
        Counter,
        "Lines of the front's log that nobody read in time.",
        lost,
    );
    let listeners = status.listeners.len();
    text.one("holdfast_listeners", Gauge, "Listening sockets.", listeners);
    let stopping = u64::from(status.stopping);
    text.one("holdfast_stopping", Gauge, "Whether the front is stopping.", stopping);
    let paused = u64::from(status.paused.is_some());
    text.one("holdfast_paused", Gauge, "Whether an operator has paused accepting.", paused);
    let waits = Seconds(status.respawn.map_or(0, |respawn| respawn.in_ms));
    text.one(
        "holdfast_start_wait_seconds",
        Gauge,
        "Until the next start, while nobody serves; else 0.",
        waits,
    );
    let left = u64::from(status.left_program.is_some());
    text.one(
        "holdfast_went_back",
        Gauge,
        "Whether the program crashed again and again, and the one before serves.",
        left,
    );
    text.one(
        "holdfast_turned_away_total",
        Counter,
        "Connections that waited too long for a worker, and were closed.",
        status.turned_away,
    );
    text.family(
        "holdfast_reexecs_total",
        Counter,
        "Re-execs of the front, by whether it became another image.",
    );
    text.sample("holdfast_reexecs_total", &[("outcome", "done")], status.reexecs.done);
    text.sample("holdfast_reexecs_total", &[("outcome", "failed")], status.reexecs.failed);
}

fn workers(text: &mut Text, status: &Status) {
    use Kind::{Counter, Gauge};
    let of = |role: &'static str| {
        status.generations.iter().filter(move |generation| role_of(status, generation) == role)
    };
    let ready = u64::from(super::answer::accepts(status));
    text.one(
        "holdfast_ready",
        Gauge,
        "Whether newcomers are served, now or as soon as a takeover has switched.",
        ready,
    );
    text.family("holdfast_generations", Gauge, "Generations that are not gone, by role.");
    for role in ROLES {
        text.sample("holdfast_generations", &[("role", role)], of(role).count());
    }
    let lease = u64::from(status.generations.iter().any(|generation| generation.lease));
    text.one("holdfast_lease_held", Gauge, "Whether a generation holds the writer lease.", lease);
    let failing: usize = status.generations.iter().map(|generation| generation.failing.len()).sum();
    text.one(
        "holdfast_failing_conditions",
        Gauge,
        "Conditions that generations say they fail at.",
        failing,
    );
    text.family("holdfast_connections", Gauge, "Open connections of workers, idle ones too.");
    for role in ["serving", "draining"] {
        let open = of(role).filter_map(|generation| generation.connections);
        let sum = open.fold(Connections::default(), Connections::saturating_add);
        text.by_kind("holdfast_connections", ("role", role), sum);
    }
    text.family("holdfast_in_flight", Gauge, "Requests and calls being worked on.");
    for role in ["serving", "draining"] {
        let sum: u64 = of(role).filter_map(|generation| generation.in_flight).sum();
        text.sample("holdfast_in_flight", &[("role", role)], sum);
    }
    let oldest =
        of("draining").filter_map(|generation| Some(generation.oldest.as_ref()?.age_ms)).max();
    let oldest = Seconds(oldest.unwrap_or(0));
    text.one(
        "holdfast_drain_oldest_seconds",
        Gauge,
        "Age of the oldest work that a drain waits for; else 0.",
        oldest,
    );
    text.family(
        "holdfast_worker_resident_bytes",
        Gauge,
        "Memory of workers and all they have started.",
    );
    for role in ROLES {
        let sum: u64 = of(role).filter_map(|generation| generation.resident_bytes).sum();
        text.sample("holdfast_worker_resident_bytes", &[("role", role)], sum);
    }
    text.one(
        "holdfast_worker_crashes_total",
        Counter,
        "Workers that ended while they served.",
        status.crashes,
    );
}

/// The role of a generation. One that an operator has paused is no drain.
fn role_of(status: &Status, generation: &GenerationStatus) -> &'static str {
    let is_paused = status.paused.is_some_and(|paused| paused.generation == generation.generation);
    match generation.state.as_str() {
        "starting" => "starting",
        "standby" => "standby",
        "admitting" | "serving" => "serving",
        _ if is_paused => "serving",
        _ => "draining",
    }
}

fn takeovers(text: &mut Text, status: &Status) {
    use Kind::{Counter, Gauge};
    let runs = u64::from(status.takeover.is_some());
    text.one(
        "holdfast_takeover_running",
        Gauge,
        "Whether a takeover is between its request and its commit.",
        runs,
    );
    text.family("holdfast_takeovers_total", Counter, "Takeovers that have ended.");
    let counts = status.takeovers;
    text.sample("holdfast_takeovers_total", &[("outcome", "committed")], counts.committed);
    text.sample("holdfast_takeovers_total", &[("outcome", "rolled_back")], counts.rolled_back);
}

fn counted(text: &mut Text, tally: &Tally) {
    use Kind::Counter;
    text.family(
        "holdfast_takeover_phase_seconds",
        Kind::Histogram,
        "How long each phase of a takeover took.",
    );
    for (phase, histogram) in tally.phases.each() {
        text.histogram("holdfast_takeover_phase_seconds", ("phase", phase), histogram);
    }
    let help = "What became of connections of generations that were told to go; lost ones had moved to a successor \
                that failed.";
    text.family("holdfast_connections_moved_total", Counter, help);
    let outcomes = &tally.moved;
    for (outcome, connections) in [
        ("moved", outcomes.moved),
        ("finished", outcomes.finished),
        ("closed", outcomes.closed),
        ("cut", outcomes.cut),
        ("lost", outcomes.lost),
    ] {
        text.by_kind("holdfast_connections_moved_total", ("outcome", outcome), connections);
    }
    text.one(
        "holdfast_sessions_moved_total",
        Counter,
        "Sessions that a successor went on with.",
        tally.sessions,
    );
    let help = "Workers that no takeover replaced, by why they had to be.";
    text.family("holdfast_worker_restarts_total", Counter, help);
    let restarts = tally.restarts;
    for (reason, count) in [
        ("exited", restarts.exited),
        ("signalled", restarts.signalled),
        ("out_of_memory", restarts.out_of_memory),
        ("unknown", restarts.unknown),
        ("not_serving", restarts.not_serving),
        ("standby_failed", restarts.standby_failed),
    ] {
        text.sample("holdfast_worker_restarts_total", &[("reason", reason)], count);
    }
    let help = "How often the process of this page was started again.";
    text.one("holdfast_admin_restarts_total", Counter, help, tally.admin_restarts);
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A time as metrics have it.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(ms) = self;
        write!(f, "{}.{:03}", ms / 1000, ms % 1000)
    }
}

/// The text, family by family.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // A String takes whatever is written.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, word)) in labels.iter().enumerate() {
            let word = word.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{word}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one series.
    fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn by_kind(&mut self, name: &str, label: (&str, &str), connections: Connections) {
        self.sample(name, &[label, ("kind", "http")], connections.http);
        self.sample(name, &[label, ("kind", "websocket")], connections.websocket);
    }

    fn histogram(&mut self, name: &str, label: (&str, &str), histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            self.sample(&bucket, &[label, ("le", &bound_word(bound))], count);
        }
        self.sample(&bucket, &[label, ("le", "+Inf")], histogram.count);
        self.sample(&format!("{name}_sum"), &[label], Seconds(histogram.sum_ms));
        self.sample(&format!("{name}_count"), &[label], histogram.count);
    }
}

/// `0.25`, `5`.
fn bound_word(ms: u64) -> String {
    let word = Seconds(ms).to_string();
    word.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_label_is_escaped() {
        let mut text = Text::default();
        text.sample("x", &[("a", "\"\\\n"), ("b", "c")], 1);
        assert_eq!(text.0, "x{a=\"\\\"\\\\\\n\",b=\"c\"} 1\n");
    }

    #[test]
    fn bounds_are_written_as_short_as_they_can_be() {
        let words: Vec<_> = [1, 10, 250, 1000, 2500, 300_000].map(bound_word).into();
        assert_eq!(words, ["0.001", "0.01", "0.25", "1", "2.5", "300"]);
    }

    #[test]
    fn a_front_that_is_gone_is_one_number() {
        let text = exposition(&Err("gone".into()));
        assert_eq!(text.lines().last(), Some("holdfast_up 0"));
        assert_eq!(text.lines().count(), 3);
    }
}
