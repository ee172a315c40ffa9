//! A session as it crosses to another generation: its descriptors in their order, its bytes, and its words.
//!
//! ```text
//! descriptors: standard input, output, error, pidfd [, listener]
//! read: what it said and nobody understood yet │ unsent: what it is to be told │ state: [`Words`]
//! ```
//!
//! **Invariants**
//! - Until it is committed its directory is removed by whoever froze it, or comes back with it; from then on by nobody here.
//! - Whoever waits for it to be gone waits until another has it, or nobody.

use std::os::fd::OwnedFd;

use handoff::Peer;
use handoff::migrate::{Frozen, Guard, Kind, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::session::{Kept, SessionParts, SessionState};

/// The version of [`Words`]. A later one may add fields that have defaults without counting up.
const VERSION: u32 = 1;

/// Whoever waits for a session to be gone, until this is dropped.
#[derive(Debug)]
pub(super) struct Parting(oneshot::Sender<()>);

/// Ends when the session is gone.
pub(super) type Parted = oneshot::Receiver<()>;

impl Parting {
    pub(super) fn new() -> (Self, Parted) {
        let (parting, parted) = oneshot::channel();
        (Self(parting), parted)
    }

    /// Ends when nobody waits any more. Cancel-safe.
    pub(super) async fn given_up(&mut self) {
        self.0.closed().await;
    }
}

/// What crosses in words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Words {
    /// Whose program it is.
    pub(super) backend: String,
    /// Whose session, as `agent:main:main`.
    pub(super) session: String,
    state: SessionState,
}

/// A session that has arrived, or comes back.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) backend: String,
    pub(super) session: String,
    pub(super) parts: SessionParts,
    /// What was kept of it here, if it comes back.
    pub(super) held: Option<Held>,
}

/// What is kept of a session that is on its way.
#[derive(Debug)]
pub(super) struct Held {
    kept: Option<Kept>,
    /// Who waits for it to be gone.
    parting: Option<Parting>,
}

impl Held {
    pub(super) const fn new(kept: Kept, parting: Option<Parting>) -> Self {
        Self { kept: Some(kept), parting }
    }

    /// What was kept, and who waits; nothing of what was committed.
    pub(super) fn into_parts(self) -> Option<(Kept, Option<Parting>)> {
        Some((self.kept?, self.parting))
    }
}

impl Guard for Held {
    fn committed(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.scratch.hand_over();
        }
    }

    fn started(self: Box<Self>) {}
}

/// A session at rest, as it crosses.
pub(super) fn frozen((backend, session): (&str, &str), parts: SessionParts, held: Held) -> Frozen {
    let SessionParts { stdin, stdout, stderr, pidfd, listener, read_ahead, unwritten, state } =
        parts;
    let words = Words { backend: backend.to_owned(), session: session.to_owned(), state };
    let snapshot = Snapshot {
        kind: Kind::Session,
        peer: Peer::Unix,
        read: read_ahead,
        unsent: unwritten,
        version: VERSION,
        state: crate::frames::written(&words).into_bytes(),
    };
    let more = [stdout, stderr, pidfd].into_iter().chain(listener).collect();
    let guard: Option<Box<dyn Guard>> = Some(Box::new(held));
    Frozen { descriptor: stdin, more, snapshot, mailbox: None, guard }
}

/// The words of a session that is offered.
///
/// # Errors
/// Why it cannot be gone on with here, for the log.
pub(super) fn words(snapshot: &Snapshot) -> Result<Words, String> {
    if snapshot.version != VERSION {
        let version = snapshot.version;
        return Err(format!("a session of version {version}, and {VERSION} is known here"));
    }
    let words: Words =
        serde_json::from_slice(&snapshot.state).map_err(|error| error.to_string())?;
    words.state.judge().map_err(|error| error.to_string())?;
    Ok(words)
}

/// A session that is here from now on; `None` for what [`words`] would have refused.
pub(super) fn arrived(frozen: Frozen) -> Option<Arrived> {
    let Words { backend, session, state } = words(&frozen.snapshot).ok()?;
    let mut more = frozen.more.into_iter();
    let mut next = || -> Option<OwnedFd> { more.next() };
    let (stdout, stderr, pidfd, listener) = (next()?, next()?, next()?, next());
    let parts = SessionParts {
        stdin: frozen.descriptor,
        stdout,
        stderr,
        pidfd,
        listener,
        read_ahead: frozen.snapshot.read,
        unwritten: frozen.snapshot.unsent,
        state,
    };
    let held = frozen.guard.and_then(|guard| {
        let guard: Box<dyn std::any::Any> = guard;
        guard.downcast().ok().map(|held| *held)
    });
    Some(Arrived { backend, session, parts, held })
}
