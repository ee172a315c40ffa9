//! The CLI agents of a worker: a pool of sessions for each backend that its configuration names.
//!
//! **Invariants**
//! - What dead workers have left is removed before anything is started.
//! - A backend that is no longer configured keeps the sessions it has until they rest for too long, and gets no more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use handoff::migrate::{Frozen, Neighbour, Roster, Snapshot};
use handoff::{Arrival, OrphanEnded};
use tracing::{info, warn};

use super::super::Failure;
use super::backend::backends;
use super::crossing::{self, Arrived, Held};
use super::departures::Departures;
use super::mcp::Toolbox;
use super::orphans::Orphans;
use super::pool::{Keeping, Pool};
use super::run::Cli;
use super::scratch::ScratchRoot;
use super::session::AdoptFailed;
use crate::state::config::Settled;

/// Where directories lie, below the state directory.
const PLACE: &str = "cli";
/// How long a turn may take unless the configuration says otherwise: as long as anybody waits.
const TIMEOUT: Duration = Duration::from_secs(48 * 60 * 60);

/// The CLI agents of a worker.
#[derive(Debug)]
pub(crate) struct CliAgents {
    root: ScratchRoot,
    toolbox: Toolbox,
    keeping: Keeping,
    departures: Arc<Departures>,
    orphans: Orphans,
    /// By the ids of their backends.
    pools: Mutex<Pools>,
}

#[derive(Debug, Default)]
struct Pools {
    configured: BTreeMap<String, Result<Pool, Failure>>,
    /// Those that have sessions, perhaps, and get no more.
    former: BTreeMap<String, Pool>,
    timeout: Duration,
}

impl CliAgents {
    /// None yet, of a worker that keeps its state there, and programs like this.
    pub(crate) fn new(state_dir: &Path, keeping: Keeping) -> Self {
        Self::kept(state_dir, Toolbox::default(), keeping)
    }

    fn kept(state_dir: &Path, toolbox: Toolbox, keeping: Keeping) -> Self {
        let root = ScratchRoot::at(state_dir.join(PLACE));
        let (departures, orphans, pools) = Default::default();
        Self { root, toolbox, keeping, departures, orphans, pools }
    }

