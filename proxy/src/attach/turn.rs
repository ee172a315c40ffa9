//! One worker that waits for its turn: its link has a task already, which finds out when it leaves, and which becomes
//! the conversation with it.
//!
//! **Invariants**
//! - What it says before its turn is kept, up to [`MOST_WORDS`], and heard when it has come.
//! - Of one that another image of the front goes on with the link is given back.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use ::handoff::link::Link;
use ::handoff::message::{GenerationId, Hello, ToFront, ToWorker};
use ::handoff::rescue::Rescued;
use tokio::sync::{mpsc, oneshot};

use super::{Came, Peer};
use crate::handoff::{Conversation, Queue, Recalled, Word, converse, introduce};
use crate::listener::Listeners;

/// How much one that waits may say.
const MOST_WORDS: usize = 32;
/// How many orders may wait for it.
const MOST_ORDERS: usize = 32;

/// One that waits.
#[derive(Debug)]
pub(crate) struct Applicant {
    pub(crate) number: u64,
    pub(crate) peer: Peer,
    /// What it is, of one that had a turn already.
    pub(crate) returned: Option<Rescued>,
    /// How many it was last told are ahead of it.
    pub(crate) told: Option<u32>,
    conversation: Conversation,
    begin: oneshot::Sender<Begin>,
}

/// How its turn begins.
enum Begin {
    Introduced(Box<Hello>, Arc<Listeners>, mpsc::Sender<Word>),
    TakenBack(GenerationId, mpsc::Sender<Word>),
}

impl std::fmt::Debug for Begin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Begin")
    }
}

impl Applicant {
    /// Has it wait; `left` is told its number when it leaves.
    pub(crate) fn new(
        number: u64,
        (peer, link): (Peer, Link),
        returned: Option<Rescued>,
        left: mpsc::Sender<Came>,
    ) -> Self {
        let (orders, queue) = mpsc::channel(MOST_ORDERS);
        let (begin, begun) = oneshot::channel();
        let (recall, recalled) = oneshot::channel();
        let queue = Queue { unsent: VecDeque::new(), orders: queue };
        let task = tokio::spawn(wait(link, queue, begun, recalled, (number, left)));
        let conversation = Conversation { orders, recall, task };
        Self { number, peer, returned, told: None, conversation, begin }
    }

    /// As [`Self::new`], with what another image of the front has had of it.
    pub(crate) fn resume(
        number: u64,
        peer: Peer,
        recalled: Recalled,
        returned: Option<Rescued>,
        left: mpsc::Sender<Came>,
    ) -> io::Result<Self> {
        let applicant = Self::new(number, (peer, Link::new(recalled.link)?), returned, left);
        for (order, descriptor) in recalled.unsent {
            applicant.conversation.hand(order, descriptor);
        }
        Ok(applicant)
    }

    /// Tells it something before its turn.
    pub(crate) fn tell(&self, order: ToWorker) {
        self.conversation.tell(order);
    }

    /// Its turn: the front introduces itself.
    pub(crate) fn introduce(
        self,
        hello: Hello,
        listeners: Arc<Listeners>,
        words: mpsc::Sender<Word>,
    ) -> (Peer, Conversation) {
        // One that has just left is found so by whoever speaks to it.
        let _ = self.begin.send(Begin::Introduced(Box::new(hello), listeners, words));
        (self.peer, self.conversation)
    }

    /// It goes on as the generation that it was.
    pub(crate) fn take_back(
        self,
        id: GenerationId,
        words: mpsc::Sender<Word>,
    ) -> (Peer, Conversation) {
        // As in `introduce`.
        let _ = self.begin.send(Begin::TakenBack(id, words));
        (self.peer, self.conversation)
    }

    /// Its link, for another image of the front; `None` when it has left.
    pub(crate) async fn recall(self) -> Option<(Peer, Option<Rescued>, Recalled)> {
        let recalled = self.conversation.recall().await?;
        Some((self.peer, self.returned, recalled))
    }
}

async fn wait(
    link: Link,
    mut queue: Queue,
    mut begun: oneshot::Receiver<Begin>,
    mut recalled: oneshot::Receiver<()>,
    (number, left): (u64, mpsc::Sender<Came>),
) -> Option<Recalled> {
    let mut said = Vec::new();
    let begin = loop {
        tokio::select! {
            biased;
            // First: when nobody wants it any more, this says so, and what it was told is said before.
            parcel = queue.next() => match parcel {
                // One that is gone is met by the next receive; one that does not read hears no more.
                Some((order, _)) => drop(link.try_send(&order, &[])),
                None => {
                    link.close_aside();
                    return None;
                }
            },
            Ok(begin) = &mut begun => break begin,
            Ok(()) = &mut recalled => {
                let link = link.into_descriptor().ok()?;
                return Some(Recalled { link, unsent: queue.into_unsent() });
            }
            received = link.receive_bare::<ToFront>() => match received {
                Ok(Some(word)) if said.len() < MOST_WORDS => said.push(word),
                Ok(_) | Err(_) => {
                    // A front that is gone needs to know of nobody.
                    let _ = left.send(Came::Left(number)).await;
                    link.close_aside();
                    // Whoever has begun meanwhile hears of its end.
                    let (id, words) = match begun.await {
                        Ok(Begin::Introduced(hello, _, words)) => (hello.generation, words),
                        Ok(Begin::TakenBack(id, words)) => (id, words),
                        Err(_) => return None,
                    };
                    let _ = words.send(Word::Ended(id)).await;
                    return None;
                }
            },
        }
    };
    let (id, words) = match begin {
        Begin::Introduced(hello, listeners, words) => {
            let id = hello.generation;
            if let Some(broke) = introduce(&link, *hello, &listeners).await {
                // The front is gone otherwise.
                let _ = words.send(Word::Broke(id, broke)).await;
                return None;
            }
            (id, words)
        }
        Begin::TakenBack(id, words) => (id, words),
    };
    for word in said {
        if words.send(Word::Said(id, word)).await.is_err() {
            return None;
        }
    }
    converse(link, id, queue, words, recalled).await
}
