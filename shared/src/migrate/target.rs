//! The successor's side of a migration: looks at what is offered, and serves what becomes its.
//!
//! **Invariants**
//! - Until a batch is committed, its descriptors are only held; a batch that is aborted, or was never
//!   prepared, is closed and never shut down.
//! - What the incumbent has revoked is never served, whatever else it said or did not live to say.
//! - After each batch the connections get their turn before the next one is received, or those that have
//!   just arrived would starve behind it (31 ms instead of 2–3 ms, measured).

use std::collections::BTreeMap;

use tracing::debug;

use super::blob;
use super::post::{FlushFailed, Neighbour, Post, sendable};
use super::snapshot::{Frozen, Snapshot};
use super::wire::{self, Offered, Rejected, ToSource, ToTarget};
use crate::chain;
use crate::fault::{self, Point};
use crate::link::{Link, LinkError, Received};

/// What a target does for the worker it belongs to.
pub trait Heir: Send {
    /// Whether a snapshot can be served at all.
    ///
    /// # Errors
    /// Why not, for the log; the connection stays where it is.
    fn judge(&mut self, snapshot: &Snapshot) -> Result<(), String>;

    /// Serves what has come. Must not block.
    fn resume(&mut self, frozen: Frozen);

    /// The incumbent has said something to this generation itself, by [`Post::tell`].
    fn heard(&mut self, _text: &str) {}

    /// The link to it has ended.
    fn unlinked(&mut self) {}
}

/// One that serves whatever comes.
impl<F: FnMut(Frozen) + Send> Heir for F {
    fn judge(&mut self, _snapshot: &Snapshot) -> Result<(), String> {
        Ok(())
    }

    fn resume(&mut self, frozen: Frozen) {
        self(frozen);
    }
}

/// The successor's side.
#[derive(Debug)]
pub struct Target {
    link: Link,
    post: Post,
    prepared: BTreeMap<u64, Offered>,
}

impl Target {
    /// The successor's side of a migration link.
    #[must_use]
    pub fn new(link: Link, post: Post) -> Self {
        post.link(Neighbour::Incumbent);
        Self { link, post, prepared: BTreeMap::new() }
    }

    /// Receives connections and sessions until the incumbent has no more, or is gone; answers how many of the former.
    ///
    /// When the link ends over batches that were prepared and neither committed nor aborted, they are
    /// served once `reaped` has ended: only then can the incumbent not serve them itself.
    ///
    /// # Errors
    /// [`LinkError`] when the link breaks; what was served is served on.
    pub async fn run(
        mut self,
        mut heir: impl Heir,
        reaped: impl Future<Output = ()>,
    ) -> Result<u64, LinkError> {
        let outcome = self.receive(&mut heir).await;
        self.post.unlink(Neighbour::Incumbent);
        heir.unlinked();
        // The incumbent sees this end close, and takes back what was not committed: it must not be kept
        // here.
        let mut received = outcome?;
        if !self.prepared.is_empty() {
            debug!(batches = self.prepared.len(), "waiting for the incumbent's end");
            reaped.await;
            for offered in std::mem::take(&mut self.prepared).into_values() {
                if !blob::is_revoked(&offered.memfd) {
                    received += self.serve(offered, None, &mut heir);
                }
            }
        }
        Ok(received)
    }

    async fn receive(&mut self, heir: &mut impl Heir) -> Result<u64, LinkError> {
        let mut received = 0;
        // An incumbent that is gone hears nothing, but what it had said before is still to be read.
        let mut listens = true;
        loop {
            let word = tokio::select! {
                word = self.link.receive::<ToTarget>() => word?,
                () = sendable(Some(&self.link), false, &self.post, Neighbour::Incumbent), if listens => {
                    if let Err(error) = self.flush() {
                        debug!(%error, "the incumbent does not listen any more");
                        listens = false;
                    }
                    continue;
                }
            };
            let Some(Received { message, descriptors }) = word else { return Ok(received) };
            match message {
                ToTarget::Offer { seq, count } => {
                    fault::reach_on(Point::OfferReceived, &self.link);
                    let answer = self.consider(seq, count, descriptors, heir);
                    self.post.queue(Neighbour::Incumbent, &answer);
                    self.answer_now();
                    fault::reach_on(Point::PreparedSent, &self.link);
                }
                ToTarget::Commit { seq } => {
                    fault::reach_on(Point::CommitReceived, &self.link);
                    match self.prepared.remove(&seq) {
                        Some(offered) => received += self.serve(offered, Some(seq), heir),
                        // Nothing of that offer could be read.
                        None => self.post.queue(Neighbour::Incumbent, &ToSource::Started { seq }),
                    }
                    fault::reach_on(Point::Resumed, &self.link);
                    self.answer_now();
                    fault::reach_on(Point::StartedSent, &self.link);
                    tokio::task::yield_now().await;
                }
                ToTarget::Abort { seq } => drop(self.prepared.remove(&seq)),
                ToTarget::Post { post } => {
                    for text in self.post.receive(Neighbour::Incumbent, post, descriptors) {
                        heir.heard(&text);
                    }
                }
            }
        }
    }

    /// Sends what waits for the incumbent if there is room, ahead of the next turn of the loop. What goes wrong
    /// is met again there.
    fn answer_now(&self) {
        let _ = self.flush();
    }

    fn flush(&self) -> Result<(), FlushFailed> {
        // Nothing is committed in this direction.
        self.post.flush(Neighbour::Incumbent, &self.link, |_| {})
    }

    /// Serves a batch, and tells the incumbent so if it was that one which gave it.
    fn serve(&self, offered: Offered, committed: Option<u64>, heir: &mut impl Heir) -> u64 {
        let numbers = offered.batch.iter().map(|unclaimed| unclaimed.mailbox);
        let mailboxes = match committed {
            Some(seq) => self.post.arrive(numbers, &ToSource::Started { seq }),
            None => self.post.adopt(numbers),
        };
        let mut connections = 0;
        for (unclaimed, mailbox) in offered.batch.into_iter().zip(mailboxes) {
            let wire::Unclaimed { descriptor, more, snapshot, .. } = unclaimed;
            connections += u64::from(snapshot.kind.is_connection());
            heir.resume(Frozen { descriptor, more, snapshot, mailbox, guard: None });
        }
        connections
    }

    /// Keeps what of an offer can be served, and says what cannot.
    fn consider(
        &mut self,
        seq: u64,
        count: usize,
        descriptors: Vec<std::os::fd::OwnedFd>,
        heir: &mut impl Heir,
    ) -> ToSource {
        let reject_all = |reason: &str, later| {
            let reason = reason.to_owned();
            let reject = |index| Rejected { index, reason: reason.clone(), later };
            let rejected = (0..count.min(wire::WAVE)).map(reject).collect();
            ToSource::Prepared { seq, rejected, late_together: true }
        };
        if descriptors.is_empty() {
            return reject_all("the successor may open no more descriptors", true);
        }
        let Offered { memfd, batch } = match wire::unpack(count, descriptors) {
            Ok(offered) => offered,
            Err(error) => return reject_all(&chain(&error), false),
        };
        let mut rejected = Vec::new();
        let mut kept = Vec::with_capacity(batch.len());
        for (index, unclaimed) in batch.into_iter().enumerate() {
            match heir.judge(&unclaimed.snapshot) {
                Ok(()) => kept.push(unclaimed),
                Err(reason) => rejected.push(Rejected { index, reason, later: false }),
            }
        }
        self.prepared.insert(seq, Offered { memfd, batch: kept });
        ToSource::Prepared { seq, rejected, late_together: true }
    }
}
