//! What happened lately, for whoever looks afterwards: `holdfast top`, a page, a metric.
//!
//! ```text
//! Note ──► one sentence ──► the last 50      a takeover that another one follows ──► the last 20
//! ```
//!
//! **Invariants**
//! - It never grows beyond [`MOST_EVENTS`], [`MOST_TAKEOVERS`] and [`MOST_CHARACTERS`].
//! - Nothing here waits or wakes: what is not asked for costs nothing.
//! - It goes from image to image with the rest of the front (`reexec/state.rs`). An image reads kinds that it does not
//!   know, so they are words and no enum.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Instant;

use handoff::message::{Drained, GenerationId, millis};
use serde::{Deserialize, Serialize};

use crate::control::document::{Happened, LastTakeover};
use crate::event::{Note, PauseEnd};
use crate::program::Program;
use crate::record::Record;
use crate::story::Farewell;

/// How many events are remembered.
const MOST_EVENTS: usize = 50;
/// How many takeovers are remembered, with the last one.
const MOST_TAKEOVERS: usize = 20;
/// The most characters of an event's sentence.
const MOST_CHARACTERS: usize = 240;

/// The last events and takeovers, the oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct History {
    events: VecDeque<Event>,
    /// Without the last one, which may still drain.
    earlier: VecDeque<Record>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    #[serde(with = "crate::age")]
    at: Instant,
    kind: Cow<'static, str>,
    generation: Option<GenerationId>,
    sentence: String,
}

impl History {
    /// Takes a note of the policy's.
    pub(crate) fn take(&mut self, note: &Note, farewell: Option<&Farewell>) {
        if let Some((kind, generation, sentence)) = told(note, farewell) {
            self.happened(kind, generation, &sentence);
        }
    }

    /// Something of this kind happened, to this generation if it was to one.
    fn happened(&mut self, kind: &'static str, generation: Option<GenerationId>, sentence: &str) {
        let sentence = sentence.chars().take(MOST_CHARACTERS).collect();
        let kind = Cow::Borrowed(kind);
        self.events.push_back(Event { at: Instant::now(), kind, generation, sentence });
        keep_last(&mut self.events, MOST_EVENTS);
    }

    /// A program is left for the one that had served well before.
    pub(crate) fn went_back(&mut self, from: &Program, to: &Program) {
        let sentence = format!("back to {to}, for {from} crashed again and again");
        self.happened("went-back", None, &sentence);
    }

    /// This image of the front is a new one.
    pub(crate) fn renewed(&mut self) {
        self.happened("renewed", None, &format!("the front renewed itself: {}", crate::VERSION));
    }

    /// This image of the front should have been replaced, and was not.
    pub(crate) fn not_renewed(&mut self, reason: &str) {
        self.happened("not-renewed", None, &format!("the front was not renewed: {reason}"));
    }

    /// This front goes on with the workers of one that died.
    pub(crate) fn recovered(&mut self, workers: &[GenerationId]) {
        let workers: Vec<_> = workers.iter().map(ToString::to_string).collect();
        let workers = workers.join(" and ");
        let sentence = format!("went on with {workers} of a front that had died");
        self.happened("recovered", None, &sentence);
    }

    /// A takeover is the last one no more.
    pub(crate) fn keep(&mut self, before: Option<Record>) {
        self.earlier.extend(before);
        keep_last(&mut self.earlier, MOST_TAKEOVERS - 1);
    }

    /// The events for status.
    pub(crate) fn events(&self) -> Vec<Happened> {
        let told = |event: &Event| Happened {
            age_ms: millis(event.at.elapsed()),
            kind: event.kind.to_string(),
            generation: event.generation,
            sentence: event.sentence.clone(),
        };
        self.events.iter().map(told).collect()
    }

    /// The takeovers for status, up to the `last` one.
    pub(crate) fn takeovers(&self, last: Option<&Record>) -> Vec<LastTakeover> {
        self.earlier.iter().chain(last).map(Record::told).collect()
    }
}

/// Another image may have kept more.
fn keep_last<T>(of: &mut VecDeque<T>, most: usize) {
    of.drain(..of.len().saturating_sub(most));
}