    /// Ends and removes what dead workers have left. It blocks.
    pub(crate) fn sweep(&self) {
        match self.root.sweep() {
            Ok(0) => {}
            Ok(swept) => info!(directories = swept, "removed what dead workers had left of CLIs"),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "what dead workers have left of CLIs was not looked for"
                );
            }
        }
    }

    /// Goes by another configuration from the next turns on.
    pub(crate) fn renew(&self, settled: &Settled) {
        let defaults = &settled.config().agents.defaults;
        let timeout = defaults.timeout_seconds.filter(|seconds| *seconds > 0);
        let values = settled.environment();
        let mut pools = self.pools();
        pools.timeout = timeout.map_or(TIMEOUT, |s| Duration::from_secs(s.into()));
        let mut former = std::mem::take(&mut pools.former);
        for (id, pool) in std::mem::take(&mut pools.configured) {
            if let Ok(pool) = pool {
                former.insert(id, pool);
            }
        }
        for (id, backend) in backends(&defaults.cli_backends) {
            let pool = backend.map(|backend| match former.remove(&id) {
                Some(pool) => {
                    pool.reconfigure(backend, values.clone());
                    pool
                }
                None => {
                    let (root, toolbox) = (self.root.clone(), self.toolbox.clone());
                    let kept = (self.keeping, Arc::clone(&self.departures));
                    Pool::new(&id, backend, values.clone(), root, toolbox, kept)
                }
            });
            pools.configured.insert(id, pool);
        }
        pools.former = former;
    }

    /// What answers for this model of this backend; `None` when there is no such backend.
    ///
    /// # Errors
    /// A failure that is the configuration's.
    pub(crate) fn model(&self, backend: &str, model: &str) -> Option<Result<Cli, Failure>> {
        let pools = self.pools();
        let pool = pools.configured.get(backend)?.clone();
        Some(pool.map(|pool| Cli::new(pool, model.to_owned(), pools.timeout)))
    }

    /// Sessions move from now on, as soon as they are asked by this roster and `yield_lane` has given the lanes of theirs to the
    /// successor. Without this they live and end here.
    pub(crate) fn move_by(
        &self,
        roster: Roster,
        yield_lane: impl Fn(&str) + Send + Sync + 'static,
    ) {
        self.departures.open(roster, Box::new(yield_lane));
    }

    /// Nothing moves any more: what is at rest holds nobody up.
    pub(crate) fn dismiss(&self) {
        self.departures.dismiss();
    }

    /// The lane of this session is to be the neighbour's. Ends when no program of it is here any more; `None` when there is none.
    pub(crate) fn part(
        &self,
        neighbour: Neighbour,
        session: &str,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let parted = self.all().into_iter().filter_map(|(_, pool)| pool.part(neighbour, session));
        let parted: Vec<_> = parted.collect();
        if parted.is_empty() {
            return None;
        }
        Some(async {
            for parted in parted {
                // Nothing is sent: its end is what is waited for.
                let _ = parted.await;
            }
        })
    }

    /// There is no successor any more.
    pub(crate) fn stay(&self) {
        for (_, pool) in self.all() {
            pool.stay();
        }
    }

    /// Whether a session can be gone on with here.
    ///
    /// # Errors
    /// Why not, for the log.
    pub(crate) fn judge(&self, snapshot: &Snapshot) -> Result<(), String> {
        let words = crossing::words(snapshot)?;
        match self.pools().configured.get(&words.backend) {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(AdoptFailed::Backend { backend: words.backend }.to_string()),
        }
    }

    /// Goes on with a session that has moved, or comes back. One that cannot be gone on with is ended.
    pub(crate) fn resume(&self, frozen: Frozen, arrival: Arrival) {
        if let Err(error) = self.try_resume(frozen, arrival) {
            let error = &error as &dyn std::error::Error;
            warn!(error, "a CLI session is not gone on with, and begins anew with its next turn");
        }
    }

    fn try_resume(&self, frozen: Frozen, arrival: Arrival) -> Result<(), AdoptFailed> {
        let Some(Arrived { backend, session, parts, held }) = crossing::arrived(frozen) else {
            return Err(AdoptFailed::Words);
        };
        let mut pools = self.all().into_iter();
        let Some((_, pool)) = pools.find(|(id, _)| *id == backend) else {
            return Err(AdoptFailed::Backend { backend });
        };
        match (arrival, held.and_then(Held::into_parts)) {
            (Arrival::Returned, Some(kept)) => pool.take_back(&session, parts, kept),
            (Arrival::Rejected, Some(kept)) => pool.give_up(parts, kept),
            (Arrival::Moved | Arrival::Returned | Arrival::Rejected, _) => {
                pool.adopt(&session, parts, &self.orphans)
            }
        }
    }

    /// The front says how a process has ended that others had started.
    pub(crate) fn orphan_ended(&self, ended: OrphanEnded) {
        self.orphans.ended(ended);
    }

    /// Waits until the workers are over that own directories beside this one, or for so long, and sweeps. It blocks.
    pub(crate) fn sweep_after_others(&self, limit: Duration) {
        self.root.wait_for_others(limit);
        self.sweep();
    }

    /// Ends all sessions, politely until `deadline`, and ends when they have. Nothing stays of what this worker owns.
    pub(crate) async fn close(&self, deadline: Instant) {
        let politely = async {
            for (_, pool) in self.all() {
                pool.close().await;
            }
        };
        // It says what is left by then.
        let _ = tokio::time::timeout_at(deadline.into(), politely).await;
        // Also what was lost with a successor: it had not taken that over.
        let root = self.root.clone();
        // It is not joined when it has panicked, and that was said then.
        if let Ok(Ok(ended @ 1..)) = tokio::task::spawn_blocking(move || root.clear()).await {
            warn!(programs = ended, "CLIs were still there and were ended");
        }
    }

    fn all(&self) -> Vec<(String, Pool)> {
        let pools = self.pools();
        let configured =
            pools.configured.iter().filter_map(|(id, pool)| Some((id, pool.as_ref().ok()?)));
        let both = configured.chain(&pools.former);
        both.map(|(id, pool)| (id.clone(), pool.clone())).collect()
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
