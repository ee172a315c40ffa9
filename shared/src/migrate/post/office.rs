//! Who has which mailbox, and what waits where: everything the post decides, under one lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use serde::Serialize;

use super::outgoing::{Outgoing, Promise, Word};
use super::{Delivery, Neighbour};

/// See the module.
#[derive(Debug)]
pub(super) struct Office {
    /// How much waits for one connection before its letters are given up, in bytes.
    most_waiting: usize,
    next: u64,
    mailboxes: BTreeMap<u64, Slot>,
    /// What the mailboxes that came from the incumbent are called here, by their number there.
    arrived: HashMap<u64, u64>,
    to_incumbent: Option<Outgoing>,
    to_successor: Option<Outgoing>,
}

/// Where a mailbox is.
#[derive(Debug)]
enum Slot {
    /// Here: read, or frozen.
    Here(Inbox),
    /// Here, and its commit waits to be sent. What comes for it is queued behind the commit, and kept in case that
    /// is recalled.
    Promised(Inbox),
    /// It was committed to the successor, which has not said that it serves it: what that published
    /// until then, the connection has not seen.
    Leaving,
    /// The successor serves it.
    Away,
}

impl Slot {
    /// What is read here, or may be again.
    const fn inbox(&mut self) -> Option<&mut Inbox> {
        match self {
            Self::Here(inbox) | Self::Promised(inbox) => Some(inbox),
            Self::Leaving | Self::Away => None,
        }
    }
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: VecDeque<Delivery>,
    /// What was sent here, until the incumbent has passed on what this generation published before the
    /// connection came: that may still be on its way back.
    held: Option<Vec<Delivery>>,
    bytes: usize,
    bell: Arc<Bell>,
}

/// Where something for a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// This generation.
    Here,
    /// The one the connection came from.
    There,
}

/// Spares a connection's task the lock while nothing has come.
#[derive(Debug)]
pub(super) struct Bell {
    rung: AtomicBool,
    waker: Mutex<Waker>,
}

impl Default for Bell {
    fn default() -> Self {
        Self { rung: AtomicBool::new(false), waker: Mutex::new(Waker::noop().clone()) }
    }
}

