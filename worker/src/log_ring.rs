//! The last lines of this generation's log, kept in memory for clients that ask for them.
//!
//! What a worker writes to stderr is its supervisor's, who may put it anywhere, so there is no file that the
//! worker could read back. What is kept here are the same events, above the same level, as JSON in the shape that
//! OpenClaw's clients read; it ends with this generation, and its successor begins an own one.
//!
//! **Invariants**
//! - Never more than [`MOST_BYTES`]: the oldest lines go first.
//! - A cursor is good in the generation that gave it, and never taken for a place in another's lines.
//! - Nothing is kept that is not logged; tokens and messages never are.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handoff::GenerationId;
use serde::Serialize;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How much is kept, in bytes.
const MOST_BYTES: u64 = 512 * 1024;
/// The longest message that is kept whole, in bytes.
const LONGEST: usize = 8 * 1024;
/// How far the cursors of two generations lie apart, as a power of two.
const APART: u32 = 40;
/// So many generations can be told apart: their cursors are whole numbers in any client.
const APART_AT_ONCE: u64 = 1 << 12;

/// The lines. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogRing {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    /// Whose lines these are.
    name: String,
    lines: VecDeque<Box<str>>,
    /// Where the first line of all was, the first one that is kept, and where the next one will be.
    origin: u64,
    begin: u64,
    end: u64,
}

impl Default for Kept {
    fn default() -> Self {
        let name = "holdfast-worker, in memory".to_owned();
        Self { name, lines: VecDeque::new(), origin: 0, begin: 0, end: 0 }
    }
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// From here on, where an earlier answer ended.
    pub(crate) cursor: Option<u64>,
    /// So many lines at most.
    pub(crate) limit: usize,
    /// So many bytes at most.
    pub(crate) max_bytes: u64,
}

/// The end of the log, as clients are told.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tail {
    file: String,
    cursor: u64,
    size: u64,
    lines: Vec<Box<str>>,
    truncated: bool,
    reset: bool,
}

impl LogRing {
    /// Says whose lines these are.
    pub(crate) fn belongs_to(&self, generation: GenerationId) {
        let mut kept = self.kept();
        let distance = (generation.number() % APART_AT_ONCE) << APART;
        kept.origin += distance;
        kept.begin += distance;
        kept.end += distance;
        kept.name = format!("holdfast-worker {generation}, in memory");
    }

    /// The last lines, or those behind a cursor.
    pub(crate) fn tail(&self, wanted: Wanted) -> Tail {
        let kept = self.kept();
        let latest = kept.end.saturating_sub(wanted.max_bytes).max(kept.begin);
        let (start, truncated, reset) = match wanted.cursor {
            None => (latest, latest > kept.origin, false),
            Some(cursor) if cursor > kept.end => (latest, latest > kept.origin, true),
            Some(cursor) if cursor < latest => (latest, true, true),
            Some(cursor) => (cursor, false, false),
        };
        let mut at = kept.end;
        let mut lines: Vec<_> = kept
            .lines
            .iter()
            .rev()
            .take(wanted.limit)
            .take_while(|line| {
                at -= size(line);
                at >= start
            })
            .cloned()
            .collect();
        lines.reverse();
        let (file, cursor) = (kept.name.clone(), kept.end);
        Tail { file, cursor, size: cursor, lines, truncated, reset }
    }

    fn keep(&self, line: String) {
        let mut kept = self.kept();
        kept.end += size(&line);
        kept.lines.push_back(line.into());
        while kept.end - kept.begin > MOST_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.begin += size(&oldest);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic between two of its operations leaves at worst a line uncounted.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With the end of the line, as in a file.
const fn size(line: &str) -> u64 {
    line.len() as u64 + 1
}

impl<S: Subscriber> Layer<S> for LogRing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let Words { mut message, fields } = words;
        message.push_str(&fields);
        if message.len() > LONGEST {
            message.truncate(message.floor_char_boundary(LONGEST));
            message.push('…');
        }
        let metadata = event.metadata();
        let subsystem = json!({"subsystem": metadata.target()}).to_string();
        let time = jiff::Timestamp::now().to_string();
        let line = json!({
            "0": message,
            "_meta": {"date": time, "logLevelName": metadata.level().as_str(), "name": subsystem},
            "time": time,
        });
        self.keep(line.to_string());
    }
}

