//! What came of it: a page for people, a document for programs, and one line that says which way it went.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::book::{Kind, Load, Tally};
use super::latency::{BANDS_MS, Latencies};

/// The version of the document.
const SCHEMA: u32 = 1;
/// How long the longest bar of the histogram is, in characters.
const BAR: u64 = 20;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    AsPlanned,
    Interrupted,
    OutOfTime,
    FrontGone { reason: String },
}

/// One load, and what became of its requests.
#[derive(Clone, Debug)]
pub(crate) struct LoadReport {
    pub(super) load: Load,
    pub(super) clients: u32,
    pub(super) doing: String,
    pub(super) tally: Tally,
}

/// What came of all of it.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(super) wanted: u32,
    pub(super) committed: u32,
    /// Why those were not made that were not.
    pub(super) not_made: Vec<String>,
    /// How many connections drains have cut, whosever they were.
    pub(super) cut: u64,
    pub(super) loads: Vec<LoadReport>,
    pub(super) not_run: Vec<(Load, String)>,
    pub(super) before: Latencies,
    pub(super) during: Latencies,
    pub(super) ended: Ended,
}

/// Which way it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was lost.
    Held,
    /// Something was, or a takeover was not made.
    Failed,
}

#[derive(Serialize)]
struct Figures {
    answers: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    longest_us: u64,
}

impl Figures {
    fn of(latencies: &Latencies) -> Self {
        Self {
            answers: latencies.count(),
            p50_us: latencies.percentile_us(50),
            p99_us: latencies.percentile_us(99),
            longest_us: latencies.longest_us(),
        }
    }
}

impl Report {
    /// Which way it went.
    pub(crate) fn verdict(&self) -> Verdict {
        let gone = matches!(self.ended, Ended::FrontGone { .. });
        let unanswered = self.loads.iter().any(|load| load.tally.answered == 0);
        let as_planned = self.ended == Ended::AsPlanned;
        if self.lost() > 0 || !self.not_made.is_empty() || gone || (unanswered && as_planned) {
            Verdict::Failed
        } else {
            Verdict::Held
        }
    }

    fn lost(&self) -> u64 {
        self.loads.iter().map(|load| load.tally.lost()).sum()
    }

    fn attempts(&self) -> u64 {
        self.loads.iter().map(|load| load.tally.attempts()).sum()
    }

    /// In one line.
    pub(crate) fn spoken_verdict(&self) -> String {
        let (made, wanted) = (self.committed, self.wanted);
        let mut faults = Vec::new();
        if self.lost() > 0 {
            let kinds =
                self.kinds().into_iter().map(|(kind, count)| format!("{count} {}", kind.name()));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            faults.push(format!(
                "{} of {} requests were lost: {kinds}",
                self.lost(),
                self.attempts()
            ));
        }
        if let Some(reason) = self.not_made.last() {
            faults.push(format!(
                "{} of {wanted} takeovers were not made: {reason}",
                self.not_made.len()
            ));
        }
        if let Ended::FrontGone { reason } = &self.ended {
            faults.push(format!("the front went away: {reason}"));
        }
        for load in self.loads.iter().filter(|load| load.tally.answered == 0) {
            faults.push(format!("no answer to {} at all", load.load.name()));
        }
        let how_far = match self.ended {
            Ended::Interrupted => {
                format!(" when it was interrupted, after {made} of {wanted} takeovers")
            }
            Ended::OutOfTime => {
                format!(" within the time limit, which was over after {made} of {wanted} takeovers")
            }
            Ended::AsPlanned | Ended::FrontGone { .. } => format!(" in {made} takeovers"),
        };
        match self.verdict() {
            Verdict::Held => {
                format!("held: nothing of {} requests was lost{how_far}", self.attempts())
            }
            Verdict::Failed => format!("failed: {}", faults.join("; ")),
        }
    }

    /// How many requests were lost in which way.
    fn kinds(&self) -> Vec<(Kind, u64)> {
        let of = |kind| self.loads.iter().filter_map(|load| load.tally.lost.get(&kind)).sum();
        Kind::ALL.into_iter().map(|kind| (kind, of(kind))).filter(|(_, count)| *count > 0).collect()
    }