type Told = (&'static str, Option<GenerationId>, String);

/// The kind of event that a note is, and a sentence about it.
fn told(note: &Note, farewell: Option<&Farewell>) -> Option<Told> {
    let seconds = |limit| humantime::format_duration(limit);
    Some(match note {
        // Told by `went_back`, which knows the programs.
        Note::WentBack { .. } => return None,
        Note::Waits { takeover, draining } => {
            let sentence = format!("takeover {} waits until {draining} is drained", takeover.0);
            ("takeover-waits", Some(*draining), sentence)
        }
        Note::Began { takeover, incumbent } => {
            let who = incumbent.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            let sentence = format!("takeover {} began; {who} serves", takeover.0);
            ("takeover-began", *incumbent, sentence)
        }
        Note::Emptying(id) => ("emptying", Some(*id), format!("{id} finishes its work first")),
        Note::Started(id) => ("started", Some(*id), format!("{id} was started")),
        Note::Ready(id) => ("ready", Some(*id), format!("{id} is ready")),
        Note::Accepting(id) => ("accepting", Some(*id), format!("{id} accepts")),
        Note::Switched { successor: id } => {
            ("switched", Some(*id), format!("switched: only {id} accepts"))
        }
        Note::Unconfirmed(id) => {
            let sentence = format!("{id} did not confirm that it stopped accepting");
            ("unconfirmed", Some(*id), sentence)
        }
        Note::Committed { takeover, successor } => {
            let sentence = format!("takeover {} is committed: {successor} is trusted", takeover.0);
            ("committed", Some(*successor), sentence)
        }
        Note::RolledBack { takeover, successor, failure } => {
            let who = successor.map_or_else(|| "it".to_owned(), |id| id.to_string());
            let sentence = format!("takeover {} was rolled back: {who} {failure}", takeover.0);
            ("rolled-back", *successor, sentence)
        }
        Note::Serving(id) => ("serving", Some(*id), format!("{id} serves")),
        Note::NotServing { generation, failure } => {
            ("not-serving", Some(*generation), format!("{generation} {failure}"))
        }
        Note::Crashed { generation, exit } => {
            ("crashed", Some(*generation), format!("{generation} {exit} while it served"))
        }
        Note::AwaitsWorker => {
            ("awaits-worker", None, "nobody serves until a worker attaches itself".to_owned())
        }
        Note::StartsOwn => {
            let sentence = "the attached worker is gone: the front starts its own program";
            ("starts-own", None, sentence.to_owned())
        }
        Note::Returned(id) => ("returned", Some(*id), format!("{id} is here again")),
        Note::Pausing(pause) => {
            ("start-waits", None, format!("the next start waits for {}", seconds(*pause)))
        }
        Note::StandsBy(id) => ("stands-by", Some(*id), format!("{id} stands by")),
        Note::StandbyCalled(id) => {
            ("standby-called", Some(*id), format!("{id}, which stood by, is to serve"))
        }
        Note::StandbyFailed { generation, failure } => {
            ("standby-failed", Some(*generation), format!("the standby {generation} {failure}"))
        }
        Note::StandbyEnded(id) => {
            ("standby-ended", Some(*id), format!("the standby {id} is ended"))
        }
        Note::StandbyWaits(pause) => {
            let sentence = format!("the next standby's start waits for {}", seconds(*pause));
            ("standby-waits", None, sentence)
        }
        Note::PauseBegan { generation, timeout } => {
            let sentence = format!("{generation} is to pause for {} at most", seconds(*timeout));
            ("pause-began", Some(*generation), sentence)
        }
        Note::Paused(id) => {
            ("paused", Some(*id), format!("nobody accepts; {id} serves what it has open"))
        }
        Note::PauseEnded { generation, why } => {
            ("pause-ended", Some(*generation), format!("the pause is over{}", because(*why)))
        }
        Note::Resumed(id) => ("resumed", Some(*id), format!("{id} accepts again")),
        Note::HoldBegan => ("hold-began", None, "nobody accepts: newcomers wait".to_owned()),
        Note::HeldTooLong(limit) => {
            let limit = seconds(*limit);
            let sentence = format!("newcomers have waited for {limit} and are turned away");
            ("held-too-long", None, sentence)
        }
        Note::HoldEnded => ("hold-ended", None, "newcomers wait no more".to_owned()),
        Note::Overran(id) => {
            ("overran", Some(*id), format!("{id} overran its drain and was killed"))
        }
        Note::Gone { generation: id, exit } => match farewell.and_then(|farewell| farewell.drained)
        {
            Some(drained) => ("drained", Some(*id), format!("{id} drained: {}", counted(drained))),
            None => ("gone", Some(*id), format!("{id} {exit}")),
        },
    })
}

const fn because(why: PauseEnd) -> &'static str {
    match why {
        PauseEnd::Asked => "",
        PauseEnd::Expired => ": it has lasted as long as it may",
        PauseEnd::WorkerGone => ": its worker is gone",
        PauseEnd::Stopping => ": the front stops",
    }
}