/// An event in words: its message, then its fields.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{}", handoff::chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes whatever is written to it.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn of(lines: &[&str]) -> LogRing {
        let ring = LogRing::default();
        for line in lines {
            ring.keep((*line).to_owned());
        }
        ring
    }

    fn wanted(cursor: Option<u64>) -> Wanted {
        Wanted { cursor, limit: 500, max_bytes: 250_000 }
    }

    fn texts(tail: &Tail) -> Vec<&str> {
        tail.lines.iter().map(|line| &**line).collect()
    }

    #[test]
    fn a_cursor_goes_on_where_the_answer_before_it_ended() {
        let ring = of(&["a", "b"]);
        let first = ring.tail(wanted(None));
        assert_eq!(
            (texts(&first), first.cursor, first.truncated, first.reset),
            (vec!["a", "b"], 4, false, false)
        );
        assert_eq!(texts(&ring.tail(wanted(Some(4)))), Vec::<&str>::new());
        ring.keep("c".to_owned());
        let next = ring.tail(wanted(Some(4)));
        assert_eq!((texts(&next), next.cursor, next.reset), (vec!["c"], 6, false));
    }

    #[test]
    fn bytes_and_lines_are_bounded_and_no_line_is_cut() {
        let ring = of(&["aaa", "bbb", "ccc"]);
        let few = ring.tail(Wanted { limit: 1, ..wanted(None) });
        assert_eq!(texts(&few), ["ccc"]);
        let short = ring.tail(Wanted { max_bytes: 9, ..wanted(None) });
        assert_eq!((texts(&short), short.truncated), (vec!["bbb", "ccc"], true));
        let late = ring.tail(Wanted { max_bytes: 4, ..wanted(Some(0)) });
        assert_eq!((texts(&late), late.truncated, late.reset), (vec!["ccc"], true, true));
    }

    #[test]
    fn the_oldest_lines_are_forgotten_and_whoever_missed_them_is_told() {
        let ring = LogRing::default();
        let line = "x".repeat(1023);
        for _ in 0..600 {
            ring.keep(line.clone());
        }
        let tail = ring.tail(Wanted { limit: 5000, max_bytes: 1_000_000, cursor: Some(10) });
        assert_eq!((tail.lines.len(), tail.truncated, tail.reset), (512, true, true));
    }

    #[test]
    fn a_cursor_of_another_generation_begins_anew_whichever_it_was() {
        let generations = [1, 2, 4097].map(|number| {
            let ring = of(&["a"]);
            ring.belongs_to(GenerationId::new(number));
            ring
        });
        let [first, second, _] = &generations;
        assert_eq!(first.tail(wanted(None)).file, "holdfast-worker g1, in memory");
        for (ring, other) in [(first, second), (second, first)] {
            let tail = ring.tail(wanted(Some(other.tail(wanted(None)).cursor)));
            assert_eq!((texts(&tail), tail.reset), (vec!["a"], true));
        }
        for ring in &generations {
            let cursor = ring.tail(wanted(None)).cursor;
            assert!(cursor < 1 << 53, "{cursor}");
            assert!(!ring.tail(wanted(Some(cursor))).reset);
        }
    }

    #[test]
    fn a_line_is_read_by_openclaws_clients() {
        let ring = LogRing::default();
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(ring.clone()),
            || {
                info!(moved = 3, by = "hand", "drained");
                let error = std::io::Error::other("no room");
                warn!(error = &error as &dyn std::error::Error, "could not write");
            },
        );
        let tail = ring.tail(wanted(None));
        let [first, second] = &*tail.lines else { panic!("{tail:?}") };
        let line: serde_json::Value = serde_json::from_str(first).unwrap();
        assert_eq!(line["0"], "drained moved=3 by=hand");
        assert_eq!(line["_meta"]["logLevelName"], "INFO");
        assert!(line["_meta"]["name"].as_str().unwrap().starts_with("{\"subsystem\":\"holdfast"));
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        assert!(second.contains("could not write error=no room"), "{second}");
    }
}
