//! Who waits for the end of a run, in whichever generation it runs.
//!
//! ```text
//! a run ends here ───► whoever waits ─► looks at the database
//!        └─► the word goes to the neighbours ─► whoever waits there
//! a neighbour is gone ─► whoever waits
//! ```
//!
//! **Invariants**
//! - A sign is no answer: what came of a run is in the database before its end is told, and is read there.
//! - Whoever falls behind is told to look.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// So many signs may be unread by one who waits, before he looks without them.
const MOST_UNREAD: usize = 64;

/// What may have ended a run.
#[derive(Clone, Debug)]
enum Sign {
    /// This one has ended.
    Ended(String),
    /// Nobody says any more what ended in the generation beside.
    NeighbourGone,
}

/// The ends of runs, as they are heard of.
#[derive(Debug)]
pub(super) struct Ends {
    signs: broadcast::Sender<Sign>,
}

/// The end of one run, waited for.
#[derive(Debug)]
pub(crate) struct Awaited {
    run: String,
    signs: broadcast::Receiver<Sign>,
}

impl Default for Ends {
    fn default() -> Self {
        Self { signs: broadcast::Sender::new(MOST_UNREAD) }
    }
}

impl Ends {
    /// From now on what is heard of the end of this run is not missed.
    pub(super) fn of(&self, run: String) -> Awaited {
        Awaited { run, signs: self.signs.subscribe() }
    }

    /// This run has ended, here or beside.
    pub(super) fn ended(&self, run: &str) {
        self.tell(|| Sign::Ended(run.to_owned()));
    }

    /// A generation beside is gone.
    pub(super) fn neighbour_gone(&self) {
        self.tell(|| Sign::NeighbourGone);
    }

    fn tell(&self, sign: impl FnOnce() -> Sign) {
        if self.signs.receiver_count() > 0 {
            // Those that waited may be gone by now.
            let _ = self.signs.send(sign());
        }
    }
}

impl Awaited {
    /// The run that is waited for.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// Ends when the run may have ended. Cancel safe.
    pub(crate) async fn sign(&mut self) {
        loop {
            match self.signs.recv().await {
                Ok(Sign::Ended(run)) if run != self.run => {}
                Ok(Sign::Ended(_) | Sign::NeighbourGone) | Err(RecvError::Lagged(_)) => return,
                // The worker ends, and whoever waits with it.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_hears_of_its_run_alone_of_a_neighbours_end_and_of_having_missed_something()
     {
        let ends = Ends::default();
        ends.ended("before");
        let mut awaited = ends.of("run".to_owned());
        ends.ended("other");
        assert_eq!(awaited.sign().now_or_never(), None);
        ends.ended("run");
        assert_eq!(awaited.sign().now_or_never(), Some(()));
        ends.neighbour_gone();
        assert_eq!(awaited.sign().now_or_never(), Some(()));
        for _ in 0..=MOST_UNREAD {
            ends.ended("other");
        }
        assert_eq!(awaited.sign().now_or_never(), Some(()));
    }
}