    /// For people.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "{:<18}{:>8}{:>10}{:>10}{:>7}{:>6}",
            "load", "clients", "requests", "answered", "raced", "lost"
        );
        for LoadReport { load, clients, tally, .. } in &self.loads {
            let _ = writeln!(
                page,
                "{:<18}{clients:>8}{:>10}{:>10}{:>7}{:>6}",
                load.name(),
                tally.attempts(),
                tally.answered,
                tally.raced,
                tally.lost()
            );
        }
        page.push('\n');
        for LoadReport { load, doing, tally, .. } in &self.loads {
            let _ = writeln!(page, "{}: {doing}", load.name());
            for (kind, count) in &tally.lost {
                let words = tally.words.get(kind).map_or("", String::as_str);
                let _ = writeln!(page, "  {count} {} ({words})", kind.name());
            }
        }
        for (load, reason) in &self.not_run {
            let _ = writeln!(page, "{}: not run, {reason}", load.name());
        }
        if self.cut > 0 {
            let _ = writeln!(
                page,
                "the front cut {} connections at the drain timeout, whosever they were",
                self.cut
            );
        }
        page.push('\n');
        self.histogram(&mut page);
        let _ = write!(page, "\n{}", self.spoken_verdict());
        page
    }

    fn histogram(&self, page: &mut String) {
        let sides = [&self.before, &self.during];
        let filled = |band: &usize| sides.iter().any(|side| side.bands()[*band] > 0);
        let all = 0..=BANDS_MS.len();
        let (Some(first), Some(last)) = (all.clone().find(filled), all.rev().find(filled)) else {
            return;
        };
        let most = |side: &Latencies| {
            side.bands().iter().max().map(|most| most * 1000 / side.count().max(1))
        };
        // The fullest band of both has the longest bar.
        let longest = sides.into_iter().filter_map(most).max().unwrap_or(0).max(1);
        let _ = writeln!(page, "{:<10}{:<28}during takeovers", "latency", "before");
        for band in first..=last {
            let _ = write!(page, "{:<10}", band_name(band));
            for side in sides {
                let (count, of) = (side.bands()[band], side.count().max(1));
                // Of the smallest part something is seen.
                let length = (count * 1000 * BAR).div_ceil(of * longest);
                let bar = "█".repeat(usize::try_from(length.min(BAR)).unwrap_or(0));
                let percent = share(count, of);
                let _ = write!(page, "{bar:<20} {percent:>5}  ");
            }
            trim(page);
        }
        let spoken = |us: Option<u64>| us.map_or_else(|| "none".to_owned(), spoken_us);
        let slowest = |side: &Latencies| (side.count() > 0).then(|| side.longest_us());
        for (name, of) in [
            ("p50", sides.map(|side| side.percentile_us(50))),
            ("p99", sides.map(|side| side.percentile_us(99))),
            ("longest", sides.map(slowest)),
        ] {
            let [before, during] = of.map(spoken);
            let _ = writeln!(page, "{name:<10}{before:<28}{during}");
        }
    }

    /// For programs. A later version adds fields, and raises `schema` when one that reads them would be misled.
    pub(crate) fn document(&self, private: bool) -> Value {
        let load = |load: &LoadReport| {
            let lost: serde_json::Map<_, _> = Kind::ALL
                .into_iter()
                .map(|kind| {
                    let count = load.tally.lost.get(&kind).copied().unwrap_or(0);
                    (kind.name().replace(' ', "_"), json!(count))
                })
                .collect();
            json!({
                "load": load.load.name(), "clients": load.clients, "does": load.doing,
                "requests": load.tally.attempts(), "answered": load.tally.answered,
                "raced": load.tally.raced, "lost": lost,
            })
        };
        let not_run =
            |(load, reason): &(Load, String)| json!({"load": load.name(), "reason": reason});
        json!({
            "schema": SCHEMA,
            "held": self.verdict() == Verdict::Held,
            "verdict": self.spoken_verdict(),
            "private": private,
            "ended": match self.ended {
                Ended::AsPlanned => "as-planned",
                Ended::Interrupted => "interrupted",
                Ended::OutOfTime => "out-of-time",
                Ended::FrontGone { .. } => "front-gone",
            },
            "takeovers": {
                "wanted": self.wanted, "committed": self.committed, "not_made": self.not_made,
                "cut": self.cut,
            },
            "loads": self.loads.iter().map(load).collect::<Vec<_>>(),
            "not_run": self.not_run.iter().map(not_run).collect::<Vec<_>>(),
            "latency": {"before": Figures::of(&self.before), "during": Figures::of(&self.during)},
        })
    }
}

