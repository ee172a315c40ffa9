//! What has happened since the front was started, as numbers that only grow: what the metrics are made of.
//!
//! **Invariants**
//! - It is as large after a million takeovers as after one: no number is kept by generation.
//! - It goes from image to image (`reexec/state.rs`); fields that a reader does not know, or does not find, are 0.

use handoff::message::{Connections, Drained, GenerationId};
use serde::{Deserialize, Serialize};

use crate::control::document::{LastTakeover, Phases};
use crate::control::protocol::Outcome;
use crate::event::{Exit, Note};
use crate::story::Farewell;

/// The upper bounds of a histogram's buckets, in ms.
pub(crate) const BOUNDS_MS: [u64; 15] =
    [1, 5, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000];

/// Everything that is counted for the metrics and for nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tally {
    pub(crate) phases: PhaseTimes,
    pub(crate) restarts: Restarts,
    pub(crate) moved: Outcomes,
    /// Sessions that a successor went on with.
    pub(crate) sessions: u64,
    /// How often the process of the status page was started again.
    pub(crate) admin_restarts: u64,
}

/// How long each phase of a takeover took; a phase that was not gone through is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PhaseTimes {
    emptying: Histogram,
    starting: Histogram,
    admitting: Histogram,
    switching: Histogram,
    soaking: Histogram,
    draining: Histogram,
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Histogram {
    /// How many are within each of [`BOUNDS_MS`] and not within the one before. A list, so that an image with other
    /// bounds can read it.
    buckets: Vec<u64>,
    pub(crate) count: u64,
    pub(crate) sum_ms: u64,
}

/// Workers that had to be started again, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Restarts {
    pub(crate) exited: u64,
    pub(crate) signalled: u64,
    pub(crate) out_of_memory: u64,
    pub(crate) unknown: u64,
    pub(crate) not_serving: u64,
    pub(crate) standby_failed: u64,
}

/// What became of the connections of generations that were told to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outcomes {
    pub(crate) moved: Connections,
    pub(crate) finished: Connections,
    pub(crate) closed: Connections,
    pub(crate) cut: Connections,
    pub(crate) lost: Connections,
}

impl Histogram {
    fn observe(&mut self, ms: u64) {
        // Of an image that had other bounds.
        self.buckets.resize(BOUNDS_MS.len(), 0);
        if let Some(bucket) = BOUNDS_MS.iter().position(|bound| ms <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// How many were within each of [`BOUNDS_MS`].
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0;
        BOUNDS_MS.iter().enumerate().map(move |(at, bound)| {
            sum += self.buckets.get(at).copied().unwrap_or(0);
            (*bound, sum)
        })
    }
}

impl PhaseTimes {
    /// Each phase by its word, which is that of a takeover's step in `status`.
    pub(crate) const fn each(&self) -> [(&'static str, &Histogram); 6] {
        [
            ("emptying", &self.emptying),
            ("starting", &self.starting),
            ("admitting", &self.admitting),
            ("switching", &self.switching),
            ("soaking", &self.soaking),
            ("draining", &self.draining),
        ]
    }

    /// A takeover was committed or rolled back, having come so far.
    fn take(&mut self, phases: &Phases) {
        let Durations { emptying, starting, admitting, switching, soaking } = phases.durations();
        for (histogram, ms) in [
            (&mut self.emptying, emptying),
            (&mut self.starting, starting),
            (&mut self.admitting, admitting),
            (&mut self.switching, switching),
            (&mut self.soaking, soaking),
        ] {
            if let Some(ms) = ms {
                histogram.observe(ms);
            }
        }
    }
}

/// How long the phases up to the commit took, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Durations {
    pub(crate) emptying: Option<u64>,
    pub(crate) starting: Option<u64>,
    pub(crate) admitting: Option<u64>,
    pub(crate) switching: Option<u64>,
    pub(crate) soaking: Option<u64>,
}

impl Phases {
    /// How long each phase took that has ended.
    pub(crate) fn durations(&self) -> Durations {
        let between = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        // With `stop-first` the incumbent is gone before the successor is started.
        let emptied = self.drained_ms.filter(|at| self.ready_ms.is_none_or(|ready| *at <= ready));
        Durations {
            emptying: emptied.filter(|at| self.started_ms.is_none_or(|started| *at <= started)),
            starting: between(self.started_ms, self.ready_ms),
            admitting: between(self.ready_ms, self.accepting_ms),
            switching: between(self.accepting_ms, self.switched_ms),
            soaking: between(self.switched_ms.or(self.accepting_ms), self.committed_ms),
        }
    }

