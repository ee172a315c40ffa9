//! The incumbent's side of a migration: asks its connections in waves, offers what is frozen, and
//! takes back what the successor does not get.
//!
//! ```text
//! asked ─► frozen ─► Offered ── Prepared ──► Committing ── Commit sent ──► Committed ── Started ──► gone
//!             ▲         └── called off, or no answer: revoked ──┘               └─ link ended: lost
//!             └──────────────── thaws here ◄────────────────────┘
//! ```
//!
//! **Invariants**
//! - At most [`MOST_OFFERS`] offers are not answered: descriptors on their way count against the user's
//!   limit (unix(7), ETOOMANYREFS).
//! - Connections and sessions go in offers of their own: who knows no sessions refuses those, and no connection with them.
//! - A connection that is frozen is either started by the successor or given back to the worker; it is
//!   never dropped here while it is ours.
//! - An offer is revoked in the memory both sides share before anything of it thaws: not even a
//!   successor that hangs, and reads what it was sent after this process has ended, takes it for its own.
//! - Nothing here waits for a successor that does not read.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::blob;
use super::offer::{Offer, Order, Stage};
use super::post::{FlushFailed, Neighbour, Post, sendable};
use super::progress::{Extent, Links, Moved, Returned, Tally};
use super::roster::{Answer, Roster};
use super::snapshot::Frozen;
use super::wire::{self, Rejected, ToSource, ToTarget};
use crate::fault::{self, Point};
use crate::link::{Link, LinkError, Received};

/// How many offers may be on their way.
const MOST_OFFERS: usize = 2;
/// How many are asked at a time, and offered together. A connection stands still for as long as all those take
/// that are on their way with it: with 16 and two offers a third of what it is with 64 and four, measured.
const ASKED: usize = 16;
/// How long nobody is asked after the successor had no room.
const REST: Duration = Duration::from_millis(250);
/// How long an offer may be without an answer: its connections stand still meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections go ahead of the others, before the takeover is committed.
const CANARY: usize = 8;

/// What a source does for the worker it belongs to.
pub trait Home: Send {
    /// Serves what comes back. Must not block.
    fn resume(&mut self, frozen: Frozen, returned: Returned);

    /// A successor is linked: letters for it are taken from now on.
    fn linked(&mut self) {}

    /// It has said something to this generation itself, by [`Post::tell`].
    fn heard(&mut self, _text: &str) {}

    /// The link to it has ended.
    fn unlinked(&mut self) {}
}

impl<F: FnMut(Frozen, Returned) + Send> Home for F {
    fn resume(&mut self, frozen: Frozen, returned: Returned) {
        self(frozen, returned);
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
    post: Post,
    /// Asked, and without an answer.
    outstanding: BTreeSet<u64>,
    frozen: Vec<Frozen>,
    offers: VecDeque<Offer>,
    /// What is to be sent, in order.
    orders: VecDeque<Order>,
    /// The number from which on nobody was asked.
    unasked: u64,
    /// Nobody is asked before this: the successor has no room at the moment.
    resting_until: Option<Instant>,
    seq: u64,
}

impl Source {
    /// A source that moves connections of its roster as far as `extent` says, over the links that are
    /// introduced.
    #[must_use]
    pub fn new(
        extent: watch::Receiver<Extent>,
        post: Post,
    ) -> (Self, Roster, Links, watch::Receiver<Moved>) {
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
            post,
            outstanding: BTreeSet::new(),
            frozen: Vec::new(),
            offers: VecDeque::new(),
            orders: VecDeque::new(),
            unasked: 0,
            resting_until: None,
            seq: 0,
        };
        (source, roster, Links { links: sender, progress }, moved)
    }

    /// Moves connections for as long as the worker lives.
    pub async fn run(mut self, mut home: impl Home) {
        loop {
            let extent = *self.extent.borrow_and_update();
            // Without a link, too: one that was asked in time may freeze after the link's end.
            if extent == Extent::Nothing || self.link.is_none() {
                self.call_off(&mut home);
            } else {
                self.advance(extent, &mut home);
            }
            if let Err(error) = self.flush() {
                self.unlink(&error, &mut home);
            }
            let has_orders = !self.orders.is_empty();
            let moves = extent != Extent::Nothing && self.link.is_some();
            let answer_due_at = self.answer_due_at();
            tokio::select! {
                Some(answer) = self.answers.recv() => self.on_answer(answer),
                received = receive(self.link.as_ref()) => match received {
                    Ok(Some(word)) => self.on_word(word, &mut home),
                    Ok(None) => self.unlink(&"it closed its end", &mut home),
                    Err(error) => self.unlink(&error, &mut home),
                },
                link = self.links.recv() => match link {
                    Some(link) => self.on_link(link, &mut home),
                    None => return,
                },
                () = sendable(self.link.as_ref(), has_orders, &self.post, Neighbour::Successor) => {}
                () = self.roster.stirred(), if moves => {}
                () = until(self.resting_until) => self.resting_until = None,
                () = until(answer_due_at) => {
                    self.unlink(&"it does not answer", &mut home);
                }
                changed = self.extent.changed() => if changed.is_err() { return },
            }
        }
    }

