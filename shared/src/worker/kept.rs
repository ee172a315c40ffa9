//! What a worker keeps for a front that comes after its own: what it was told, and what it said that still holds.
//!
//! **Invariants**
//! - The listening sockets are kept only while this worker might accept: what the front has closed is closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::message::{Drain, GenerationId, SocketEntry, ToFront, millis};
use crate::rescue::{Incumbent, Rescued, Standing};
use crate::socket::ListeningSocket;
use crate::stance::Stance;

/// What is kept, shared with whoever changes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    facts: Arc<Mutex<Facts>>,
}

#[derive(Debug, Default)]
struct Facts {
    sockets: Vec<Arc<ListeningSocket>>,
    latest_epoch: u64,
    incumbent: Option<Incumbent>,
    /// What it last said it fails at, and why it wants to be replaced.
    failing: Option<ToFront>,
    wanted: Option<ToFront>,
}

/// What a worker had said of itself when it was ready, and that still holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) hears_of_orphans: bool,
    pub(super) stops_only_by_draining: bool,
}

impl Kept {
    pub(super) fn sockets(&self, sockets: &[Arc<ListeningSocket>]) {
        self.open().sockets = sockets.to_vec();
    }

    pub(super) fn let_go_of_sockets(&self) {
        self.open().sockets.clear();
    }

    pub(super) fn granted(&self, epoch: u64) {
        let mut facts = self.open();
        facts.latest_epoch = facts.latest_epoch.max(epoch);
    }

    /// Connections come here from this generation.
    pub(super) fn linked_to(&self, generation: GenerationId) {
        self.open().incumbent = Some(Incumbent { generation, linked: true });
    }

    /// The link to that generation has ended.
    pub(super) fn unlinked(&self) {
        if let Some(incumbent) = &mut self.open().incumbent {
            incumbent.linked = false;
        }
    }

    /// A generation is gone.
    pub(super) fn reaped(&self, generation: GenerationId) {
        let mut facts = self.open();
        facts.incumbent = facts.incumbent.filter(|incumbent| incumbent.generation != generation);
    }

    /// This was said. The front may have died before it acted on it.
    pub(super) fn said(&self, word: &ToFront) {
        let mut facts = self.open();
        match word {
            ToFront::Failing { .. } => facts.failing = Some(word.clone()),
            ToFront::WantsTakeover { .. } => facts.wanted = Some(word.clone()),
            _ => {}
        }
    }

    /// What the next front has to be told again.
    pub(super) fn to_be_repeated(&self) -> Vec<ToFront> {
        let facts = self.open();
        facts.failing.iter().chain(&facts.wanted).cloned().collect()
    }

    /// What this worker is, and the sockets that are to be attached; `None` for one that is to leave at once.
    pub(super) fn account(
        &self,
        generation: GenerationId,
        born_at: Instant,
        stance: Stance,
        lease: Option<u64>,
        manner: Manner,
    ) -> Option<(Rescued, Vec<Arc<ListeningSocket>>)> {
        let standing = match stance {
            Stance::Waiting | Stance::Dismissed => return None,
            Stance::Admitted => Standing::Admitted,
            Stance::Stopped => Standing::Stopped,
            Stance::Draining { deadline, newcomers } => {
                let left = deadline.saturating_duration_since(Instant::now());
                Standing::Draining(Drain { timeout_ms: millis(left), newcomers })
            }
        };
        let facts = self.open();
        let entry = |socket: &Arc<ListeningSocket>| SocketEntry {
            address: socket.address.to_string(),
            shard: socket.shard,
        };
        let rescued = Rescued {
            generation,
            age_ms: millis(born_at.elapsed()),
            standing,
            lease,
            latest_epoch: facts.latest_epoch,
            sockets: facts.sockets.iter().map(entry).collect(),
            hears_of_orphans: manner.hears_of_orphans,
            stops_only_by_draining: manner.stops_only_by_draining,
            incumbent: facts.incumbent,
        };
        Some((rescued, facts.sockets.clone()))
    }

    fn open(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
