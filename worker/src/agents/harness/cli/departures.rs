//! How sessions leave: where they take their seats among what may move, and whose the lanes of their sessions are.
//!
//! **Invariants**
//! - Without a roster, and once clients are dismissed, nothing waits to move: what rests is ended with the worker.

use std::fmt;
use std::sync::OnceLock;

use handoff::migrate::{Roster, Seat};
use tokio::sync::watch;

/// Gives the lane of a session to the successor, if there is one, as soon as nobody runs in it.
pub(super) type YieldLane = dyn Fn(&str) + Send + Sync;

/// See the module.
pub(super) struct Departures {
    /// Set before the worker is ready, if anything moves.
    roster: OnceLock<Roster>,
    yield_lane: OnceLock<Box<YieldLane>>,
    dismissed: watch::Sender<bool>,
}

impl Default for Departures {
    fn default() -> Self {
        let (roster, yield_lane) = (OnceLock::new(), OnceLock::new());
        Self { roster, yield_lane, dismissed: watch::Sender::new(false) }
    }
}

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departures").field("roster", &self.roster).finish_non_exhaustive()
    }
}

impl Departures {
    /// Sessions move from now on.
    pub(super) fn open(&self, roster: Roster, yield_lane: Box<YieldLane>) {
        // It is said once.
        let _ = self.yield_lane.set(yield_lane);
        let _ = self.roster.set(roster);
    }

    /// Nothing moves any more.
    pub(super) fn dismiss(&self) {
        self.dismissed.send_replace(true);
    }

    /// A seat for a session, unless sessions do not move.
    pub(super) fn seat(&self) -> Option<Seat> {
        if *self.dismissed.borrow() {
            return None;
        }
        self.roster.get().map(Roster::session_seat)
    }

    /// Ends when nothing moves any more. Cancel-safe.
    pub(super) async fn dismissed(&self) {
        // The sender lives as long as `self`.
        let _ = self.dismissed.subscribe().wait_for(|dismissed| *dismissed).await;
    }

    /// The program of this session is to move: its lane goes ahead as soon as nobody runs in it.
    pub(super) fn yield_lane(&self, session: &str) {
        if let Some(yield_lane) = self.yield_lane.get() {
            yield_lane(session);
        }
    }
}
