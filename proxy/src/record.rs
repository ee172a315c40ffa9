//! One takeover, for whoever asks about it afterwards.

use std::time::Instant;

use handoff::message::{Connections, Drained, GenerationId, millis};
use serde::{Deserialize, Serialize};

use crate::control::document::{LastTakeover, Phases};
use crate::control::protocol::Outcome;
use crate::event::TakeoverNumber;

/// One takeover, as far as it has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) number: TakeoverNumber,
    #[serde(with = "crate::age")]
    pub(crate) began_at: Instant,
    pub(crate) incumbent: Option<GenerationId>,
    pub(crate) successor: Option<GenerationId>,
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<String>,
    pub(crate) phases: Phases,
    pub(crate) drained: Option<Drained>,
    /// Connections that had moved to a successor that failed.
    pub(crate) lost: Connections,
    /// How long nobody accepted at most, in ms, and whom that was too long for.
    pub(crate) held_ms: Option<u64>,
    pub(crate) turned_away: u64,
}

impl Record {
    /// One that has just begun: rolled back, unless it comes otherwise.
    pub(crate) fn begun(number: TakeoverNumber, incumbent: Option<GenerationId>) -> Self {
        Self {
            number,
            began_at: Instant::now(),
            incumbent,
            successor: None,
            outcome: Outcome::RolledBack,
            reason: None,
            phases: Phases::default(),
            drained: None,
            lost: Connections::default(),
            held_ms: None,
            turned_away: 0,
        }
    }

    /// The same for status.
    pub(crate) fn told(&self) -> LastTakeover {
        LastTakeover {
            number: self.number.0,
            age_ms: millis(self.began_at.elapsed()),
            successor: self.successor,
            incumbent: self.incumbent,
            outcome: self.outcome,
            reason: self.reason.clone(),
            phases: self.phases,
            moved: self.drained.map(|drained| drained.moved),
            sessions: self.drained.map(|drained| drained.sessions),
            finished: self.drained.map(|drained| drained.finished),
            closed: self.drained.map(|drained| drained.closed),
            cut: self.drained.map(|drained| drained.cut),
            lost: (self.outcome == Outcome::RolledBack).then_some(self.lost),
            held_ms: self.held_ms,
            turned_away: self.turned_away,
        }
    }
}
