//! The sessions of a backend that live: each has a [keeper](keeper::Keeper), a task that owns it and whatever becomes of it.
//!
//! **Invariants**
//! - A session key has one keeper.
//! - Nobody listens to a turn any more: its whole process group is ended, politely first.
//! - A program that is started after another goes on with its conversation.

mod keeper;
mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use handoff::migrate::Neighbour;
use tokio::sync::mpsc;
use tracing::debug;

use self::keeper::{Keeper, Order};
use self::turns::one_shot;
use super::backend::CliBackend;
use super::child::{Manner, Patience};
use super::crossing::{Parted, Parting};
use super::departures::Departures;
use super::failure::CliFailure;
use super::launch::Launcher;
use super::mcp::Toolbox;
use super::orphans::Orphans;
use super::program::Asked;
use super::scratch::ScratchRoot;
use super::session::{AdoptFailed, Claim, Kept, Session, SessionParts};
use super::shelf::Shelf;
use super::turn::Fragment;
use crate::state::config::Environment;

/// How many orders wait for a keeper: a lane has one turn at a time, and one that was cancelled may still be ending.
const ORDERS: usize = 8;

/// How many sessions live, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    /// The most that live.
    pub(crate) most: usize,
    /// How long one may rest.
    pub(crate) idle: Duration,
    /// How long one may take to end.
    pub(crate) patience: Patience,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { most: 16, idle: Duration::from_secs(600), patience: Patience::default() }
    }
}

/// The sessions of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whose programs they are.
    id: String,
    /// Replaced when the configuration changes.
    launcher: ArcSwap<Launcher>,
    keeping: Keeping,
    departures: Arc<Departures>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shelf: Shelf,
    keepers: HashMap<String, mpsc::Sender<Order>>,
}

impl Pool {
    /// None yet, of programs that the configuration calls `id` and that are run as `backend` says.
    pub(super) fn new(
        id: &str,
        backend: CliBackend,
        values: Environment,
        root: ScratchRoot,
        toolbox: Toolbox,
        (keeping, departures): (Keeping, Arc<Departures>),
    ) -> Self {
        let launcher = ArcSwap::from_pointee(Launcher { backend, values, root, toolbox });
        let state = State { shelf: Shelf::new(keeping.most), keepers: HashMap::new() };
        let (id, state) = (id.to_owned(), Mutex::new(state));
        Self(Arc::new(Inner { id, launcher, keeping, departures, state }))
    }

    /// What the configuration calls its programs.
    pub(super) fn id(&self) -> &str {
        &self.0.id
    }

    /// What its programs are given and nobody else may read.
    pub(super) fn secrets(&self) -> Vec<String> {
        self.0.launcher.load().secrets()
    }

    /// From the next turn on, programs are run as `backend` says. Those that were started for something else are ended then.
    pub(super) fn reconfigure(&self, backend: CliBackend, values: Environment) {
        self.0.launcher.rcu(|launcher| Launcher {
            backend: backend.clone(),
            values: values.clone(),
            root: launcher.root.clone(),
            toolbox: launcher.toolbox.clone(),
        });
    }

    /// Begins a turn; its answer goes to `fragments`, and dropping their receiver cancels it.
    pub(super) fn begin(&self, asked: Asked, fragments: mpsc::Sender<Fragment>) {
        if !self.0.launcher.load().backend.is_live() {
            tokio::spawn(one_shot(Arc::clone(&self.0), asked, fragments));
            return;
        }
        let mut state = self.0.state();
        let key = asked.session.clone();
        let failed = match state.shelf.take(&key) {
            Ok(leaves) => {
                let leaves = leaves.and_then(|leaves| state.keepers.get(&leaves));
                if let Some(keeper) = leaves {
                    // One that has that many orders does not rest long.
                    let _ = keeper.try_send(Order::Close);
                }
                let keeper = state.keepers.entry(key);
                let keeper = keeper.or_insert_with_key(|key| self.0.keeper(key, None, None));
                match keeper.try_send(Order::Turn(Box::new(asked), fragments)) {
                    Ok(()) => return,
                    Err(refused) => match refused.into_inner() {
                        Order::Turn(_, fragments) => Some((CliFailure::Busy, fragments)),
                        Order::Close | Order::Part(..) | Order::Stay => None,
                    },
                }
            }
            Err(_) => Some((CliFailure::TooMany { most: self.0.keeping.most }, fragments)),
        };
        if let Some((failure, fragments)) = failed {
            // The channel is new: there is room.
            let _ = fragments.try_send(Fragment::Failed(failure));
        }
    }

