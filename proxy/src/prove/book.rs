//! What the clients were given: one entry for each request, and the judgement of those that got no answer.
//!
//! **Invariants**
//! - A request that was sent is answered, raced or lost, and nothing else.
//! - Only a request on a connection that had been answered before can be raced; only when not a byte of an answer came;
//!   and only while a worker drained: its deadline closed an idle connection while the request was on its way, which a
//!   client of any server has to expect (RFC 9112, 9.3.1). When that was is known at the end, so it is judged then.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::latency::Latencies;

/// How much later than a client the front may tell us of what it has done.
const LATE_NEWS: Duration = Duration::from_secs(1);
/// So many failures are kept to be judged and told of; the rest is counted as lost.
const MOST_KEPT: usize = 10_000;

/// What a client does, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// Connects, asks, and closes.
    New,
    /// Asks on the connection that it has.
    KeepAlive,
    /// Asks for an answer that comes in numbered pieces.
    Stream,
    /// Makes numbered calls over a WebSocket.
    WebSocket,
}

impl Load {
    /// As it is told.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::New => "new connections",
            Self::KeepAlive => "keep-alive",
            Self::Stream => "streams",
            Self::WebSocket => "websockets",
        }
    }
}

/// What a client saw instead of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Refused,
    Reset,
    ClosedEarly,
    WrongAnswer,
    Late,
    Events,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Refused,
        Self::Reset,
        Self::ClosedEarly,
        Self::WrongAnswer,
        Self::Late,
        Self::Events,
    ];

    /// As it is told.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::ClosedEarly => "closed early",
            Self::WrongAnswer => "wrong answer",
            Self::Late => "late",
            Self::Events => "missing or duplicated events",
        }
    }
}

/// Whether anything of an answer had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    Something,
}

/// Whether a connection had been answered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Fresh,
    Used,
}

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(super) kind: Kind,
    pub(super) seen: Seen,
    /// In which words.
    pub(super) detail: String,
}

impl Failed {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, seen: Seen::Something, detail: detail.into() }
    }
}

/// Before the first takeover, or since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Before,
    During,
}

/// What became of the requests of one load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) raced: u64,
    pub(crate) lost: BTreeMap<Kind, u64>,
    /// The first words of each kind of failure.
    pub(crate) words: BTreeMap<Kind, String>,
}

impl Tally {
    /// How many requests there were.
    pub(crate) fn attempts(&self) -> u64 {
        self.answered + self.raced + self.lost()
    }

    /// How many were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    fn lose(&mut self, kind: Kind, detail: String) {
        *self.lost.entry(kind).or_default() += 1;
        self.words.entry(kind).or_insert(detail);
    }
}

/// From a commit to the end of its drain; `None` while it lasts.
type Drain = (Instant, Option<Instant>);

#[derive(Debug)]
struct Entry {
    load: Load,
    failed: Failed,
    connection: Use,
    at: Instant,
}