impl Bell {
    pub(super) fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Whom to wake at the next ring.
    pub(super) fn listen(&self, waker: &Waker) {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone_from(waker);
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

impl Inbox {
    fn put(&mut self, delivery: Delivery, origin: Origin, most: usize) {
        self.bytes += delivery.size();
        if self.bytes > most {
            self.waiting.clear();
            self.held = None;
            self.bytes = 0;
            self.waiting.push_back(Delivery::Lost);
        } else if let (Some(held), Origin::Here) = (&mut self.held, origin) {
            held.push(delivery);
            return;
        } else {
            self.waiting.push_back(delivery);
        }
        self.bell.ring();
    }

    fn settle(&mut self) {
        let held = self.held.take().unwrap_or_default();
        if !held.is_empty() {
            self.waiting.extend(held);
            self.bell.ring();
        }
    }

    fn take(&mut self) -> Option<Delivery> {
        let delivery = self.waiting.pop_front();
        self.bytes -= delivery.as_ref().map_or(0, Delivery::size);
        if self.waiting.is_empty() {
            self.bell.rung.store(false, Ordering::Release);
        }
        delivery
    }
}

impl Office {
    pub(super) fn new(most_waiting: usize) -> Self {
        Self {
            most_waiting,
            next: 0,
            mailboxes: BTreeMap::new(),
            arrived: HashMap::new(),
            to_incumbent: None,
            to_successor: None,
        }
    }

    pub(super) const fn outgoing(&mut self, neighbour: Neighbour) -> Option<&mut Outgoing> {
        match neighbour {
            Neighbour::Incumbent => self.to_incumbent.as_mut(),
            Neighbour::Successor => self.to_successor.as_mut(),
        }
    }

    /// A new mailbox, its number and its bell.
    pub(super) fn open(&mut self) -> (u64, Arc<Bell>) {
        let number = self.next;
        self.next += 1;
        let inbox = Inbox::default();
        let bell = Arc::clone(&inbox.bell);
        self.mailboxes.insert(number, Slot::Here(inbox));
        (number, bell)
    }

    /// The connection has ended; one that went on elsewhere keeps its address.
    pub(super) fn close(&mut self, number: u64) {
        if matches!(self.mailboxes.get(&number), Some(Slot::Here(_) | Slot::Promised(_))) {
            self.mailboxes.remove(&number);
        }
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Delivery> {
        match self.mailboxes.get_mut(&number) {
            Some(Slot::Here(inbox)) => inbox.take(),
            Some(Slot::Promised(_) | Slot::Leaving | Slot::Away) | None => None,
        }
    }

    /// Puts something into a mailbox, wherever it is; one whose connection has ended needs nothing.
    pub(super) fn deliver(&mut self, number: u64, delivery: Delivery) {
        self.put(number, delivery, Origin::Here);
    }

    fn put(&mut self, number: u64, delivery: Delivery, origin: Origin) {
        let Some(slot) = self.mailboxes.get_mut(&number) else { return };
        if let (Slot::Promised(_) | Slot::Leaving | Slot::Away, Some(outgoing)) =
            (&*slot, &mut self.to_successor)
        {
            forward(outgoing, number, &delivery);
        }
        if let Some(inbox) = slot.inbox() {
            inbox.put(delivery, origin, self.most_waiting);
        }
    }

    /// As [`Self::deliver`], by the number the mailbox had in the incumbent.
    pub(super) fn deliver_late(&mut self, number_there: u64, delivery: Delivery) {
        if let Some(number) = self.arrived.get(&number_there) {
            self.put(*number, delivery, Origin::There);
        }
    }

    /// These mailboxes, by their numbers in the incumbent, have had all that was to come first.
    pub(super) fn settle(&mut self, numbers_there: &[u64]) {
        for number in numbers_there.iter().filter_map(|number| self.arrived.get(number)) {
            if let Some(inbox) = self.mailboxes.get_mut(number).and_then(Slot::inbox) {
                inbox.settle();
            }
        }
    }

    /// A letter of this generation's to everybody, here and there.
    pub(super) fn publish(&mut self, letter: &Arc<str>) {
        for inbox in self.mailboxes.values_mut().filter_map(Slot::inbox) {
            inbox.put(Delivery::Letter(Arc::clone(letter)), Origin::Here, self.most_waiting);
        }
        // The neighbours spread it to whom they serve; who is leaving is served there by the time it
        // arrives, since the commit went ahead of it.
        for outgoing in [&mut self.to_incumbent, &mut self.to_successor].into_iter().flatten() {
            outgoing.push_text(letter, |text| Word::Publish { text });
        }
    }

    /// A letter to everybody that a neighbour has published.
    pub(super) fn spread(&mut self, letter: &Arc<str>, from: Neighbour) {
        let delivery = Delivery::Letter(Arc::clone(letter));
        // To one that came from the incumbent, its letters and what it published come in its order.
        let origin = match from {
            Neighbour::Incumbent => Origin::There,
            Neighbour::Successor => Origin::Here,
        };
        let mut leaving = Vec::new();
        for (number, slot) in &mut self.mailboxes {
            // The successor published it before it began to serve this one.
            if let (Slot::Promised(_) | Slot::Leaving, Neighbour::Successor) = (&*slot, from) {
                leaving.push(*number);
            }
            if let Some(inbox) = slot.inbox() {
                inbox.put(delivery.clone(), origin, self.most_waiting);
            }
        }
        if let (false, Some(outgoing)) = (leaving.is_empty(), &mut self.to_successor) {
            // Once for all of them: a letter each would make the queue longer than it was, and the move slower, so that there are
            // more of them.
            outgoing.push_late(&leaving, letter);
        }
    }

    /// Something for a neighbour itself; answers whether there is one.
    pub(super) fn tell(&mut self, neighbour: Neighbour, text: &str) -> bool {
        let Some(outgoing) = self.outgoing(neighbour) else { return false };
        outgoing.push_text(text, |text| Word::Tell { text });
        true
    }

    pub(super) fn link(&mut self, neighbour: Neighbour) {
        match neighbour {
            Neighbour::Incumbent => self.to_incumbent = Some(Outgoing::default()),
            Neighbour::Successor => self.to_successor = Some(Outgoing::default()),
        }
    }

    pub(super) fn unlink(&mut self, neighbour: Neighbour) {
        match neighbour {
            Neighbour::Incumbent => {
                self.to_incumbent = None;
                for number in std::mem::take(&mut self.arrived).into_values() {
                    self.put(number, Delivery::Severed { moves: 1 }, Origin::There);
                    if let Some(inbox) = self.mailboxes.get_mut(&number).and_then(Slot::inbox) {
                        inbox.settle();
                    }
                }
            }
            Neighbour::Successor => {
                self.to_successor = None;
                self.mailboxes.retain(|_, slot| slot.inbox().is_some());
            }
        }
    }

    /// Queues the message that gives mailboxes to the successor. What was published before goes ahead of it, what
    /// waits in them after it.
    pub(super) fn promise(&mut self, message: &impl Serialize, promise: Promise) {
        let Some(outgoing) = &mut self.to_successor else { return };
        outgoing.push_commit(message, promise.clone());
        for number in promise.mailboxes {
            let Some(slot) = self.mailboxes.get_mut(&number) else { continue };
            if let Slot::Here(mut inbox) = std::mem::replace(slot, Slot::Leaving) {
                inbox.settle();
                for delivery in &inbox.waiting {
                    forward(outgoing, number, delivery);
                }
                *slot = Slot::Promised(inbox);
            }
        }
    }

    /// The message was sent: these belong to the successor from now on.
    pub(super) fn committed(&mut self, promise: &Promise) {
        for number in &promise.mailboxes {
            if let Some(slot @ Slot::Promised(_)) = self.mailboxes.get_mut(number) {
                *slot = Slot::Leaving;
            }
        }
    }

    /// Takes a promise back whose message was not sent. The letters behind it are for nobody there.
    pub(super) fn recall(&mut self, seq: u64) {
        let promise = self.to_successor.as_mut().and_then(|outgoing| outgoing.recall(seq));
        for number in promise.into_iter().flat_map(|promise| promise.mailboxes) {
            let Some(slot) = self.mailboxes.get_mut(&number) else { continue };
            if let Slot::Promised(inbox) = std::mem::replace(slot, Slot::Leaving) {
                *slot = Slot::Here(inbox);
            }
        }
    }

    /// The successor serves these: it has been passed on all that it published before it did.
    pub(super) fn started(&mut self, numbers: impl Iterator<Item = u64>) {
        let mut mailboxes = Vec::new();
        for number in numbers {
            if let Some(slot @ Slot::Leaving) = self.mailboxes.get_mut(&number) {
                *slot = Slot::Away;
                mailboxes.push(number);
            }
        }
        if let (Some(outgoing), false) = (&mut self.to_successor, mailboxes.is_empty()) {
            outgoing.push_word(&Word::Settled { mailboxes });
        }
    }

    /// A mailbox has come from the incumbent, where it had this number.
    pub(super) fn arrive(&mut self, number_there: u64) -> (u64, Arc<Bell>) {
        let (number, bell) = self.open();
        if self.to_incumbent.is_some() {
            self.arrived.insert(number_there, number);
            if let Some(Slot::Here(inbox)) = self.mailboxes.get_mut(&number) {
                inbox.held = Some(Vec::new());
            }
        } else {
            self.put(number, Delivery::Severed { moves: 1 }, Origin::There);
        }
        (number, bell)
    }
}

fn forward(outgoing: &mut Outgoing, mailbox: u64, delivery: &Delivery) {
    match delivery {
        Delivery::Letter(text) => {
            outgoing.push_text(text, |text| Word::Late { mailbox, text });
        }
        // There it has made one move more.
        Delivery::Severed { moves } => {
            outgoing.push_word(&Word::Severed { mailbox, moves: moves.saturating_add(1) });
        }
        Delivery::Lost => outgoing.push_word(&Word::Lost { mailbox }),
    }
}
