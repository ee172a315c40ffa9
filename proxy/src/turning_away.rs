//! Connections that nobody will serve in time: accepted, closed and counted.
//!
//! It is the one thing for which the front accepts (`hold.rs` says when). A client that is told at once can ask
//! somebody else; one that waits on cannot.
//!
//! **Invariants**
//! - Not a byte of theirs is read, and none is answered.
//! - Dropped, it accepts nobody any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use handoff::socket::{Address, ListeningSocket};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tracing::warn;

use crate::listener::Listeners;

/// The pause after an error that is not the client's: no descriptor may be free, say.
const PAUSE: Duration = Duration::from_millis(100);

/// The tasks that turn newcomers away, one for each listening socket.
#[derive(Debug)]
pub(crate) struct TurningAway {
    _tasks: JoinSet<()>,
    count: Arc<AtomicU64>,
}

impl TurningAway {
    /// Turns away whoever waits, and whoever comes.
    pub(crate) fn from(listeners: &Listeners) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for socket in &listeners.sockets {
            match Door::to(socket) {
                Ok(door) => drop(tasks.spawn(turn_away(door, Arc::clone(&count)))),
                Err(error) => {
                    warn!(address = %socket.address, %error, "could not turn anybody away");
                }
            }
        }
        Self { _tasks: tasks, count }
    }

    /// How many so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A copy of a listening socket, to accept from.
#[derive(Debug)]
enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    fn to(socket: &ListeningSocket) -> io::Result<Self> {
        let copy = socket.duplicate()?;
        match socket.address {
            Address::Tcp(_) => TcpListener::from_std(copy.into()).map(Self::Tcp),
            Address::Unix(_) => UnixListener::from_std(copy.into()).map(Self::Unix),
        }
    }

    /// Accepts one connection, and lets go of it.
    async fn turn_one_away(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(drop),
            Self::Unix(listener) => listener.accept().await.map(drop),
        }
    }
}

async fn turn_away(door: Door, count: Arc<AtomicU64>) {
    loop {
        match door.turn_one_away().await {
            Ok(()) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            // The client left before; the next one may not have.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "could not turn somebody away");
                tokio::time::sleep(PAUSE).await;
            }
        }
        // A queue that never ends must not keep the front from what it is told.
        tokio::task::yield_now().await;
    }
}
