//! Letters for connections from somebody else than their own task: from a call that is still running,
//! and what is said to everybody. They arrive wherever the connection is served by then.
//!
//! ```text
//!  call ── Recipient::send ──┐                    ┌► Mailbox: the connection's task, or nobody yet
//!  anybody ─ Post::publish ┴► the office ───────┤
//!                                               └► moved: over the link, to the successor's office
//! ```
//!
//! **Invariants**
//! - A letter reaches its connection once, and the letters of one sender in the order they were sent,
//!   whatever moves meanwhile. One lock covers who reads a mailbox, and what was said over the link
//!   before that changed.
//! - A mailbox that is frozen keeps its letters: they are read here when it thaws, and over there when
//!   it was committed.
//! - When the link to the generation a connection came from ends, its mailbox says so: what that
//!   generation had not answered, nobody will.

mod office;
mod outgoing;

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use serde::Serialize;
use tokio::sync::Notify;
use tracing::warn;

use self::office::{Bell, Office};
use self::outgoing::Promise;
#[cfg(test)]
pub(super) use self::outgoing::Text;
pub(super) use self::outgoing::{FlushFailed, Word, one_or_several};
use crate::chain;
use crate::link::Link;
use crate::migrate::blob::NotABlob;

/// How much waits for one connection before its letters are given up, in bytes, unless
/// [`Post::new`] says otherwise.
const MOST_WAITING: usize = 50 * 1024 * 1024;

/// A generation at the other end of a migration link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Neighbour {
    /// The one whose connections come here.
    Incumbent,
    /// The one to which connections go from here.
    Successor,
}

/// What a connection finds in its mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A letter.
    Letter(Arc<str>),
    /// A generation that had the connection is gone: what it has not answered, it will not.
    Severed {
        /// How many moves ago the connection was there: 1 for the one it came from. Those before that are gone, too.
        moves: u32,
    },
    /// Letters were lost: more waited than fits, or one could not be received. The connection cannot go on
    /// as if nothing had happened.
    Lost,
}

impl Delivery {
    fn size(&self) -> usize {
        match self {
            Self::Letter(text) => text.len(),
            Self::Severed { .. } | Self::Lost => 0,
        }
    }
}

/// The post office of a worker. Cloning it gives another handle to the same one.
#[derive(Clone, Debug)]
pub struct Post {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    office: Mutex<Office>,
    incumbent_waits: Notify,
    successor_waits: Notify,
    /// Rung whenever a link has said all it had to say, or has ended.
    flushed: Notify,
}

impl Default for Post {
    fn default() -> Self {
        Self::new(MOST_WAITING)
    }
}

