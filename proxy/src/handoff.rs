//! The front's conversation with one worker: orders go in, words come out.
//!
//! **Invariants**
//! - A worker cannot hold the front up: each has a task of its own, its orders queue up to
//!   [`MOST_ORDERS`], and the front never waits for the queue.
//! - A worker cannot keep the front busy either: it may say as much as it was asked, and a little
//!   more ([`Allowance`]).
//! - A worker sends no descriptors: one that does is not listened to any more, and they are not the front's to close.
//! - What a worker said before it ended is heard before its end.
//! - A conversation that is recalled gives its link back with what is not said yet, and has taken no word from the
//!   link that it has not passed on.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::handoff::chain;
use ::handoff::fault::{self, Point};
use ::handoff::link::{Link, LinkError};
use ::handoff::message::{GenerationId, Hello, ToFront, ToWorker};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::listener::Listeners;

/// How many orders may wait for a worker that does not read.
const MOST_ORDERS: usize = 32;
/// How many words nobody asked for a worker may say at once.
const BURST: u32 = 64;

/// What came of a worker's link.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// It said this.
    Said(GenerationId, ToFront),
    /// It broke the protocol, in this way; nothing more is heard from it.
    Broke(GenerationId, String),
    /// Its end of the link is closed.
    Ended(GenerationId),
    /// It has ended, and was not this process's child.
    Exited(GenerationId),
}

/// An order, with a descriptor that the worker is to have.
pub(crate) type Parcel = (ToWorker, Option<OwnedFd>);

/// The front's side of the conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) orders: mpsc::Sender<Parcel>,
    pub(crate) recall: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<Option<Recalled>>,
}

/// A conversation that another image of the front goes on with.
#[derive(Debug)]
pub(crate) struct Recalled {
    pub(crate) link: OwnedFd,
    /// What the worker is still to be told, in order.
    pub(crate) unsent: VecDeque<Parcel>,
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
        let (recall, recalled) = oneshot::channel();
        let task = tokio::spawn(async move {
            let id = hello.generation;
            if let Some(broke) = introduce(&link, hello, &listeners).await {
                let _ = words.send(Word::Broke(id, broke)).await;
                return None;
            }
            drop(listeners);
            let queue = Queue { unsent: VecDeque::new(), orders: queue };
            converse(link, id, queue, words, recalled).await
        });
        Ok(Self { orders, recall, task })
    }

    /// Goes on with a worker that knows this front already, or another image of it.
    pub(crate) fn resume(
        recalled: Recalled,
        id: GenerationId,
        words: mpsc::Sender<Word>,
    ) -> std::io::Result<Self> {
        let link = Link::new(recalled.link)?;
        let (orders, queue) = mpsc::channel(MOST_ORDERS);
        let queue = Queue { unsent: recalled.unsent, orders: queue };
        let (recall, recalled) = oneshot::channel();
        let task = tokio::spawn(converse(link, id, queue, words, recalled));
        Ok(Self { orders, recall, task })
    }

    /// Ends the conversation and leaves the link open; `None` when it has ended by itself. It waits for nobody but
    /// whoever reads the words.
    pub(crate) async fn recall(self) -> Option<Recalled> {
        // An error means that the conversation has ended.
        let _ = self.recall.send(());
        self.task.await.ok().flatten()
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

/// What a worker is still to be told: what an earlier image of the front had not said, then what comes.
pub(crate) struct Queue {
    pub(crate) unsent: VecDeque<Parcel>,
    pub(crate) orders: mpsc::Receiver<Parcel>,
}

impl Queue {
    /// The next parcel; `None` when nothing more will come. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Parcel> {
        match self.unsent.pop_front() {
            Some(parcel) => Some(parcel),
            None => self.orders.recv().await,
        }
    }

    /// Everything that is left.
    pub(crate) fn into_unsent(mut self) -> VecDeque<Parcel> {
        while let Ok(parcel) = self.orders.try_recv() {
            self.unsent.push_back(parcel);
        }
        self.unsent
    }
}

/// The front's first packet of a link: there is always room for it. The answer is why it cannot be said.
pub(crate) async fn introduce(link: &Link, hello: Hello, listeners: &Listeners) -> Option<String> {
    let descriptors: Vec<_> = listeners.sockets.iter().map(|s| s.as_fd()).collect();
    let outcome = link.send(&ToWorker::Hello(hello), &descriptors).await;
    fault::reach(Point::HelloSent);
    match outcome {
        Err(error @ (LinkError::TooLarge { .. } | LinkError::Malformed { .. })) => {
            Some(chain(&error))
        }
        // One that is gone already is found so by the first receive.
        Ok(()) | Err(_) => None,
    }
}

pub(crate) async fn converse(
    link: Link,
    id: GenerationId,
    mut queue: Queue,
    words: mpsc::Sender<Word>,
    recalled: oneshot::Receiver<()>,
) -> Option<Recalled> {
    let mut recalled = pin!(async {
        // Without anybody who could recall it, the end of its orders ends it.
        if recalled.await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    let mut allowance = Allowance::new(Instant::now());
    loop {
        let word = tokio::select! {
            biased;
            () = recalled.as_mut() => {
                let link = link.into_descriptor().ok()?;
                return Some(Recalled { link, unsent: queue.into_unsent() });
            }
            received = link.receive_bare::<ToFront>() => match received {
                Ok(Some(said)) if allowance.spend(Instant::now()) => Word::Said(id, said),
                Ok(Some(_)) => Word::Broke(id, "it says more than it is asked".into()),
                Ok(None) => Word::Ended(id),
                Err(error) => Word::Broke(id, chain(&error)),
            },
            parcel = queue.next() => match parcel {
                Some(parcel) => {
                    // It has no answer, and comes as often as its own descendants end.
                    if !matches!(parcel.0, ToWorker::OrphanEnded(_)) {
                        allowance.earn();
                    }
                    if !send(&link, &parcel, recalled.as_mut()).await {
                        queue.unsent.push_front(parcel);
                        let link = link.into_descriptor().ok()?;
                        return Some(Recalled { link, unsent: queue.into_unsent() });
                    }
                    continue;
                }
                None => break,
            },
        };
        let goes_on = matches!(word, Word::Said(..));
        if words.send(word).await.is_err() || !goes_on {
            break;
        }
    }
    link.close_aside();
    None
}

/// Sends one parcel, and says whether it was sent before the conversation was recalled.
async fn send(
    link: &Link,
    (order, descriptor): &Parcel,
    recalled: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    let descriptors: Vec<_> = descriptor.iter().map(|fd| fd.as_fd()).collect();
    tokio::select! {
        biased;
        // A worker that is gone is met by the next receive.
        _ = link.send(order, &descriptors) => {
            fault::reach(Point::after_order(order));
            true
        }
        () = recalled => false,
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
