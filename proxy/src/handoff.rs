//! The front's conversation with one worker: orders go in, words come out.
//!
//! **Invariants**
//! - A worker cannot hold the front up: each has a task of its own, its orders queue up to
//!   [`MOST_ORDERS`], and the front never waits for the queue.
//! - A worker cannot keep the front busy either: it may say as much as it was asked, and a little
//!   more ([`Allowance`]).
//! - What a worker said before it ended is heard before its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::handoff::chain;
use ::handoff::fault::{self, Point};
use ::handoff::link::{Link, LinkError};
use ::handoff::message::{GenerationId, Hello, ToFront, ToWorker};
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::sync::mpsc;

use crate::listener::Listeners;

/// How many orders may wait for a worker that does not read.
const MOST_ORDERS: usize = 32;
/// How many words nobody asked for a worker may say at once.
const BURST: u32 = 64;

/// What came of a worker's link.
#[derive(Debug)]
pub(crate) enum Word {
    /// It said this.
    Said(GenerationId, ToFront),
    /// It broke the protocol, in this way; nothing more is heard from it.
    Broke(GenerationId, String),
    /// Its end of the link is closed.
    Ended(GenerationId),
}

/// The front's side of the conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    orders: mpsc::Sender<(ToWorker, Option<OwnedFd>)>,
}

impl Conversation {
    /// Introduces the front to a new worker and hands it the listening sockets.
    pub(crate) fn begin(
        link: OwnedFd,
        hello: Hello,
        listeners: Arc<Listeners>,
        words: mpsc::Sender<Word>,
    ) -> std::io::Result<Self> {
        let link = Link::new(link)?;
        let (orders, queue) = mpsc::channel(MOST_ORDERS);
        tokio::spawn(converse(link, hello, listeners, queue, words));
        Ok(Self { orders })
    }

    /// Passes an order on. One that finds the queue full is lost: such a worker has not read for
    /// 32 orders, and the deadline of whatever it was told will pass.
    pub(crate) fn tell(&self, order: ToWorker) {
        self.hand(order, None);
    }

    /// Says something that the worker can do without: never in the place of an order, however many there are of it.
    pub(crate) fn mention(&self, remark: ToWorker) {
        if self.orders.capacity() > self.orders.max_capacity() / 2 {
            self.tell(remark);
        }
    }

    /// As [`Self::tell`], with a descriptor that the worker is to have.
    pub(crate) fn hand(&self, order: ToWorker, descriptor: Option<OwnedFd>) {
        if let Err(error) = self.orders.try_send((order, descriptor)) {
            tracing::debug!(%error, "a worker takes no orders");
        }
    }
}

async fn converse(
    link: Link,
    hello: Hello,
    listeners: Arc<Listeners>,
    mut orders: mpsc::Receiver<(ToWorker, Option<OwnedFd>)>,
    words: mpsc::Sender<Word>,
) {
    let id = hello.generation;
    let descriptors: Vec<_> = listeners.sockets.iter().map(|s| s.as_fd()).collect();
    let introduced = link.send(&ToWorker::Hello(hello), &descriptors).await;
    drop(listeners);
    fault::reach(Point::HelloSent);
    // One that is gone already is found so by the first receive.
    if let Err(error @ (LinkError::TooLarge { .. } | LinkError::Malformed { .. })) = introduced {
        let _ = words.send(Word::Broke(id, chain(&error))).await;
        return;
    }
    let mut allowance = Allowance::new(Instant::now());
    let mut listening = true;
    loop {
        let word = tokio::select! {
            received = link.receive::<ToFront>(), if listening => match received {
                Ok(Some(received)) if allowance.spend(Instant::now()) => {
                    Word::Said(id, received.message)
                }
                Ok(Some(_)) => Word::Broke(id, "it says more than it is asked".into()),
                Ok(None) => Word::Ended(id),
                Err(error) => Word::Broke(id, chain(&error)),
            },
            order = orders.recv() => match order {
                Some((order, descriptor)) => {
                    // It has no answer, and comes as often as its own descendants end.
                    if !matches!(order, ToWorker::OrphanEnded(_)) {
                        allowance.earn();
                    }
                    let descriptors: Vec<_> = descriptor.iter().map(|fd| fd.as_fd()).collect();
                    // A worker that is gone is met by the next receive.
                    let _ = link.send(&order, &descriptors).await;
                    fault::reach(Point::after_order(&order));
                    continue;
                }
                None => return,
            },
        };
        listening = matches!(word, Word::Said(..));
        if words.send(word).await.is_err() {
            return;
        }
        if !listening {
            return;
        }
    }
}

/// How much a worker may say: one word per order, one per second, and a burst.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    const fn earn(&mut self) {
        self.left = self.left.saturating_add(1);
    }

    fn spend(&mut self, now: Instant) -> bool {
        let seconds = now.duration_since(self.since).as_secs();
        if seconds > 0 {
            self.since += Duration::from_secs(seconds);
            let earned = u32::try_from(seconds).unwrap_or(BURST);
            self.left = self.left.max(BURST.min(self.left.saturating_add(earned)));
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_may_say_a_burst_then_one_word_a_second_and_one_per_order() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!((0..BURST).all(|_| allowance.spend(start)));
        assert!(!allowance.spend(start));
        allowance.earn();
        assert!(allowance.spend(start));
        assert!(!allowance.spend(start));
        let later = start + Duration::from_secs(2);
        assert!(allowance.spend(later) && allowance.spend(later) && !allowance.spend(later));
        let much_later = start + Duration::from_hours(1);
        assert_eq!((0..BURST * 2).filter(|_| allowance.spend(much_later)).count(), BURST as usize);
    }
}