impl Post {
    /// An office that keeps up to `most_waiting` bytes for one connection.
    #[must_use]
    pub fn new(most_waiting: usize) -> Self {
        let shared = Shared {
            office: Mutex::new(Office::new(most_waiting)),
            incumbent_waits: Notify::new(),
            successor_waits: Notify::new(),
            flushed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A mailbox for a connection.
    #[must_use]
    pub fn open(&self) -> Mailbox {
        let (number, bell) = self.office().open();
        Mailbox { number, bell, post: self.clone() }
    }

    /// A letter to every connection that has a mailbox, here and in the generations at the other ends of
    /// the migration links.
    pub fn publish(&self, letter: impl Into<Arc<str>>) {
        self.office().publish(&letter.into());
        self.wake(Neighbour::Incumbent);
        self.wake(Neighbour::Successor);
    }

    /// Says something to a neighbouring generation itself, which hears it by
    /// [`Mover::heard`](crate::Mover::heard); answers whether there is one.
    pub fn tell(&self, neighbour: Neighbour, text: &str) -> bool {
        let told = self.office().tell(neighbour, text);
        self.wake(neighbour);
        told
    }

    /// Whether there is a link to this neighbour.
    #[must_use]
    pub fn is_linked(&self, neighbour: Neighbour) -> bool {
        self.office().outgoing(neighbour).is_some()
    }

    /// Ends when everything for the successor was sent, or there is none. Cancel safe.
    pub async fn flushed(&self) {
        loop {
            // Registered before looking, so that the last packet is not missed in between.
            let flushed = self.shared.flushed.notified();
            let waits = self.office().outgoing(Neighbour::Successor).is_some_and(|o| !o.is_empty());
            if !waits {
                return;
            }
            flushed.await;
        }
    }

    /// Ends when there is no link to this neighbour. Cancel safe.
    ///
    /// Whoever leaves waits for it: what a dead incumbent had said may still be on its way to connections that have gone on.
    pub async fn unlinked(&self, neighbour: Neighbour) {
        loop {
            let changed = self.shared.flushed.notified();
            if !self.is_linked(neighbour) {
                return;
            }
            changed.await;
        }
    }

    fn deliver(&self, number: u64, delivery: Delivery) {
        self.office().deliver(number, delivery);
        // It may have gone on to the successor.
        self.wake(Neighbour::Successor);
    }

    fn office(&self) -> MutexGuard<'_, Office> {
        // A panic between two of its operations leaves the office whole.
        self.shared.office.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waits(&self, neighbour: Neighbour) -> &Notify {
        match neighbour {
            Neighbour::Incumbent => &self.shared.incumbent_waits,
            Neighbour::Successor => &self.shared.successor_waits,
        }
    }

    fn wake(&self, neighbour: Neighbour) {
        self.waits(neighbour).notify_one();
    }
}

/// What the ends of the migration links do with the office.
impl Post {
    pub(super) fn link(&self, neighbour: Neighbour) {
        self.office().link(neighbour);
    }

    pub(super) fn unlink(&self, neighbour: Neighbour) {
        self.office().unlink(neighbour);
        self.shared.flushed.notify_waiters();
        // Those that have gone on are to hear of it.
        self.wake(Neighbour::Successor);
    }

    /// This neighbour understands one letter for several mailboxes.
    pub(super) fn is_written_to_together(&self, neighbour: Neighbour) {
        if let Some(outgoing) = self.office().outgoing(neighbour) {
            outgoing.write_together();
        }
    }

    /// Queues a message of the link's own, after what waits already.
    pub(super) fn queue(&self, neighbour: Neighbour, message: &impl Serialize) {
        if let Some(outgoing) = self.office().outgoing(neighbour) {
            outgoing.push_message(message);
        }
        self.wake(neighbour);
    }

    /// Ends when something waits for this neighbour. Cancel safe; for one waiting task.
    pub(super) async fn waiting(&self, neighbour: Neighbour) {
        while self.office().outgoing(neighbour).is_none_or(|outgoing| outgoing.is_empty()) {
            self.waits(neighbour).notified().await;
        }
    }

    /// Sends as much of what waits as there is room for. Of each offer whose commit was sent it is said at once that
    /// it was, whatever comes of the rest.
    pub(super) fn flush(
        &self,
        neighbour: Neighbour,
        link: &Link,
        mut committed: impl FnMut(u64),
    ) -> Result<(), FlushFailed> {
        let mut office = self.office();
        let Some(outgoing) = office.outgoing(neighbour) else { return Ok(()) };
        let mut kept = Vec::new();
        let flushed = outgoing.flush(link, |promise| {
            committed(promise.seq);
            kept.push(promise);
        });
        for promise in &kept {
            office.committed(promise);
        }
        drop(office);
        if flushed? {
            self.shared.flushed.notify_waiters();
        }
        Ok(())
    }

    /// Gives mailboxes to the successor by a message that is queued. What was published before goes ahead of it,
    /// what waits in them after it; until [`Self::flush`] has sent it, it can be recalled.
    pub(super) fn promise<'a>(
        &self,
        seq: u64,
        message: &impl Serialize,
        mailboxes: impl Iterator<Item = &'a Mailbox>,
    ) {
        let mailboxes = mailboxes.map(|mailbox| mailbox.number).collect();
        self.office().promise(message, Promise { seq, mailboxes });
        self.wake(Neighbour::Successor);
    }

    /// Takes an offer's mailboxes back, if its commit is still queued.
    pub(super) fn recall(&self, seq: u64) {
        self.office().recall(seq);
    }

    pub(super) fn started<'a>(&self, mailboxes: impl Iterator<Item = &'a Mailbox>) {
        self.office().started(mailboxes.map(|mailbox| mailbox.number));
        self.wake(Neighbour::Successor);
    }

    /// Opens mailboxes for connections that came, by the numbers those had in the incumbent, and tells the
    /// incumbent so. What is published here from now on reaches them; what was published before, the
    /// incumbent hears first.
    pub(super) fn arrive(
        &self,
        numbers: impl Iterator<Item = Option<u64>>,
        told: &impl Serialize,
    ) -> Vec<Option<Mailbox>> {
        let mut office = self.office();
        let mailboxes = self.open_all(&mut office, numbers);
        if let Some(outgoing) = office.outgoing(Neighbour::Incumbent) {
            outgoing.push_message(told);
        }
        drop(office);
        self.wake(Neighbour::Incumbent);
        mailboxes
    }