    fn on_link(&mut self, link: Link, home: &mut impl Home) {
        self.unlink(&"another one comes", home);
        self.link = Some(link);
        self.post.link(Neighbour::Successor);
        self.progress.send_modify(|progress| progress.linked = true);
        home.linked();
    }

    /// Offers what is frozen, or asks the next wave. A wave is offered when all of it has answered,
    /// so that its first does not wait long for its last.
    fn advance(&mut self, extent: Extent, home: &mut impl Home) {
        while self.outstanding.is_empty() && self.offers.len() < MOST_OFFERS {
            if !self.frozen.is_empty() {
                let batch = wire::take_batch(&mut self.frozen, ASKED);
                let memfd = match wire::pack(&batch) {
                    Ok(memfd) => memfd,
                    Err(error) => {
                        // This process may open no more descriptors at the moment.
                        warn!(%error, connections = batch.len(), "connections stay");
                        self.resting_until = Some(Instant::now() + REST);
                        self.thaw(batch, home);
                        continue;
                    }
                };
                self.seq += 1;
                let (seq, made_at) = (self.seq, Instant::now());
                self.offers.push_back(Offer { seq, batch, memfd, stage: Stage::Offered, made_at });
                self.orders.push_back(Order::Offer(seq));
                continue;
            }
            if self.resting_until.is_some() || !self.ask(extent) {
                return;
            }
            fault::reach_on(Point::Asked, self.link.as_ref());
        }
    }

    /// Asks the next ones to move, and says whether there are any.
    fn ask(&mut self, extent: Extent) -> bool {
        let mut asked = self.roster.ask_hurried(ASKED);
        if asked.is_empty() {
            asked = match extent {
                Extent::Canary if self.unasked > 0 => return false,
                Extent::Canary => self.roster.ask(self.unasked, CANARY),
                Extent::Everything | Extent::Nothing => self.roster.ask(self.unasked, ASKED),
            };
            self.unasked = asked.last().map_or(self.unasked, |last| last + 1);
        }
        if asked.is_empty() && extent == Extent::Everything {
            asked = self.roster.ask_sessions(ASKED);
        }
        self.outstanding.extend(asked);
        !self.outstanding.is_empty()
    }

    /// Sends what there is room for.
    fn flush(&mut self) -> Result<(), FlushFailed> {
        let Some(link) = &self.link else { return Ok(()) };
        while let Some(order) = self.orders.front() {
            let sent = match *order {
                Order::Offer(seq) => {
                    let offer = self.offers.iter().find(|offer| offer.seq == seq);
                    offer.map_or(Ok(true), |Offer { batch, memfd, .. }| {
                        let word = ToTarget::Offer { seq, count: batch.len() };
                        link.try_send(&word, &wire::attachments(memfd, batch))
                    })?
                }
                Order::Commit(seq) => link.try_send(&ToTarget::Commit { seq }, &[])?,
                Order::Abort(seq) => link.try_send(&ToTarget::Abort { seq }, &[])?,
            };
            if !sent {
                return Ok(());
            }
            match *order {
                Order::Offer(_) => fault::reach_on(Point::OfferSent, link),
                Order::Commit(seq) => committed(seq, &mut self.offers, &self.progress, link),
                Order::Abort(_) => {}
            }
            self.orders.pop_front();
        }
        self.post.flush(Neighbour::Successor, link, |seq| {
            committed(seq, &mut self.offers, &self.progress, link);
        })
    }

    fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Frozen(number, mut frozen) => {
                fault::reach_frozen(self.link.as_ref(), &mut frozen.snapshot);
                self.outstanding.remove(&number);
                self.frozen.push(*frozen);
            }
            Answer::Busy(number) | Answer::Gone(number) => {
                self.outstanding.remove(&number);
            }
        }
    }

    fn on_word(&mut self, received: Received<ToSource>, home: &mut impl Home) {
        match received.message {
            ToSource::Prepared { seq, rejected, late_together } => {
                if late_together {
                    self.post.is_written_to_together(Neighbour::Successor);
                }
                self.on_prepared(seq, &rejected, home);
            }
            ToSource::Started { seq } => {
                fault::reach_on(Point::StartedReceived, self.link.as_ref());
                let is_it = |offer: &Offer| offer.seq == seq && offer.stage == Stage::Committed;
                let place = self.offers.iter().position(is_it);
                if let Some(offer) = place.and_then(|place| self.offers.remove(place)) {
                    self.post.started(offer.mailboxes());
                    let moved = Tally::of(&offer.batch);
                    for guard in offer.batch.into_iter().filter_map(|frozen| frozen.guard) {
                        guard.started();
                    }
                    self.roster.departed(moved);
                    debug!(
                        connections = moved.connections.total(),
                        sessions = moved.sessions,
                        "moved"
                    );
                }
            }
            ToSource::Post { post } => {
                let heard = self.post.receive(Neighbour::Successor, post, received.descriptors);
                heard.iter().for_each(|text| home.heard(text));
            }
        }
    }

    fn on_prepared(&mut self, seq: u64, rejected: &[Rejected], home: &mut impl Home) {
        fault::reach_on(Point::PreparedReceived, self.link.as_ref());
        let is_it = |offer: &&mut Offer| offer.seq == seq && offer.stage == Stage::Offered;
        // One that is not there was called off meanwhile.
        let Some(offer) = self.offers.iter_mut().find(is_it) else { return };
        let mut refused: Vec<&Rejected> =
            rejected.iter().filter(|r| r.index < offer.batch.len()).collect();
        refused.sort_unstable_by_key(|refused| refused.index);
        refused.dedup_by_key(|refused| refused.index);
        // From the end, so that the places of the others stay.
        for refused in refused.into_iter().rev() {
            let frozen = offer.batch.remove(refused.index);
            let one = Tally::of(std::slice::from_ref(&frozen));
            if refused.later {
                self.resting_until = Some(Instant::now() + REST);
                home.resume(frozen, Returned::Aborted);
            } else {
                self.progress.send_modify(|progress| progress.rejected += 1);
                home.resume(frozen, Returned::Rejected);
            }
            self.roster.departed(one);
        }
        if let Some(first) = rejected.first() {
            let (reason, later) = (&first.reason, first.later);
            warn!(rejected = rejected.len(), reason, later, "connections stay");
        }
        offer.stage = Stage::Committing;
        if offer.mailboxes().next().is_none() {
            self.orders.push_back(Order::Commit(seq));
        } else {
            // Behind what was published so far, so that a connection never meets again what it has seen already.
            self.post.promise(seq, &ToTarget::Commit { seq }, offer.mailboxes());
        }
    }

    /// When the first offer that has no answer should have had it.
    fn answer_due_at(&self) -> Option<Instant> {
        let unanswered = self.offers.iter().filter(|offer| offer.stage == Stage::Offered);
        unanswered.map(|offer| offer.made_at + ANSWER_TIMEOUT).min()
    }

    /// Takes back what is not the successor's yet.
    fn call_off(&mut self, home: &mut impl Home) {
        self.roster.leave_alone();
        self.outstanding.clear();
        self.unasked = 0;
        let (theirs, ours): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.offers)
            .into_iter()
            .partition(|offer| offer.stage == Stage::Committed);
        self.offers = theirs;
        for offer in ours {
            if let Err(error) = blob::revoke(&offer.memfd) {
                // Never seen; the abort says the same to whoever reads.
                warn!(%error, "an offer could not be revoked");
            }
            fault::reach_on(Point::Revoked, self.link.as_ref());
            self.post.recall(offer.seq);
            let never_made = self.orders.contains(&Order::Offer(offer.seq));
            self.orders.retain(|order| {
                *order != Order::Offer(offer.seq) && *order != Order::Commit(offer.seq)
            });
            if !never_made {
                self.orders.push_back(Order::Abort(offer.seq));
            }
            self.thaw(offer.batch, home);
        }
        let frozen = std::mem::take(&mut self.frozen);
        self.thaw(frozen, home);
    }

    /// The successor is gone, or given up: what was its, is lost; what was not, comes back.
    fn unlink(&mut self, reason: &(dyn std::fmt::Display + Sync), home: &mut impl Home) {
        if self.link.is_none() {
            return;
        }
        // A link that ends with nothing on it is the ordinary end of a takeover.
        match self.offers.is_empty() {
            true => debug!(%reason, "the migration link ended"),
            false => warn!(%reason, "the migration link ended in the middle of a move"),
        }
        self.call_off(home);
        // One that lives reads the aborts before the end; a revoked offer is void either way.
        let _ = self.flush();
        self.link = None;
        self.orders.clear();
        for offer in std::mem::take(&mut self.offers) {
            let lost = Tally::of(&offer.batch);
            self.progress.send_modify(|progress| progress.lose(lost));
            self.roster.departed(lost);
        }
        self.post.unlink(Neighbour::Successor);
        self.progress.send_modify(|progress| progress.linked = false);
        home.unlinked();
    }

    fn thaw(&self, batch: Vec<Frozen>, home: &mut impl Home) {
        for frozen in batch {
            let one = Tally::of(std::slice::from_ref(&frozen));
            home.resume(frozen, Returned::Aborted);
            // It has a seat of its own again by now.
            self.roster.departed(one);
        }
    }
}

/// The commit of an offer was sent: it is the successor's.
fn committed(seq: u64, offers: &mut VecDeque<Offer>, progress: &watch::Sender<Moved>, link: &Link) {
    if let Some(offer) = offers.iter_mut().find(|offer| offer.seq == seq) {
        offer.stage = Stage::Committed;
        for guard in offer.batch.iter_mut().filter_map(|frozen| frozen.guard.as_mut()) {
            guard.committed();
        }
        progress.send_modify(|progress| progress.give(Tally::of(&offer.batch)));
    }
    fault::reach_on(Point::CommitSent, link);
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn receive(link: Option<&Link>) -> Result<Option<Received<ToSource>>, LinkError> {
    match link {
        Some(link) => link.receive().await,
        None => std::future::pending().await,
    }
}
