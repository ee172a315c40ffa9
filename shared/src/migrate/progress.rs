//! How a migration is steered, and what has come of it so far.

use tokio::sync::{mpsc, watch};

use super::snapshot::{Frozen, Kind};
use crate::link::Link;
use crate::message::Connections;

/// How much is to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Nothing: what is frozen thaws.
    #[default]
    Nothing,
    /// A few, to see that it goes well.
    Canary,
    /// Everything that can.
    Everything,
}

/// What has come of it so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Connections that were given to the successor.
    pub moved: Connections,
    /// Sessions that were given to the successor.
    pub sessions: u64,
    /// Those the successor would not take; they stay.
    pub rejected: u64,
    /// Connections that were the successor's when it went away.
    pub lost: Connections,
    /// Whether there is a successor to move to.
    pub linked: bool,
}

impl Moved {
    /// All that were given away, whatever became of them.
    pub(crate) const fn given(&self) -> Connections {
        self.moved.saturating_add(self.lost)
    }
}

/// Why something comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// The migration ended before it was the successor's; it may be asked again.
    Aborted,
    /// The successor would not take it; asking again would get the same answer.
    Rejected,
}

/// Where the links to successors come in.
#[derive(Clone, Debug)]
pub struct Links {
    pub(super) links: mpsc::Sender<Link>,
    pub(super) progress: watch::Sender<Moved>,
}

impl Links {
    /// Moves connections over this link from now on, which [`Moved::linked`] says at once.
    pub fn introduce(&self, link: Link) {
        // A new successor, a new account.
        self.progress
            .send_modify(|progress| *progress = Moved { linked: true, ..Moved::default() });
        // It fails when the source is gone, or busy with a link that came just before: a generation
        // has one successor at a time.
        if self.links.try_send(link).is_err() {
            self.progress.send_modify(|progress| progress.linked = false);
        }
    }
}

/// How many there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) connections: Connections,
    pub(super) sessions: u64,
}

impl Tally {
    /// Of this batch.
    pub(super) fn of(batch: &[Frozen]) -> Self {
        let of = |kind| batch.iter().filter(|frozen| frozen.snapshot.kind == kind).count() as u64;
        let connections = Connections { http: of(Kind::Http1), websocket: of(Kind::WebSocket) };
        Self { connections, sessions: of(Kind::Session) }
    }

    /// All of them.
    pub(super) const fn total(self) -> u64 {
        self.connections.total() + self.sessions
    }

    pub(super) const fn plus(self, more: Self) -> Self {
        Self {
            connections: self.connections.saturating_add(more.connections),
            sessions: self.sessions + more.sessions,
        }
    }

    pub(super) const fn minus(self, fewer: Self) -> Self {
        Self {
            connections: self.connections.saturating_sub(fewer.connections),
            sessions: self.sessions.saturating_sub(fewer.sessions),
        }
    }
}

impl Moved {
    /// These were given away.
    pub(super) const fn give(&mut self, given: Tally) {
        self.moved = self.moved.saturating_add(given.connections);
        self.sessions += given.sessions;
    }

    /// These were given away, and have ended with whoever had them.
    pub(super) const fn lose(&mut self, lost: Tally) {
        self.moved = self.moved.saturating_sub(lost.connections);
        self.sessions = self.sessions.saturating_sub(lost.sessions);
        self.lost = self.lost.saturating_add(lost.connections);
    }
}