    /// As [`Self::arrive`], with nobody left to be told.
    pub(super) fn adopt(&self, numbers: impl Iterator<Item = Option<u64>>) -> Vec<Option<Mailbox>> {
        self.open_all(&mut self.office(), numbers)
    }

    fn open_all(
        &self,
        office: &mut Office,
        numbers: impl Iterator<Item = Option<u64>>,
    ) -> Vec<Option<Mailbox>> {
        let mut open = |number: u64| {
            let (number, bell) = office.arrive(number);
            Mailbox { number, bell, post: self.clone() }
        };
        numbers.map(|number| number.map(&mut open)).collect()
    }

    /// Words have come from a neighbour, and what was attached to them. The answer is what is meant for this
    /// generation itself.
    pub(super) fn receive(
        &self,
        from: Neighbour,
        words: Vec<Word>,
        attached: Vec<OwnedFd>,
    ) -> Vec<String> {
        let mut attached = attached.into_iter();
        let heard = words.into_iter().filter_map(|word| self.take_in(from, word, &mut attached));
        let heard = heard.collect();
        // Something may have to go on from here.
        self.wake(Neighbour::Successor);
        heard
    }

    fn take_in(
        &self,
        from: Neighbour,
        word: Word,
        attached: &mut impl Iterator<Item = OwnedFd>,
    ) -> Option<String> {
        let unreadable = |error| warn!(error = chain(&error), "a letter could not be read");
        let late = |text: Result<String, NotABlob>| match text {
            Ok(text) => Delivery::Letter(text.into()),
            Err(error) => {
                unreadable(error);
                Delivery::Lost
            }
        };
        match word {
            Word::Late { mailbox, text } => {
                let delivery = late(text.read(attached));
                self.office().deliver_late(mailbox, delivery);
            }
            Word::LateTogether { mailboxes, text } => {
                let delivery = late(text.read(attached));
                let mut office = self.office();
                for mailbox in mailboxes {
                    office.deliver_late(mailbox, delivery.clone());
                }
            }
            Word::Severed { mailbox, moves } => {
                self.office().deliver_late(mailbox, Delivery::Severed { moves });
            }
            Word::Settled { mailboxes } => self.office().settle(&mailboxes),
            Word::Lost { mailbox } => self.office().deliver_late(mailbox, Delivery::Lost),
            Word::Publish { text } => match text.read(attached) {
                Ok(text) => self.office().spread(&text.into(), from),
                Err(error) => unreadable(error),
            },
            Word::Tell { text } => match text.read(attached) {
                Ok(text) => return Some(text),
                Err(error) => unreadable(error),
            },
        }
        None
    }
}

/// Ends when something could be sent over a link: there is room, and something waits: orders of the
/// link's own, or what is in the office. Cancel safe.
pub(super) async fn sendable(
    link: Option<&Link>,
    has_orders: bool,
    post: &Post,
    neighbour: Neighbour,
) {
    let Some(link) = link else { return std::future::pending().await };
    if !has_orders {
        post.waiting(neighbour).await;
    }
    link.writable().await;
}

/// Where one connection's letters wait. It travels with the connection; dropping it ends the delivery.
#[derive(Debug)]
pub struct Mailbox {
    number: u64,
    bell: Arc<Bell>,
    post: Post,
}

impl Mailbox {
    /// Through what letters are sent to this connection, wherever it will be.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient { number: self.number, post: self.post.clone() }
    }

    /// The next letter; the task is woken when there is one.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Delivery> {
        loop {
            if !self.bell.has_rung() {
                self.bell.listen(context.waker());
                // Rung between the look and the waker's arrival.
                if !self.bell.has_rung() {
                    return Poll::Pending;
                }
            }
            if let Some(delivery) = self.post.office().take(self.number) {
                return Poll::Ready(delivery);
            }
        }
    }

    /// The next letter. Cancel safe.
    pub async fn next(&mut self) -> Delivery {
        poll_fn(|context| self.poll_next(context)).await
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.post.office().close(self.number);
    }
}

/// Whom to send letters for one connection to. Sending to one that has ended is no error: nobody misses
/// them.
#[derive(Clone, Debug)]
pub struct Recipient {
    number: u64,
    post: Post,
}

impl Recipient {
    /// Sends a letter to the connection, wherever it is.
    pub fn send(&self, letter: impl Into<Arc<str>>) {
        self.post.deliver(self.number, Delivery::Letter(letter.into()));
    }
}
