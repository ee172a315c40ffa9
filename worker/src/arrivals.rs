//! Connections that were not accepted here, or not for the first time: moved from another
//! generation, or come back from a move that was called off. So do the sessions of CLI agents.
//!
//! **Invariants**
//! - Each of them is served by a task of its own, which ends with the worker.
//! - One that the successor would not take is not offered to it again.
//! - What dead neighbours have left of CLIs is ended after what they had given for good is taken over, and so are their runs.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use handoff::migrate::{Frozen, Kind, Mailbox, Neighbour, Roster, Snapshot};
use handoff::{Arrival, Mover, Stream};
use tokio::task::JoinSet;

use crate::agents::fallback::Stock;
use crate::agents::{Runs, recover};
use crate::serve::{self, Gateway};

/// How long a neighbour may take to end that has closed its link.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves whatever arrives.
#[derive(Debug)]
pub(crate) struct Arrivals {
    gateway: Arc<Gateway>,
    runs: Arc<Runs>,
    /// What goes on with sessions.
    stock: Arc<Stock>,
    /// Set before anything can arrive: the roster exists only once there is somebody to resume.
    roster: OnceLock<Roster>,
    connections: Mutex<JoinSet<()>>,
}

impl Arrivals {
    pub(crate) fn new(gateway: Arc<Gateway>, runs: Arc<Runs>, stock: Arc<Stock>) -> Self {
        Self { gateway, runs, stock, roster: OnceLock::new(), connections: Mutex::default() }
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

    /// Ends what CLIs neighbours have left, once those are over that are ending now.
    fn sweep_after_others(&self) {
        let stock = Arc::clone(&self.stock);
        tokio::task::spawn_blocking(move || stock.clis().sweep_after_others(END_TIMEOUT));
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
            // It comes another way.
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
        if neighbour == Neighbour::Successor {
            self.stock.clis().stay();
            self.sweep_after_others();
        }
    }

    fn judge_session(&self, snapshot: &Snapshot) -> Result<(), String> {
        self.stock.clis().judge(snapshot)
    }

    fn resume_session(&self, session: Frozen, arrival: Arrival) {
        self.stock.clis().resume(session, arrival);
    }

    fn settled(&self) {
        self.sweep_after_others();
        let runs = Arc::clone(&self.runs);
        tokio::spawn(async move { recover(&runs).await });
    }
}
