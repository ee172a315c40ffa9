//! The successor's side of a migration: looks at what is offered, and serves what becomes its.
//!
//! **Invariants**
//! - Until a batch is committed, its descriptors are only held; a batch that is aborted, or was never
//!   prepared, is closed and never shut down.
//! - After each batch the connections get their turn before the next one is received, or those that have
//!   just arrived would starve behind it (31 ms instead of 2–3 ms, measured).

use std::collections::BTreeMap;

use tracing::debug;

use super::snapshot::{Frozen, Snapshot};
use super::wire::{self, Rejected, ToSource, ToTarget};
use crate::chain;
use crate::link::{Link, LinkError};

/// The successor's side.
#[derive(Debug)]
pub struct Target {
    link: Link,
    prepared: BTreeMap<u64, Vec<Frozen>>,
}

impl Target {
    /// The successor's side of a migration link.
    #[must_use]
    pub const fn new(link: Link) -> Self {
        Self { link, prepared: BTreeMap::new() }
    }

    /// Receives connections until the incumbent has no more, or is gone.
    ///
    /// `judge` says whether a snapshot can be served at all; `resume` serves one. When the link ends over
    /// batches that were prepared and neither committed nor aborted, they are served once `reaped`
    /// has ended: only then can the incumbent not serve them itself.
    ///
    /// # Errors
    /// [`LinkError`] when the link breaks; what was served is served on.
    pub async fn run(
        mut self,
        mut judge: impl FnMut(&Snapshot) -> Result<(), String>,
        mut resume: impl FnMut(Frozen),
        reaped: impl Future<Output = ()>,
    ) -> Result<u64, LinkError> {
        let mut received = 0;
        loop {
            match self.link.receive::<ToTarget>().await {
                Ok(Some(word)) => match word.message {
                    ToTarget::Offer { seq, count } => {
                        let answer = self.consider(seq, count, word.descriptors, &mut judge);
                        self.say(&answer).await;
                    }
                    ToTarget::Commit { seq } => {
                        for frozen in self.prepared.remove(&seq).unwrap_or_default() {
                            received += 1;
                            resume(frozen);
                        }
                        self.say(&ToSource::Started { seq }).await;
                        tokio::task::yield_now().await;
                    }
                    ToTarget::Abort { seq } => drop(self.prepared.remove(&seq)),
                },
                Ok(None) => break,
                // The incumbent sees this end close, and takes back what was not committed: it must
                // not be kept here.
                Err(error) => return Err(error),
            }
        }
        if !self.prepared.is_empty() {
            debug!(batches = self.prepared.len(), "waiting for the incumbent's end");
            reaped.await;
            for frozen in self.prepared.into_values().flatten() {
                received += 1;
                resume(frozen);
            }
        }
        Ok(received)
    }

    /// An incumbent that is gone hears no answer, but what it had said before is still to be read.
    async fn say(&self, answer: &ToSource) {
        if let Err(error) = self.link.send(answer, &[]).await {
            debug!(%error, "the incumbent does not listen any more");
        }
    }

    /// Keeps what of an offer can be served, and says what cannot.
    fn consider(
        &mut self,
        seq: u64,
        count: usize,
        descriptors: Vec<std::os::fd::OwnedFd>,
        judge: &mut impl FnMut(&Snapshot) -> Result<(), String>,
    ) -> ToSource {
        let reject_all = |reason: &str, later| {
            let reason = reason.to_owned();
            let reject = |index| Rejected { index, reason: reason.clone(), later };
            let rejected = (0..count.min(wire::WAVE)).map(reject).collect();
            ToSource::Prepared { seq, rejected }
        };
        if descriptors.is_empty() {
            return reject_all("the successor may open no more descriptors", true);
        }
        let batch = match wire::unpack(count, descriptors) {
            Ok(batch) => batch,
            Err(error) => return reject_all(&chain(&error), false),
        };
        let mut rejected = Vec::new();
        let mut kept = Vec::with_capacity(batch.len());
        for (index, frozen) in batch.into_iter().enumerate() {
            match judge(&frozen.snapshot) {
                Ok(()) => kept.push(frozen),
                Err(reason) => rejected.push(Rejected { index, reason, later: false }),
            }
        }
        self.prepared.insert(seq, kept);
        ToSource::Prepared { seq, rejected }
    }
}
