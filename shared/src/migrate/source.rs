//! The incumbent's side of a migration: asks its connections in waves, offers what is frozen, and
//! takes back what the successor does not get.
//!
//! **Invariants**
//! - At most [`MOST_OFFERS`] offers are not answered: descriptors on their way count against the user's
//!   limit (unix(7), ETOOMANYREFS).
//! - A connection that is frozen is either started by the successor or given back to the worker; it is
//!   never dropped here while it is ours.
//! - `Abort` is sent before anything thaws.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::roster::{Answer, Roster};
use super::snapshot::{Frozen, Kind};
use super::wire::{self, Rejected, ToSource, ToTarget, WAVE};
use crate::link::{Link, LinkError};
use crate::message::Connections;

/// How many offers may be on their way.
const MOST_OFFERS: usize = 4;
/// How long nobody is asked after the successor had no room.
const REST: Duration = Duration::from_millis(250);
/// How many connections go ahead of the others, before the takeover is committed.
const CANARY: usize = 8;

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
    /// Connections the successor would not take; they stay.
    pub rejected: u64,
    /// Connections that were the successor's when it went away.
    pub lost: Connections,
    /// Whether there is a successor to move to.
    pub linked: bool,
}

/// Why a connection comes back.
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
    links: mpsc::Sender<Link>,
    progress: watch::Sender<Moved>,
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

/// The incumbent's side.
#[derive(Debug)]
pub struct Source {
    roster: Roster,
    answers: mpsc::UnboundedReceiver<Answer>,
    extent: watch::Receiver<Extent>,
    progress: watch::Sender<Moved>,
    links: mpsc::Receiver<Link>,
    link: Option<Link>,
    /// Asked, and without an answer.
    outstanding: BTreeSet<u64>,
    frozen: Vec<Frozen>,
    offers: VecDeque<Offer>,
    /// The number from which on nobody was asked.
    unasked: u64,
    /// Nobody is asked before this: the successor has no room at the moment.
    resting_until: Option<Instant>,
    seq: u64,
}

#[derive(Debug)]
struct Offer {
    seq: u64,
    batch: Vec<Frozen>,
    committed: bool,
}

impl Source {
    /// A source that moves connections of its roster as far as `extent` says, over the links that are
    /// introduced.
    #[must_use]
    pub fn new(extent: watch::Receiver<Extent>) -> (Self, Roster, Links, watch::Receiver<Moved>) {
        let (roster, answers) = Roster::new();
        let (progress, moved) = watch::channel(Moved::default());
        let (sender, links) = mpsc::channel(1);
        let source = Self {
            roster: roster.clone(),
            answers,
            extent,
            progress: progress.clone(),
            links,
            link: None,
            outstanding: BTreeSet::new(),
            frozen: Vec::new(),
            offers: VecDeque::new(),
            unasked: 0,
            resting_until: None,
            seq: 0,
        };
        (source, roster, Links { links: sender, progress }, moved)
    }

