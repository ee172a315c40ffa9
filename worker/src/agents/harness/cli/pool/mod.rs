//! The sessions of a backend that live: each has a keeper, a task that owns it and whatever becomes of it.
//!
//! ```text
//! begin ─► keeper ─► launch, or the session that is there ─► turn ─► at rest ─┬─► next turn
//!                        ▲ another fingerprint: ended first                    ├─► idle, evicted, closed: ended
//!                        └──────────── it was gone ────────────────────────────┴─► taken apart: another owner's
//! ```
//!
//! **Invariants**
//! - A session key has one keeper, and a keeper one process at a time: the next one starts when the last is gone.
//! - Nobody listens to a turn any more: its whole process group is ended, politely first.
//! - A program that is started after another goes on with its conversation.

mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use self::turns::{one_shot, turn};
use super::backend::CliBackend;
use super::child::{Manner, Patience};
use super::failure::CliFailure;
use super::launch::Launcher;
use super::mcp::Toolbox;
use super::program::Asked;
use super::scratch::ScratchRoot;
use super::session::{AdoptFailed, Event, Session, SessionParts};
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
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shelf: Shelf,
    keepers: HashMap<String, mpsc::Sender<Order>>,
}

/// What a keeper is told.
#[derive(Debug)]
enum Order {
    Turn(Box<Asked>, mpsc::Sender<Fragment>),
    Close,
    TakeApart(oneshot::Sender<SessionParts>),
}

/// What ends a session's rest.
enum Woken {
    By(Order),
    Idle,
    Gone,
}

impl Pool {
    /// None yet, of programs that the configuration calls `id` and that are run as `backend` says.
    pub(super) fn new(
        id: &str,
        backend: CliBackend,
        values: Environment,
        root: ScratchRoot,
        toolbox: Toolbox,
        keeping: Keeping,
    ) -> Self {
        let launcher = ArcSwap::from_pointee(Launcher { backend, values, root, toolbox });
        let state = State { shelf: Shelf::new(keeping.most), keepers: HashMap::new() };
        Self(Arc::new(Inner { id: id.to_owned(), launcher, keeping, state: Mutex::new(state) }))
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
                let keeper = state.keepers.entry(key.clone()).or_insert_with(|| {
                    let (keeper, orders) = mpsc::channel(ORDERS);
                    tokio::spawn(keep(Arc::clone(&self.0), key, None, orders));
                    keeper
                });
                match keeper.try_send(Order::Turn(Box::new(asked), fragments)) {
                    Ok(()) => return,
                    Err(refused) => match refused.into_inner() {
                        Order::Turn(_, fragments) => Some((CliFailure::Busy, fragments)),
                        Order::Close | Order::TakeApart(_) => None,
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

    /// Takes all sessions apart, each once its turn is over, for their next owner. What cannot be taken apart is ended.
    pub(super) async fn take_apart(&self) -> Vec<(String, SessionParts)> {
        let keepers: Vec<_> = self.0.state().keepers.clone().into_iter().collect();
        let mut sessions = Vec::new();
        for (key, keeper) in keepers {
            let (reply, replied) = oneshot::channel();
            // A keeper that has left has no session.
            if keeper.send(Order::TakeApart(reply)).await.is_ok()
                && let Ok(parts) = replied.await
            {
                sessions.push((key, parts));
            }
        }
        sessions
    }

    /// Goes on with a session that another owner has taken apart.
    ///
    /// # Errors
    /// [`AdoptFailed`]: its input has ended, and so does it.
    pub(super) fn adopt(&self, key: &str, parts: SessionParts) -> Result<(), AdoptFailed> {
        let launcher = self.0.launcher.load_full();
        let Launcher { backend, root, toolbox, .. } = &*launcher;
        let longest_line = backend.reliability.output_limits.bytes();
        let session = Session::from_parts(parts, root, toolbox, longest_line)?;
        let mut state = self.0.state();
        if state.keepers.contains_key(key) {
            debug!(session = key, "a CLI session that has come has one here already, and is ended");
            tokio::spawn(session.end(Manner::Terminate, self.0.keeping.patience));
            return Ok(());
        }
        state.shelf.receive(key, Instant::now());
        let (keeper, orders) = mpsc::channel(ORDERS);
        state.keepers.insert(key.to_owned(), keeper);
        tokio::spawn(keep(Arc::clone(&self.0), key.to_owned(), Some(session), orders));
        Ok(())
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

/// Keeps a session, and starts the next when there is none, until there is neither a session nor an order.
async fn keep(
    pool: Arc<Inner>,
    key: String,
    mut session: Option<Session>,
    mut orders: mpsc::Receiver<Order>,
) {
    let patience = pool.keeping.patience;
    loop {
        let woken = match &mut session {
            Some(session) => rest(session, &mut orders, pool.keeping.idle).await,
            None => {
                if pool.has_left(&key, &orders) {
                    return;
                }
                // Something was there when we looked, and nobody else takes it.
                orders.recv().await.map_or(Woken::Gone, Woken::By)
            }
        };
        let resting = session.take();
        session = match woken {
            Woken::By(Order::Turn(asked, fragments)) => {
                turn(&pool, resting, asked, fragments).await
            }
            Woken::By(Order::TakeApart(reply)) => {
                if let Some(resting) = resting {
                    match resting.into_parts().await {
                        // Nobody waits for it: its descriptors close, and its input ends.
                        Ok(parts) => drop(reply.send(parts)),
                        Err(resting) => resting.end(Manner::Terminate, patience).await,
                    }
                }
                None
            }
            Woken::By(Order::Close) | Woken::Idle | Woken::Gone => {
                if let Some(resting) = resting {
                    debug!(session = key, "a CLI session at rest is ended");
                    resting.end(Manner::Terminate, patience).await;
                }
                None
            }
        };
    }
}

/// Waits beside a session at rest. What it says then belongs to no turn.
async fn rest(session: &mut Session, orders: &mut mpsc::Receiver<Order>, idle: Duration) -> Woken {
    let idle = tokio::time::sleep(idle);
    tokio::pin!(idle);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => return order.map_or(Woken::Idle, Woken::By),
            event = session.next() => match event {
                // Who writes without end while nothing was asked has lost its way.
                Event::Gone | Event::TooLong(_) => return Woken::Gone,
                Event::Line(_) | Event::Complained => {}
            },
            () = &mut idle => return Woken::Idle,
        }
    }
}

impl Inner {
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
