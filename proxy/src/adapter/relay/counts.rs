//! How many connections there are, and how many of them the program still owes something.
//!
//! TCP does not tell a side that only has said its last from one that is gone. So a connection is owed something until
//! the program has ended its way of it; a client that does not close its own then holds nobody up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The counts of an adapter. A copy counts the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    open: AtomicU64,
    owed: AtomicU64,
    nothing_owed: Notify,
}

/// A connection, as long as it is open.
#[derive(Debug)]
pub(super) struct Open {
    counts: Counts,
}

/// A connection, as long as its program owes it something.
#[derive(Debug)]
pub(super) struct Owed {
    counts: Counts,
}

impl Counts {
    /// One more connection, to which everything is owed.
    pub(super) fn enter(&self) -> (Open, Owed) {
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        self.shared.owed.fetch_add(1, Ordering::Relaxed);
        (Open { counts: self.clone() }, Owed { counts: self.clone() })
    }

    pub(super) fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    pub(super) fn owed(&self) -> u64 {
        self.shared.owed.load(Ordering::Relaxed)
    }

    /// Ends when nothing is owed to anybody. Cancel safe.
    pub(super) async fn nothing_owed(&self) {
        while self.owed() > 0 {
            self.shared.nothing_owed.notified().await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.counts.shared.owed.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.counts.shared.nothing_owed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_owed_when_every_program_has_said_its_last() {
        let counts = Counts::default();
        let (open, owed) = counts.enter();
        let (_, other) = counts.enter();
        assert_eq!((counts.open(), counts.owed()), (1, 2));
        drop(other);
        drop(owed);
        counts.nothing_owed().await;
        assert_eq!((counts.open(), counts.owed()), (1, 0));
        drop(open);
        assert_eq!(counts.open(), 0);
    }
}