    /// How long the incumbent drained after the commit.
    pub(crate) fn draining(&self) -> Option<u64> {
        self.drained_ms?.checked_sub(self.committed_ms?)
    }
}

impl Tally {
    /// Takes a note of the policy's, after the story has: `last` is the takeover that ended last.
    pub(crate) fn heed(
        &mut self,
        note: &Note,
        farewell: Option<&Farewell>,
        last: impl FnOnce() -> Option<LastTakeover>,
    ) {
        match note {
            Note::Committed { .. } => {
                if let Some(last) = last() {
                    self.phases.take(&last.phases);
                }
            }
            Note::RolledBack { .. } => {
                if let Some(last) = last() {
                    self.phases.take(&last.phases);
                    add(&mut self.moved.lost, last.lost.unwrap_or_default());
                }
            }
            Note::Gone { generation, .. } => {
                self.gone(farewell);
                let drained = last().filter(|last| drained_now(last, *generation));
                if let Some(ms) = drained.and_then(|last| last.phases.draining()) {
                    self.phases.draining.observe(ms);
                }
            }
            Note::Crashed { exit, .. } => match exit {
                Exit::Code(_) => self.restarts.exited += 1,
                Exit::Signal(_) => self.restarts.signalled += 1,
                Exit::OutOfMemory => self.restarts.out_of_memory += 1,
                Exit::Unknown => self.restarts.unknown += 1,
            },
            Note::NotServing { .. } => self.restarts.not_serving += 1,
            Note::StandbyFailed { .. } => self.restarts.standby_failed += 1,
            _ => {}
        }
    }

    fn gone(&mut self, farewell: Option<&Farewell>) {
        let Some(farewell) = farewell else { return };
        // One that said nothing took with it whatever it had open.
        let silent = Drained { cut: farewell.report.connections, ..Drained::default() };
        let Drained { moved, sessions, finished, closed, cut } = farewell.drained.unwrap_or(silent);
        add(&mut self.moved.moved, moved);
        add(&mut self.moved.finished, finished);
        add(&mut self.moved.closed, closed);
        add(&mut self.moved.cut, cut);
        self.sessions = self.sessions.saturating_add(sessions);
    }
}

/// Whether it is the incumbent of the last takeover whose end this is.
fn drained_now(last: &LastTakeover, gone: GenerationId) -> bool {
    last.outcome == Outcome::Committed && last.incumbent == Some(gone)
}

const fn add(to: &mut Connections, more: Connections) {
    *to = to.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use handoff::message::Report;

    use super::*;
    use crate::event::TakeoverNumber;

    const G1: GenerationId = GenerationId::new(1);
    const G2: GenerationId = GenerationId::new(2);

    /// A takeover from g1 to g2, as status has it.
    fn last(phases: Phases, outcome: Outcome) -> LastTakeover {
        let text = r#"{"successor":"g2","incumbent":"g1","outcome":"committed","reason":null,
            "phases":{},"finished":null,"closed":null,"cut":null}"#;
        let last: LastTakeover = serde_json::from_str(text).unwrap();
        LastTakeover { phases, outcome, ..last }
    }

