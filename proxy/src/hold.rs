//! The hold of `stop-first`: the time in which nobody accepts and newcomers wait in the kernel's queue. A pause that the
//! operator asked for is none, and has a deadline of its own (`pause.rs`).
//!
//! ```text
//! somebody accepts ──► held ── --hold-timeout ──► turned away: accepted, to be closed
//!         ▲             │                             │
//!         └─────────────┴──── somebody is admitted ───┘
//! ```
//!
//! **Invariants**
//! - The front accepts in order to close only while no generation does, and stops before one is admitted.
//! - It is looked at after everything that happens, so no way into a hold or out of it is forgotten.

use serde::{Deserialize, Serialize};

use crate::event::{Action, Deadline, Note, ProgramId, TakeoverOrder};
use crate::generation::{Course, Generations};

/// What becomes of clients that connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Hold {
    /// A generation accepts them, or they are not held for an order's sake.
    None,
    /// They wait.
    Held,
    /// They have waited long enough, and are accepted to be closed.
    TurnedAway,
}

impl Generations {
    /// Whether newcomers wait because one program has to be gone before the next one starts.
    pub(crate) fn holds(&self) -> bool {
        (self.rules.order == TakeoverOrder::StopFirst || self.current == ProgramId::ATTACHED)
            && !matches!(self.course, Course::Leaving | Course::Paused(_))
            && !self.living.values().any(|generation| generation.state.may_accept())
    }

    /// Begins or ends the hold, after something has happened.
    pub(crate) fn mind_hold(&mut self, actions: &mut Vec<Action>) {
        match (self.hold, self.holds()) {
            (Hold::None, true) => {
                self.hold = Hold::Held;
                actions.push(Action::SetDeadline(Deadline::Held, self.rules.hold_timeout));
                actions.push(Action::Note(Note::HoldBegan));
            }
            (Hold::Held, false) => {
                actions.insert(0, Action::ClearDeadline(Deadline::Held));
                self.end_hold(actions);
            }
            (Hold::TurnedAway, false) => {
                // Whoever is admitted comes later in these actions.
                actions.insert(0, Action::TurnNobodyAway);
                self.end_hold(actions);
            }
            (Hold::None, false) | (Hold::Held | Hold::TurnedAway, true) => {}
        }
    }

    fn end_hold(&mut self, actions: &mut Vec<Action>) {
        self.hold = Hold::None;
        actions.push(Action::Note(Note::HoldEnded));
    }

    /// Newcomers have waited for as long as they may.
    pub(crate) fn on_held_too_long(&mut self, actions: &mut Vec<Action>) {
        if self.hold == Hold::Held {
            self.hold = Hold::TurnedAway;
            actions.push(Action::Note(Note::HeldTooLong(self.rules.hold_timeout)));
            actions.push(Action::TurnAway);
        }
    }
}