fn counted(drained: Drained) -> String {
    let Drained { moved, finished, closed, cut, .. } = drained;
    format!(
        "moved {} · finished {} · closed {} · cut {}",
        moved.total(),
        finished.total(),
        closed.total(),
        cut.total()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use handoff::message::{Connections, Report};

    use super::*;
    use crate::event::{Exit, Failure, TakeoverNumber};

    fn g(number: u64) -> GenerationId {
        GenerationId::new(number)
    }

    fn last(history: &History) -> (String, String) {
        let event = history.events().pop().unwrap();
        (event.kind, event.sentence)
    }

    #[test]
    fn a_note_becomes_one_sentence_with_its_kind_and_its_generation() {
        let mut history = History::default();
        let number = TakeoverNumber(3);
        history.take(&Note::Began { takeover: number, incumbent: Some(g(1)) }, None);
        let failure = Failure::NotReady { limit: Duration::from_secs(60), failing: Vec::new() };
        history.take(&Note::RolledBack { takeover: number, successor: Some(g(2)), failure }, None);
        let events = history.events();
        assert_eq!(events[0].sentence, "takeover 3 began; g1 serves");
        assert_eq!(events[0].generation, Some(g(1)));
        assert_eq!(events[1].kind, "rolled-back");
        assert_eq!(events[1].sentence, "takeover 3 was rolled back: g2 was not ready within 60s");
    }

    #[test]
    fn who_drained_is_told_with_what_became_of_its_connections_and_who_did_not_with_its_end() {
        let mut history = History::default();
        let gone = Note::Gone { generation: g(1), exit: Exit::Code(0) };
        let drained = Drained {
            moved: Connections { http: 2, websocket: 3 },
            cut: Connections { http: 1, websocket: 0 },
            ..Drained::default()
        };
        let farewell = Farewell { drained: Some(drained), report: Report::default() };
        history.take(&gone, Some(&farewell));
        let sentence = "g1 drained: moved 5 · finished 0 · closed 0 · cut 1";
        assert_eq!(last(&history), ("drained".to_owned(), sentence.to_owned()));
        history.take(&gone, None);
        assert_eq!(last(&history), ("gone".to_owned(), "g1 exited with code 0".to_owned()));
    }

    #[test]
    fn the_history_ends_where_it_began_to_be_long() {
        let mut history = History::default();
        for number in 0..200 {
            history.happened("started", Some(g(number)), &"ä".repeat(10_000));
            history.keep(Some(Record::begun(TakeoverNumber(number), None)));
        }
        let events = history.events();
        assert_eq!(events.len(), MOST_EVENTS);
        assert_eq!(events[0].generation, Some(g(150)));
        assert!(events.iter().all(|event| event.sentence.chars().count() == MOST_CHARACTERS));
        let running = Record::begun(TakeoverNumber(200), None);
        let takeovers = history.takeovers(Some(&running));
        assert_eq!(takeovers.len(), MOST_TAKEOVERS);
        let numbers: Vec<_> = takeovers.iter().map(|takeover| takeover.number).collect();
        assert_eq!((numbers[0], numbers[19]), (181, 200));
    }

    #[test]
    fn the_history_is_written_down_and_read_again_with_kinds_of_a_later_image() {
        let mut history = History::default();
        history.happened("started", Some(g(1)), "g1 was started");
        history.keep(Some(Record::begun(TakeoverNumber(1), Some(g(1)))));
        let text = serde_json::to_string(&history).unwrap();
        let later = text.replace("\"started\"", "\"sang\"");
        let read: History = serde_json::from_str(&later).unwrap();
        assert_eq!(last(&read), ("sang".to_owned(), "g1 was started".to_owned()));
        assert_eq!(read.takeovers(None)[0].number, 1);
    }

    #[test]
    fn a_longer_history_of_another_image_is_shortened_at_the_next_event() {
        let mut history = History::default();
        history.happened("started", None, "");
        let one = history.events[0].clone();
        history.events.extend(std::iter::repeat_n(one, 500));
        history.happened("ready", None, "");
        assert_eq!(history.events().len(), MOST_EVENTS);
    }
}