    fn phases() -> Phases {
        Phases {
            started_ms: Some(2),
            ready_ms: Some(302),
            accepting_ms: Some(305),
            switched_ms: Some(306),
            committed_ms: Some(1306),
            drained_ms: None,
        }
    }

    fn counts(tally: &Tally) -> [(u64, u64); 6] {
        tally.phases.each().map(|(_, histogram)| (histogram.count, histogram.sum_ms))
    }

    #[test]
    fn each_phase_of_a_takeover_is_counted_once_for_as_long_as_it_took() {
        let mut tally = Tally::default();
        let committed = Note::Committed { takeover: TakeoverNumber(1), successor: G2 };
        tally.heed(&committed, None, || Some(last(phases(), Outcome::Committed)));
        assert_eq!(counts(&tally), [(0, 0), (1, 300), (1, 3), (1, 1), (1, 1000), (0, 0)]);
        let drained = Phases { drained_ms: Some(1400), ..phases() };
        let gone = Note::Gone { generation: G1, exit: Exit::Code(0) };
        tally.heed(&gone, None, || Some(last(drained, Outcome::Committed)));
        assert_eq!(counts(&tally)[5], (1, 94));
        // Of somebody else.
        let gone = Note::Gone { generation: G2, exit: Exit::Code(0) };
        tally.heed(&gone, None, || Some(last(drained, Outcome::Committed)));
        assert_eq!(counts(&tally)[5], (1, 94));
    }

    #[test]
    fn an_incumbent_that_goes_first_is_emptied_and_does_not_drain() {
        let first = Phases {
            started_ms: Some(700),
            ready_ms: Some(900),
            accepting_ms: Some(901),
            switched_ms: None,
            committed_ms: Some(1901),
            drained_ms: Some(690),
        };
        let mut tally = Tally::default();
        let committed = Note::Committed { takeover: TakeoverNumber(1), successor: G2 };
        tally.heed(&committed, None, || Some(last(first, Outcome::Committed)));
        assert_eq!(counts(&tally), [(1, 690), (1, 200), (1, 1), (0, 0), (1, 1000), (0, 0)]);
        assert_eq!(first.draining(), None);
    }

    #[test]
    fn what_became_of_connections_is_added_up_and_who_said_nothing_cut_them() {
        let mut tally = Tally::default();
        let gone = Note::Gone { generation: G1, exit: Exit::Code(0) };
        let some = Connections { http: 2, websocket: 3 };
        let drained = Drained { moved: some, sessions: 1, ..Drained::default() };
        let report = Report { connections: some, ..Report::default() };
        let said = Farewell { drained: Some(drained), report: report.clone() };
        tally.heed(&gone, Some(&said), || None);
        tally.heed(&gone, Some(&Farewell { drained: None, report }), || None);
        assert_eq!((tally.moved.moved, tally.moved.cut, tally.sessions), (some, some, 1));
    }

    #[test]
    fn buckets_add_up_and_what_is_beyond_them_is_counted_all_the_same() {
        let mut histogram = Histogram::default();
        for ms in [0, 1, 2, 300_000, 300_001] {
            histogram.observe(ms);
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!((cumulative[0], cumulative[1]), ((1, 2), (5, 3)));
        assert_eq!(cumulative[14], (300_000, 4));
        assert_eq!(histogram.count, 5);
    }

    #[test]
    fn a_tally_of_another_image_is_read_whatever_it_has() {
        let text = r#"{"phases":{"soaking":{"buckets":[1,1],"count":2,"sum_ms":3},"x":1},"y":2}"#;
        let mut tally: Tally = serde_json::from_str(text).unwrap();
        tally.phases.soaking.observe(1);
        assert_eq!(counts(&tally)[4], (3, 4));
        assert_eq!(serde_json::from_str::<Tally>("{}").unwrap(), Tally::default());
        let written = serde_json::to_string(&tally).unwrap();
        assert_eq!(serde_json::from_str::<Tally>(&written).unwrap(), tally);
    }
}