    /// The lane of this session is the neighbour's from now on. Ends when no program of it is here any more; `None` when there is
    /// none now.
    pub(super) fn part(&self, neighbour: Neighbour, key: &str) -> Option<Parted> {
        let (parting, parted) = Parting::new();
        let state = self.0.state();
        // One that has so many orders that it takes no more ends soon, or its turns are not those of a lane.
        state.keepers.get(key)?.try_send(Order::Part(neighbour, parting)).ok()?;
        Some(parted)
    }

    /// There is no successor any more: nobody waits for anything there.
    pub(super) fn stay(&self) {
        for keeper in self.0.state().keepers.values() {
            // One that has as many orders as that has a turn among them, and stays.
            let _ = keeper.try_send(Order::Stay);
        }
    }

    /// Goes on with a session that another owner has taken apart.
    ///
    /// # Errors
    /// [`AdoptFailed`]: its input has ended, and so does it.
    pub(super) fn adopt(
        &self,
        key: &str,
        parts: SessionParts,
        orphans: &Orphans,
    ) -> Result<(), AdoptFailed> {
        let launcher = self.0.launcher.load_full();
        let session = self.resumed(parts, Claim::Adopted(&launcher.root, orphans))?;
        self.receive(key, session, None);
        Ok(())
    }

    /// Goes on with one that was to move, and did not.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    pub(super) fn take_back(
        &self,
        key: &str,
        parts: SessionParts,
        (kept, parting): (Kept, Option<Parting>),
    ) -> Result<(), AdoptFailed> {
        let session = self.resumed(parts, Claim::Returned(kept))?;
        self.receive(key, session, parting);
        Ok(())
    }

    /// Ends one that was to move, and that nobody takes. Whoever waits for it to be gone hears of it.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    pub(super) fn give_up(
        &self,
        parts: SessionParts,
        (kept, parting): (Kept, Option<Parting>),
    ) -> Result<(), AdoptFailed> {
        let session = self.resumed(parts, Claim::Returned(kept))?;
        let patience = self.0.keeping.patience;
        tokio::spawn(async move {
            session.end(Manner::Terminate, patience).await;
            drop(parting);
        });
        Ok(())
    }

    fn resumed(&self, parts: SessionParts, claim: Claim<'_>) -> Result<Session, AdoptFailed> {
        let launcher = self.0.launcher.load();
        let longest_line = launcher.backend.reliability.output_limits.bytes();
        Session::from_parts(parts, claim, &launcher.toolbox, longest_line)
    }

    fn receive(&self, key: &str, session: Session, parting: Option<Parting>) {
        let mut state = self.0.state();
        if state.keepers.contains_key(key) {
            debug!(session = key, "a CLI session that has come has one here already, and is ended");
            tokio::spawn(session.end(Manner::Terminate, self.0.keeping.patience));
            return;
        }
        state.shelf.receive(key, Instant::now());
        let keeper = self.0.keeper(key, Some(session), parting);
        state.keepers.insert(key.to_owned(), keeper);
    }

    /// Ends all sessions, and ends when they have.
    pub(super) async fn close(&self) {
        let keepers: Vec<_> = self.0.state().keepers.values().cloned().collect();
        for keeper in &keepers {
            // A keeper that has left has no session.
            let _ = keeper.send(Order::Close).await;
        }
        for keeper in keepers {
            keeper.closed().await;
        }
    }
}

impl Inner {
    /// A keeper from now on, and where it is told what to do.
    fn keeper(
        self: &Arc<Self>,
        key: &str,
        session: Option<Session>,
        parting: Option<Parting>,
    ) -> mpsc::Sender<Order> {
        let (keeper, orders) = mpsc::channel(ORDERS);
        let (pool, key, seat) = (Arc::clone(self), key.to_owned(), self.departures.seat());
        tokio::spawn(Keeper { pool, key, session, orders, seat, parting }.keep());
        keeper
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the program of this session calls its conversation: what it has said here goes before what others know.
    fn known(&self, asked: &Asked) -> Option<String> {
        let here = self.state().shelf.conversation(&asked.life).map(str::to_owned);
        here.or_else(|| asked.conversation.clone())
    }

    /// Takes a keeper without a session off the list, unless it was given an order.
    fn has_left(&self, key: &str, orders: &mpsc::Receiver<Order>) -> bool {
        let mut state = self.state();
        if !orders.is_empty() {
            return false;
        }
        state.keepers.remove(key);
        state.shelf.leave(key);
        true
    }
}

#[cfg(test)]
mod tests;
