//! An offer on its way from the source to the target.

use std::os::fd::OwnedFd;

use tokio::time::Instant;

use super::post::Mailbox;
use super::snapshot::Frozen;

/// Connections, or sessions, that were offered together.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) seq: u64,
    pub(super) batch: Vec<Frozen>,
    /// Its snapshots, as both sides see them.
    pub(super) memfd: OwnedFd,
    pub(super) stage: Stage,
    pub(super) made_at: Instant,
}

/// How far an offer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Ours, without an answer.
    Offered,
    /// Ours; the successor could take it, and will be told to.
    Committing,
    /// The successor's.
    Committed,
}

impl Offer {
    pub(super) fn mailboxes(&self) -> impl Iterator<Item = &Mailbox> {
        self.batch.iter().filter_map(|frozen| frozen.mailbox.as_ref())
    }
}

/// What is to be sent, and of which offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Offer(u64),
    Commit(u64),
    Abort(u64),
}
