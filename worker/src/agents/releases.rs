//! Lanes that go to the generation beside: each after the program of its session, if it has one here.
//!
//! ```text
//! nobody runs in the lane ─► its program parts: moves to the successor, or ends ─► LaneReleased
//!                                          └── takes too long ──────────────────────────┘
//! ```
//!
//! **Invariants**
//! - Whoever runs next in a lane finds its program, or may start another: none goes on here.

use std::fmt;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use handoff::migrate::{Neighbour, Post};

use super::neighbours::Word;

/// How long a program may take to part before its lane goes without it.
const LIMIT: Duration = Duration::from_secs(5);

/// Has the program of a session part, for its lane is to be this neighbour's, and ends when it has; `None` when there is none.
pub(crate) type Part =
    dyn Fn(Neighbour, &str) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> + Send + Sync;

/// How lanes are released.
#[derive(Default)]
pub(crate) struct Releases {
    /// Who has programs of sessions, if anybody has.
    part: OnceLock<Box<Part>>,
}

impl fmt::Debug for Releases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Releases").finish_non_exhaustive()
    }
}

impl Releases {
    /// Programs part in this way. It is said once.
    pub(crate) fn part_by(&self, part: Box<Part>) {
        let _ = self.part.set(part);
    }

    /// Tells a neighbour that it has a lane, once no program of that session is here.
    pub(super) fn release(&self, post: &Post, neighbour: Neighbour, session: String) {
        let parted = self.part.get().and_then(|part| part(neighbour, &session));
        let word = Word::LaneReleased { session }.written();
        let Some(parted) = parted else {
            post.tell(neighbour, &word);
            return;
        };
        let post = post.clone();
        tokio::spawn(async move {
            // One that takes longer is given up: whoever waits there begins anew.
            let _ = tokio::time::timeout(LIMIT, parted).await;
            post.tell(neighbour, &word);
        });
    }
}
