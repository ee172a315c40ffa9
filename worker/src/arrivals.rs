//! Connections that were not accepted here, or not for the first time: moved from another
//! generation, or come back from a move that was called off.
//!
//! **Invariants**
//! - Each of them is served by a task of its own, which ends with the worker.
//! - One that the successor would not take is not offered to it again.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use handoff::migrate::{Kind, Mailbox, Neighbour, Roster, Snapshot};
use handoff::{Arrival, Mover, Stream};
use tokio::task::JoinSet;

use crate::serve::{self, Gateway};

/// Serves whatever arrives.
#[derive(Debug)]
pub(crate) struct Arrivals {
    gateway: Arc<Gateway>,
    /// Set before anything can arrive: the roster exists only once there is somebody to resume.
    roster: OnceLock<Roster>,
    connections: Mutex<JoinSet<()>>,
}

impl Arrivals {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway, roster: OnceLock::new(), connections: Mutex::default() }
    }

    /// Where connections that arrive take their seats.
    pub(crate) fn seat_in(&self, roster: Roster) {
        // It is called once.
        let _ = self.roster.set(roster);
    }

    /// Ends every connection that arrived and is still open.
    pub(crate) async fn shutdown(&self) {
        let mut connections = std::mem::take(&mut *self.connections());
        connections.shutdown().await;
    }

    fn connections(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mover for Arrivals {
    fn judge(&self, snapshot: &Snapshot) -> Result<(), String> {
        serve::judge(snapshot)
    }

    fn resume(
        &self,
        stream: Stream,
        snapshot: Snapshot,
        mailbox: Option<Mailbox>,
        arrival: Arrival,
    ) {
        let berth = match arrival {
            Arrival::Moved | Arrival::Returned => self.roster.get().map(Roster::seat),
            Arrival::Rejected => None,
        };
        let mut connections = self.connections();
        // Lets go of those that have ended; a panic was told by the panic hook.
        while connections.try_join_next().is_some() {}
        let gateway = Arc::clone(&self.gateway);
        match snapshot.kind {
            Kind::Http1 => connections.spawn(serve::resume_http(gateway, stream, snapshot, berth)),
            Kind::WebSocket => {
                let arrived = (snapshot, mailbox, arrival);
                connections.spawn(serve::resume_websocket(gateway, stream, arrived, berth))
            }
            // They come another way.
            Kind::Session => return,
        };
    }

    fn linked(&self, neighbour: Neighbour) {
        self.gateway.linked(neighbour);
    }

    fn heard(&self, neighbour: Neighbour, text: &str) {
        self.gateway.heard(neighbour, text);
    }

    fn unlinked(&self, neighbour: Neighbour) {
        self.gateway.unlinked(neighbour);
    }
}