/// Ends a line without the blanks before its end.
fn trim(page: &mut String) {
    page.truncate(page.trim_end_matches(' ').len());
    page.push('\n');
}

fn band_name(band: usize) -> String {
    let spoken = |ms: u64| if ms < 1000 { format!("{ms} ms") } else { format!("{} s", ms / 1000) };
    match BANDS_MS.get(band) {
        Some(end) => format!("< {}", spoken(*end)),
        None => "longer".to_owned(),
    }
}

/// A part in percent; what is more than nothing is not said to be nothing.
fn share(count: u64, of: u64) -> String {
    match (count, count * 1000 / of) {
        (0, _) => String::new(),
        (_, 0) => "<0.1%".to_owned(),
        (_, permille) => format!("{}.{}%", permille / 10, permille % 10),
    }
}

fn spoken_us(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", us / 1000),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(ended: Ended, lost: &[(Kind, u64)]) -> Report {
        let lost = lost.iter().copied().collect();
        let words = [(Kind::Reset, "connection reset by peer".to_owned())].into();
        let tally = Tally { answered: 90, raced: 1, lost, words };
        let (mut before, mut during) = (Latencies::default(), Latencies::default());
        before.enter(Duration::from_micros(300));
        during.enter(Duration::from_micros(1500));
        Report {
            wanted: 3,
            committed: 3,
            not_made: Vec::new(),
            cut: 0,
            loads: vec![LoadReport {
                load: Load::New,
                clients: 4,
                doing: "GET /".to_owned(),
                tally,
            }],
            not_run: vec![(Load::Stream, "nobody streams".to_owned())],
            before,
            during,
            ended,
        }
    }

    #[test]
    fn nothing_lost_is_held_and_a_race_is_no_loss() {
        let report = report(Ended::AsPlanned, &[]);
        assert_eq!(report.verdict(), Verdict::Held);
        assert_eq!(report.spoken_verdict(), "held: nothing of 91 requests was lost in 3 takeovers");
        let page = report.page();
        assert!(page.contains("streams: not run, nobody streams"), "{page}");
        assert!(page.contains("< 1 ms") && page.contains("< 2 ms"), "{page}");
        assert!(page.lines().all(|line| !line.ends_with(' ')), "{page}");
    }

    #[test]
    fn what_was_lost_is_named_by_its_kind() {
        let report = report(Ended::AsPlanned, &[(Kind::Reset, 2), (Kind::Late, 1)]);
        assert_eq!(report.verdict(), Verdict::Failed);
        let verdict = "failed: 3 of 94 requests were lost: 2 reset, 1 late";
        assert_eq!(report.spoken_verdict(), verdict);
        assert!(report.page().contains("2 reset (connection reset by peer)"));
        let document = report.document(true);
        assert_eq!(document["loads"][0]["lost"]["reset"], 2);
        assert_eq!(document["loads"][0]["lost"]["closed_early"], 0);
        assert_eq!((&document["held"], &document["schema"]), (&json!(false), &json!(1)));
    }

    #[test]
    fn an_end_before_its_time_is_said_and_judged_by_what_there_is() {
        let interrupted = report(Ended::Interrupted, &[]);
        assert_eq!(interrupted.verdict(), Verdict::Held);
        assert!(interrupted.spoken_verdict().contains("interrupted, after 3 of 3"));
        let gone = report(Ended::FrontGone { reason: "gone".to_owned() }, &[]);
        assert_eq!(gone.verdict(), Verdict::Failed);
    }

    #[test]
    fn a_takeover_that_was_not_made_is_no_proof() {
        let mut report = report(Ended::AsPlanned, &[]);
        report.not_made.push("rolled back: it died".to_owned());
        assert_eq!(report.verdict(), Verdict::Failed);
        let words = "failed: 1 of 3 takeovers were not made: rolled back: it died";
        assert_eq!(report.spoken_verdict(), words);
    }
}
