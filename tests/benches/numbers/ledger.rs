//! What requests were given: an answer, or which kind of loss.
//!
//! **Invariants**
//! - Every request that was begun is entered exactly once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use handoff::GenerationId;
use holdfast_tests::rig::http::{Failure, Response};

use crate::figures::grouped;
use crate::report::Report;

/// Whether everything that was promised an answer got one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    Kept,
    Broken,
}

impl Promise {
    /// Kept if nothing was lost.
    pub(crate) const fn kept_if(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Broken }
    }

    /// Kept if both were.
    pub(crate) fn and(self, other: Self) -> Self {
        Self::kept_if(self == Self::Kept && other == Self::Kept)
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    New,
    KeepAlive,
    Slow,
    Upload,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::New => "new connections",
            Self::KeepAlive => "keep-alive POSTs",
            Self::Slow => "slow requests, 2 s",
            Self::Upload => "uploads, 0.5 s",
        }
    }
}

/// How a request was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    Refused,
    Reset,
    /// End of file before a byte of the answer.
    Eof,
    /// In the midst of the answer.
    Cut,
    /// Answered with 5xx.
    ServerError,
    /// Anything else: never connected, no answer in time, another status.
    Other,
    /// A drained connection was closed while idle and the request was under way: RFC 9112 section
    /// 9.3.1 leaves no other way to a server that closes. Not promised, and counted apart.
    Raced,
}

impl Loss {
    const ALL: [Self; 7] = [
        Self::Refused,
        Self::Reset,
        Self::Eof,
        Self::Cut,
        Self::ServerError,
        Self::Other,
        Self::Raced,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Eof => "EOF",
            Self::Cut => "cut",
            Self::ServerError => "5xx",
            Self::Other => "other",
            Self::Raced => "raced",
        }
    }
}

impl From<&Failure> for Loss {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Refused => Self::Refused,
            Failure::Reset => Self::Reset,
            Failure::Closed => Self::Eof,
            Failure::Cut { .. } => Self::Cut,
            Failure::Status { code } if *code >= 500 => Self::ServerError,
            Failure::Status { .. }
            | Failure::TimedOut
            | Failure::Malformed { .. }
            | Failure::Other { .. } => Self::Other,
        }
    }
}

/// One lost request.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) kind: Kind,
    pub(crate) loss: Loss,
    pub(crate) begun_at: Instant,
    reason: String,
}

/// What the requests of some clients were given.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    attempts: BTreeMap<Kind, u64>,
    answered: BTreeMap<Kind, u64>,
    lost: Vec<Lost>,
    /// When the first answer of each generation had come.
    first_answers: BTreeMap<GenerationId, Instant>,
}

/// A ledger that many clients write.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedLedger {
    ledger: Arc<Mutex<Ledger>>,
}

impl SharedLedger {
    pub(crate) fn open(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters how a request ended that was begun then.
    pub(crate) fn enter(&self, kind: Kind, begun_at: Instant, outcome: Result<Response, Failure>) {
        match outcome.and_then(Self::successful) {
            Ok(response) => self.open().enter_answer(kind, &response),
            Err(failure) => {
                self.open().enter_loss(kind, begun_at, (&failure).into(), failure.to_string());
            }
        }
    }

    /// Enters a request that met the race of a drained keep-alive connection.
    pub(crate) fn enter_race(&self, kind: Kind, begun_at: Instant) {
        self.open().enter_loss(kind, begun_at, Loss::Raced, String::new());
    }

    fn successful(response: Response) -> Result<Response, Failure> {
        let code = response.code;
        if code == 200 { Ok(response) } else { Err(Failure::Status { code }) }
    }
}

impl Ledger {
    fn enter_answer(&mut self, kind: Kind, response: &Response) {
        *self.attempts.entry(kind).or_default() += 1;
        *self.answered.entry(kind).or_default() += 1;
        self.first_answers.entry(response.generation()).or_insert_with(Instant::now);
    }

    fn enter_loss(&mut self, kind: Kind, begun_at: Instant, loss: Loss, reason: String) {
        *self.attempts.entry(kind).or_default() += 1;
        self.lost.push(Lost { kind, loss, begun_at, reason });
    }

    /// How many requests were begun and have ended.
    pub(crate) fn attempts(&self) -> u64 {
        self.attempts.values().sum()
    }

    /// How many were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.values().sum()
    }

    /// When this generation's first answer had come.
    pub(crate) fn first_answer(&self, id: GenerationId) -> Option<Instant> {
        self.first_answers.get(&id).copied()
    }

    /// Those that were not answered.
    pub(crate) fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// How many were lost although they were promised an answer.
    pub(crate) fn promised_and_lost(&self) -> usize {
        self.lost.iter().filter(|lost| lost.loss != Loss::Raced).count()
    }

    /// Prints a line per kind of client, and the first few losses in words.
    pub(crate) fn print(&self, report: &Report) {
        let mut heads = format!("{:<20}{:>10}{:>10}", "requests", "attempts", "answered");
        for loss in Loss::ALL {
            heads.push_str(&format!("{:>9}", loss.word()));
        }
        report.note(&heads);
        for (kind, attempts) in &self.attempts {
            let answered = self.answered.get(kind).copied().unwrap_or_default();
            let (attempts, answered) = (grouped(*attempts), grouped(answered));
            let mut line = format!("{:<20}{attempts:>10}{answered:>10}", kind.words());
            for loss in Loss::ALL {
                let count = self.lost.iter().filter(|l| l.kind == *kind && l.loss == loss).count();
                line.push_str(&format!("{count:>9}"));
            }
            report.note(&line);
        }
        for lost in self.lost.iter().filter(|lost| lost.loss != Loss::Raced).take(10) {
            report.note(&format!("lost: {}: {}", lost.kind.words(), lost.reason));
        }
        report.note("");
    }
}