    /// Moves connections for as long as the worker lives. `resume` serves a connection that comes
    /// back.
    pub async fn run(mut self, mut resume: impl FnMut(Frozen, Returned)) {
        loop {
            let extent = *self.extent.borrow_and_update();
            // Without a link, too: one that was asked in time may freeze after the link's end.
            let step = if extent == Extent::Nothing || self.link.is_none() {
                self.abort(&mut resume).await
            } else {
                self.advance(extent).await
            };
            if let Err(error) = step {
                self.unlink(&error, &mut resume).await;
            }
            tokio::select! {
                Some(answer) = self.answers.recv() => self.on_answer(answer),
                word = receive(self.link.as_ref()) => match word {
                    Ok(Some(word)) => {
                        if let Err(error) = self.on_word(word, &mut resume).await {
                            self.unlink(&error, &mut resume).await;
                        }
                    }
                    Ok(None) => self.unlink(&"it closed its end", &mut resume).await,
                    Err(error) => self.unlink(&error, &mut resume).await,
                },
                link = self.links.recv() => match link {
                    Some(link) => {
                        self.unlink(&"another one comes", &mut resume).await;
                        self.link = Some(link);
                        self.unasked = 0;
                        self.progress.send_modify(|progress| progress.linked = true);
                    }
                    None => return,
                },
                () = until(self.resting_until) => self.resting_until = None,
                changed = self.extent.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Offers what is frozen, or asks the next wave. A wave is offered when all of it has answered,
    /// so that its first does not wait long for its last.
    async fn advance(&mut self, extent: Extent) -> Result<(), LinkError> {
        while self.outstanding.is_empty() && self.offers.len() < MOST_OFFERS {
            let Some(link) = &self.link else { return Ok(()) };
            if !self.frozen.is_empty() {
                let rest = self.frozen.split_off(self.frozen.len().min(WAVE));
                let batch = std::mem::replace(&mut self.frozen, rest);
                self.seq += 1;
                // Kept here first: whatever goes wrong, they come back.
                self.offers.push_back(Offer { seq: self.seq, batch, committed: false });
                let batch = &self.offers[self.offers.len() - 1].batch;
                let memfd = wire::pack(batch).map_err(|source| LinkError::Socket { source })?;
                let offer = ToTarget::Offer { seq: self.seq, count: batch.len() };
                link.send(&offer, &wire::attachments(&memfd, batch)).await?;
                continue;
            }
            let most = match extent {
                Extent::Canary if self.unasked > 0 => return Ok(()),
                Extent::Canary => CANARY,
                Extent::Everything | Extent::Nothing => WAVE,
            };
            if self.resting_until.is_some() {
                return Ok(());
            }
            let asked = self.roster.ask(self.unasked, most);
            let Some(last) = asked.last() else { return Ok(()) };
            self.unasked = last + 1;
            self.outstanding.extend(asked);
        }
        Ok(())
    }

    fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Frozen(number, frozen) => {
                self.outstanding.remove(&number);
                self.frozen.push(*frozen);
            }
            Answer::Busy(number) | Answer::Gone(number) => {
                self.outstanding.remove(&number);
            }
        }
    }

    async fn on_word(
        &mut self,
        word: ToSource,
        resume: &mut impl FnMut(Frozen, Returned),
    ) -> Result<(), LinkError> {
        match word {
            ToSource::Prepared { seq, rejected } => {
                let Some(offer) = self.offers.iter_mut().find(|o| o.seq == seq && !o.committed)
                else {
                    // Aborted meanwhile.
                    return Ok(());
                };
                let mut refused: Vec<&Rejected> =
                    rejected.iter().filter(|r| r.index < offer.batch.len()).collect();
                refused.sort_unstable_by_key(|refused| refused.index);
                refused.dedup_by_key(|refused| refused.index);
                // From the end, so that the places of the others stay.
                for refused in refused.into_iter().rev() {
                    let frozen = offer.batch.remove(refused.index);
                    if refused.later {
                        self.resting_until = Some(Instant::now() + REST);
                        resume(frozen, Returned::Aborted);
                    } else {
                        self.progress.send_modify(|progress| progress.rejected += 1);
                        resume(frozen, Returned::Rejected);
                    }
                    self.roster.departed(1);
                }
                if let Some(first) = rejected.first() {
                    let (reason, later) = (&first.reason, first.later);
                    warn!(rejected = rejected.len(), reason, later, "connections stay");
                }
                offer.committed = true;
                self.progress.send_modify(|p| p.moved = sum(p.moved, &offer.batch));
                if let Some(link) = &self.link {
                    link.send(&ToTarget::Commit { seq }, &[]).await?;
                }
            }
            ToSource::Started { seq } => {
                let started = self.offers.iter().position(|o| o.seq == seq && o.committed);
                if let Some(offer) = started.and_then(|place| self.offers.remove(place)) {
                    self.roster.departed(offer.batch.len());
                    debug!(connections = offer.batch.len(), "moved");
                }
            }
        }
        Ok(())
    }

    /// Takes back what is not the successor's yet.
    async fn abort(&mut self, resume: &mut impl FnMut(Frozen, Returned)) -> Result<(), LinkError> {
        self.roster.leave_alone();
        self.outstanding.clear();
        self.unasked = 0;
        let aborted: Vec<u64> =
            self.offers.iter().filter(|o| !o.committed).map(|o| o.seq).collect();
        for seq in aborted {
            if let Some(link) = &self.link {
                link.send(&ToTarget::Abort { seq }, &[]).await?;
            }
            let place = self.offers.iter().position(|offer| offer.seq == seq);
            if let Some(offer) = place.and_then(|place| self.offers.remove(place)) {
                self.thaw(offer.batch, resume);
            }
        }
        let frozen = std::mem::take(&mut self.frozen);
        self.thaw(frozen, resume);
        Ok(())
    }

    /// The successor is gone, or given up: what was its, is lost; what was not, comes back.
    async fn unlink(
        &mut self,
        reason: &(dyn std::fmt::Display + Sync),
        resume: &mut impl FnMut(Frozen, Returned),
    ) {
        let Some(link) = self.link.take() else { return };
        debug!(%reason, "the migration link ended");
        self.roster.leave_alone();
        self.outstanding.clear();
        for offer in std::mem::take(&mut self.offers) {
            if offer.committed {
                self.progress.send_modify(|progress| {
                    progress.moved = less(progress.moved, &offer.batch);
                    progress.lost = sum(progress.lost, &offer.batch);
                });
                self.roster.departed(offer.batch.len());
            } else {
                // One that is gone has closed its copies; one that is there has to know first.
                let _ = link.send(&ToTarget::Abort { seq: offer.seq }, &[]).await;
                self.thaw(offer.batch, resume);
            }
        }
        let frozen = std::mem::take(&mut self.frozen);
        self.thaw(frozen, resume);
        self.progress.send_modify(|progress| progress.linked = false);
    }

    fn thaw(&self, batch: Vec<Frozen>, resume: &mut impl FnMut(Frozen, Returned)) {
        for frozen in batch {
            resume(frozen, Returned::Aborted);
            // It has a seat of its own again by now.
            self.roster.departed(1);
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn receive(link: Option<&Link>) -> Result<Option<ToSource>, LinkError> {
    match link {
        Some(link) => Ok(link.receive().await?.map(|received| received.message)),
        None => std::future::pending().await,
    }
}

/// How many of a batch are of each kind.
fn kinds(batch: &[Frozen]) -> Connections {
    let of = |kind| batch.iter().filter(|frozen| frozen.snapshot.kind == kind).count() as u64;
    Connections { http: of(Kind::Http1), websocket: of(Kind::WebSocket) }
}

fn sum(connections: Connections, batch: &[Frozen]) -> Connections {
    let more = kinds(batch);
    Connections {
        http: connections.http + more.http,
        websocket: connections.websocket + more.websocket,
    }
}

fn less(connections: Connections, batch: &[Frozen]) -> Connections {
    let fewer = kinds(batch);
    Connections {
        http: connections.http.saturating_sub(fewer.http),
        websocket: connections.websocket.saturating_sub(fewer.websocket),
    }
}
