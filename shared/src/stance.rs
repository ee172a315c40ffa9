//! What a worker may do at this moment, as the front has told it.
//!
//! ```text
//! Waiting ──admit──► Admitted ◄──admit── Stopped
//!    │                  └──stop accepting──►│
//!    │ front gone       drain: from each of them ──► Draining (the deadline only comes closer)
//!    └──► Dismissed
//! ```

use std::time::{Duration, Instant};

use crate::message::{Drain, Newcomers};

/// What a worker may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// Get ready; accept nothing.
    Waiting,
    /// Accept and serve.
    Admitted,
    /// Serve what is open; accept nothing. It may be admitted again.
    Stopped,
    /// Finish what is open by the deadline, then leave.
    Draining {
        /// When what is left is cut.
        deadline: Instant,
        /// Whether to accept meanwhile.
        newcomers: Newcomers,
    },
    /// The front is gone and never admitted this worker: leave at once.
    Dismissed,
}

impl Stance {
    /// Whether the worker accepts from the shared sockets now.
    #[must_use]
    pub const fn accepts(self) -> bool {
        matches!(self, Self::Admitted | Self::Draining { newcomers: Newcomers::Serve, .. })
    }

    /// Whether the worker will never accept again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Draining { newcomers: Newcomers::Leave, .. } | Self::Dismissed)
    }

    /// When to be gone, once a drain has begun.
    #[must_use]
    pub const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Draining { deadline, .. } => Some(deadline),
            Self::Waiting | Self::Admitted | Self::Stopped | Self::Dismissed => None,
        }
    }

    /// After the front said `Admit`. A drain is not taken back.
    #[must_use]
    pub const fn admitted(self) -> Self {
        match self {
            Self::Waiting | Self::Admitted | Self::Stopped => Self::Admitted,
            Self::Draining { .. } | Self::Dismissed => self,
        }
    }

    /// After the front said `StopAccepting`.
    #[must_use]
    pub const fn stopped(self) -> Self {
        match self {
            Self::Waiting | Self::Admitted | Self::Stopped => Self::Stopped,
            Self::Draining { deadline, .. } => {
                Self::Draining { deadline, newcomers: Newcomers::Leave }
            }
            Self::Dismissed => self,
        }
    }

    /// After the front, or the worker itself, asked for a drain at `now`.
    #[must_use]
    pub fn draining(self, drain: Drain, now: Instant) -> Self {
        // A year is for ever here, and no clock overflows by it.
        let timeout = Duration::from_millis(drain.timeout_ms).min(Duration::from_hours(24 * 365));
        let asked = now + timeout;
        match self {
            Self::Waiting | Self::Admitted | Self::Stopped => {
                Self::Draining { deadline: asked, newcomers: drain.newcomers }
            }
            Self::Draining { deadline, newcomers } => Self::Draining {
                deadline: deadline.min(asked),
                // Who has stopped accepting does not begin again.
                newcomers: match newcomers {
                    Newcomers::Leave => Newcomers::Leave,
                    Newcomers::Serve => drain.newcomers,
                },
            },
            Self::Dismissed => self,
        }
    }

    /// After the link ended. An admitted worker serves on: its sockets are as good as before.
    #[must_use]
    pub const fn front_gone(self) -> Self {
        match self {
            Self::Waiting | Self::Dismissed => Self::Dismissed,
            Self::Admitted | Self::Stopped | Self::Draining { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_stance(now: Instant) -> Vec<Stance> {
        let deadline = now + Duration::from_secs(30);
        vec![
            Stance::Waiting,
            Stance::Admitted,
            Stance::Stopped,
            Stance::Draining { deadline, newcomers: Newcomers::Leave },
            Stance::Draining { deadline, newcomers: Newcomers::Serve },
            Stance::Dismissed,
        ]
    }

    #[test]
    fn a_drain_is_never_taken_back_and_its_deadline_never_moves_away() {
        let now = Instant::now();
        for stance in every_stance(now) {
            let longer = Drain::within(Duration::from_secs(60));
            let shorter = Drain::within(Duration::ZERO);
            for after in [
                stance.admitted(),
                stance.stopped(),
                stance.front_gone(),
                stance.draining(longer, now),
                stance.draining(shorter, now),
            ] {
                if let Some(deadline) = stance.deadline() {
                    assert!(after.deadline().is_some_and(|d| d <= deadline), "{stance:?}");
                }
                if stance.is_final() {
                    assert!(after.is_final() && !after.accepts(), "{stance:?} became {after:?}");
                }
            }
        }
    }

    #[test]
    fn only_a_worker_that_was_never_admitted_leaves_with_its_front() {
        let now = Instant::now();
        for stance in every_stance(now) {
            let after = stance.front_gone();
            let dismissed = matches!(stance, Stance::Waiting | Stance::Dismissed);
            assert_eq!(after == Stance::Dismissed, dismissed);
        }
    }

    #[test]
    fn a_stopped_worker_can_be_admitted_again() {
        assert_eq!(Stance::Admitted.stopped().admitted(), Stance::Admitted);
    }

    #[test]
    fn the_longest_timeout_a_message_can_carry_is_a_deadline_all_the_same() {
        let drain = Drain { timeout_ms: u64::MAX, newcomers: Newcomers::Leave };
        assert!(Stance::Admitted.draining(drain, Instant::now()).deadline().is_some());
    }
}