/// The book of one run.
#[derive(Debug)]
pub(super) struct Book {
    phase: Cell<Phase>,
    takeovers: Cell<u32>,
    answered: RefCell<BTreeMap<Load, u64>>,
    latencies: RefCell<[Latencies; 2]>,
    failed: RefCell<Vec<Entry>>,
    beyond: RefCell<BTreeMap<(Load, Kind), u64>>,
    drains: RefCell<Vec<Drain>>,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            phase: Cell::new(Phase::Before),
            takeovers: Cell::new(0),
            answered: RefCell::default(),
            latencies: RefCell::default(),
            failed: RefCell::default(),
            beyond: RefCell::default(),
            drains: RefCell::default(),
        }
    }

    /// The takeovers begin.
    pub(super) fn begin_takeovers(&self) {
        self.phase.set(Phase::During);
    }

    /// One is over, whichever way it went.
    pub(super) fn takeover_ends(&self) {
        self.takeovers.set(self.takeovers.get() + 1);
    }

    /// How many are over.
    pub(super) fn takeovers(&self) -> u32 {
        self.takeovers.get()
    }

    /// A worker drains from now on.
    pub(super) fn drain_begins(&self) {
        self.drains.borrow_mut().push((Instant::now(), None));
    }

    /// It does not any more.
    pub(super) fn drain_ends(&self) {
        if let Some((_, end)) = self.drains.borrow_mut().last_mut() {
            end.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn answered(&self, load: Load, latency: Duration) {
        *self.answered.borrow_mut().entry(load).or_default() += 1;
        let index = usize::from(self.phase.get() == Phase::During);
        self.latencies.borrow_mut()[index].enter(latency);
    }

    pub(super) fn failed(&self, load: Load, failed: Failed, connection: Use) {
        let mut kept = self.failed.borrow_mut();
        if kept.len() < MOST_KEPT {
            kept.push(Entry { load, failed, connection, at: Instant::now() });
        } else {
            *self.beyond.borrow_mut().entry((load, failed.kind)).or_default() += 1;
        }
    }

    /// How many requests were answered, and how many were not, whatever will be said of those.
    pub(super) fn so_far(&self) -> (u64, u64) {
        let beyond: u64 = self.beyond.borrow().values().sum();
        (self.answered.borrow().values().sum(), self.failed.borrow().len() as u64 + beyond)
    }

    /// How many requests of a load were answered.
    pub(super) fn answers_to(&self, load: Load) -> u64 {
        self.answered.borrow().get(&load).copied().unwrap_or(0)
    }

    /// How long answers took, before the first takeover and since.
    pub(super) fn latencies(&self) -> [Latencies; 2] {
        self.latencies.borrow().clone()
    }

    /// What became of all requests of a load.
    pub(super) fn judge(&self, load: Load) -> Tally {
        let mut tally = Tally { answered: self.answers_to(load), ..Tally::default() };
        for entry in self.failed.borrow().iter().filter(|entry| entry.load == load) {
            if self.is_race(entry) {
                tally.raced += 1;
            } else {
                tally.lose(entry.failed.kind, entry.failed.detail.clone());
            }
        }
        for ((_, kind), count) in self.beyond.borrow().iter().filter(|((of, _), _)| *of == load) {
            *tally.lost.entry(*kind).or_default() += count;
        }
        tally
    }

    fn is_race(&self, entry: &Entry) -> bool {
        let closed = matches!(entry.failed.kind, Kind::Reset | Kind::ClosedEarly);
        let unseen = entry.failed.seen == Seen::Nothing && entry.connection == Use::Used;
        let drained = |(begin, end): &Drain| {
            *begin <= entry.at + LATE_NEWS && end.is_none_or(|end| entry.at <= end + LATE_NEWS)
        };
        closed && unseen && self.drains.borrow().iter().any(drained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(seen: Seen) -> Failed {
        Failed { kind: Kind::ClosedEarly, seen, detail: "closed".to_owned() }
    }

    fn judged(failed: Failed, connection: Use, book: &Book) -> (u64, u64) {
        book.failed(Load::KeepAlive, failed, connection);
        let tally = book.judge(Load::KeepAlive);
        assert_eq!(tally.attempts(), 1);
        (tally.raced, tally.lost())
    }

    #[test]
    fn a_used_connection_that_is_closed_unanswered_while_a_worker_drains_is_a_race() {
        let book = Book::new();
        book.drain_begins();
        book.drain_ends();
        assert_eq!(judged(closed(Seen::Nothing), Use::Used, &book), (1, 0));
    }

    #[test]
    fn without_a_drain_it_is_lost_and_so_is_what_was_begun_and_what_was_new() {
        let draining = || {
            let book = Book::new();
            book.drain_begins();
            book
        };
        assert_eq!(judged(closed(Seen::Nothing), Use::Used, &Book::new()), (0, 1));
        assert_eq!(judged(closed(Seen::Something), Use::Used, &draining()), (0, 1));
        assert_eq!(judged(closed(Seen::Nothing), Use::Fresh, &draining()), (0, 1));
        let late = Failed { seen: Seen::Nothing, ..Failed::new(Kind::Late, "late") };
        assert_eq!(judged(late, Use::Used, &draining()), (0, 1));
    }

    #[test]
    fn a_drain_that_ended_long_before_excuses_nothing() {
        let book = Book::new();
        let Some(long_ago) = Instant::now().checked_sub(LATE_NEWS * 3) else { return };
        book.drains.borrow_mut().push((long_ago, Some(long_ago)));
        assert_eq!(judged(closed(Seen::Nothing), Use::Used, &book), (0, 1));
    }

    #[test]
    fn what_is_too_much_to_be_kept_is_counted() {
        let book = Book::new();
        for _ in 0..MOST_KEPT + 5 {
            book.failed(Load::New, Failed::new(Kind::Refused, "refused"), Use::Fresh);
        }
        let tally = book.judge(Load::New);
        assert_eq!(tally.lost(), MOST_KEPT as u64 + 5);
        assert_eq!(book.so_far(), (0, MOST_KEPT as u64 + 5));
    }
}
