//! The connections of a worker that could move, and the question each of them is asked.
//!
//! A connection's task holds a [`Seat`] for its whole life and polls it beside its own work. Asked to move,
//! it freezes at the first moment at which it can: at once when it is idle, else when it has said
//! what it is saying.
//!
//! **Invariants**
//! - Every seat that is asked answers: with its connection, with *busy* (and its connection later),
//!   or by being dropped, which is *gone*.
//! - An idle roster costs nothing: no timer, no poll, one small allocation a connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::{mpsc, watch};

use super::progress::{kinds, minus, plus};
use super::snapshot::Frozen;
use crate::message::Connections;

/// Nobody has asked.
const LEFT_ALONE: u8 = 0;
/// It is to move, and has not answered.
const ASKED: u8 = 1;
/// It is to move, and has said that it is busy.
const BUSY: u8 = 2;

/// The connections of a worker that could move.
#[derive(Clone, Debug)]
pub struct Roster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seated: Mutex<Seated>,
    /// Connections with a seat, and those on their way.
    present: watch::Sender<usize>,
    answers: mpsc::UnboundedSender<Answer>,
}

#[derive(Debug, Default)]
struct Seated {
    next: u64,
    seats: BTreeMap<u64, Arc<Wish>>,
    on_the_way: Connections,
}

/// What is wanted of one connection.
#[derive(Debug)]
struct Wish {
    state: AtomicU8,
    waker: Mutex<Waker>,
}

/// What a connection answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// Here it is.
    Frozen(u64, Box<Frozen>),
    /// It is in the middle of something, and comes when that is over.
    Busy(u64),
    /// It has ended.
    Gone(u64),
}

impl Roster {
    /// An empty roster, and where its connections answer.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Answer>) {
        // A connection answers at most twice, so the number of connections is the bound.
        #[expect(clippy::disallowed_methods, reason = "bounded by the number of connections")]
        let (answers, receiver) = mpsc::unbounded_channel();
        let shared = Shared { seated: Mutex::default(), present: watch::Sender::new(0), answers };
        (Self { shared: Arc::new(shared) }, receiver)
    }

    /// A seat for a new connection.
    #[must_use]
    pub fn seat(&self) -> Seat {
        let wish = Arc::new(Wish {
            state: AtomicU8::new(LEFT_ALONE),
            waker: Mutex::new(Waker::noop().clone()),
        });
        let mut seated = self.seated();
        let number = seated.next;
        seated.next += 1;
        seated.seats.insert(number, Arc::clone(&wish));
        drop(seated);
        self.shared.present.send_modify(|present| *present += 1);
        Seat { number, wish, roster: Some(self.clone()) }
    }

    /// How many connections are here: those with a seat, and those frozen and not yet started
    /// elsewhere.
    #[must_use]
    pub fn present(&self) -> usize {
        *self.shared.present.borrow()
    }

    /// Ends when no connection is here any more. Cancel safe.
    pub async fn emptied(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.present.subscribe().wait_for(|present| *present == 0).await;
    }

    /// The connections that are frozen, and not yet started elsewhere: nobody's task, and here all the same.
    #[must_use]
    pub fn on_the_way(&self) -> Connections {
        self.seated().on_the_way
    }

    /// Frozen ones are not any more: they serve elsewhere, or here again.
    pub(super) fn departed(&self, connections: Connections) {
        let mut seated = self.seated();
        seated.on_the_way = minus(seated.on_the_way, connections);
        drop(seated);
        self.are_gone(usize::try_from(connections.total()).unwrap_or(usize::MAX));
    }

    fn are_gone(&self, connections: usize) {
        self.shared.present.send_modify(|present| *present = present.saturating_sub(connections));
    }

    /// Asks up to `most` connections with numbers from `from` on, and says which.
    pub(super) fn ask(&self, from: u64, most: usize) -> Vec<u64> {
        // Under one lock: a seat that is given up meanwhile either is not chosen, or answers that it
        // is gone.
        let seated = self.seated();
        let left_alone = |wish: &&Arc<Wish>| wish.state.load(Ordering::Acquire) == LEFT_ALONE;
        let chosen: Vec<(u64, Arc<Wish>)> = seated
            .seats
            .range(from..)
            .filter(|(_, wish)| left_alone(wish))
            .take(most)
            .map(|(number, wish)| (*number, Arc::clone(wish)))
            .collect();
        for (_, wish) in &chosen {
            wish.state.store(ASKED, Ordering::Release);
        }
        drop(seated);
        for (_, wish) in &chosen {
            wish.wake();
        }
        chosen.into_iter().map(|(number, _)| number).collect()
    }

    /// Leaves every connection alone again.
    pub(super) fn leave_alone(&self) {
        for wish in self.seated().seats.values() {
            wish.state.store(LEFT_ALONE, Ordering::Release);
        }
    }

    fn seated(&self) -> MutexGuard<'_, Seated> {
        self.shared.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, answer: Answer) {
        // It fails only when no migration will ever ask again.
        let _ = self.shared.answers.send(answer);
    }
}

impl Wish {
    fn wake(&self) {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

/// A connection's seat in the roster.
#[derive(Debug)]
pub struct Seat {
    number: u64,
    wish: Arc<Wish>,
    /// `None` once the connection was given away.
    roster: Option<Roster>,
}

impl Seat {
    /// Ready while the connection is wanted; otherwise the task is woken when it is.
    pub fn poll_wanted(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_wanted() {
            return Poll::Ready(());
        }
        {
            let mut waker = self.wish.waker.lock().unwrap_or_else(PoisonError::into_inner);
            waker.clone_from(context.waker());
        }
        // Asked between the look and the waker's arrival.
        if self.is_wanted() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the connection is to move as soon as it can.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wish.state.load(Ordering::Acquire) != LEFT_ALONE
    }

    /// Says that the connection cannot move now, and will be given later. Saying it twice says it
    /// once.
    pub fn busy(&self) {
        let first = self
            .wish
            .state
            .compare_exchange(ASKED, BUSY, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if let (true, Some(roster)) = (first, &self.roster) {
            roster.answer(Answer::Busy(self.number));
        }
    }

    /// Gives the connection away.
    pub fn give(mut self, frozen: Frozen) {
        if let Some(roster) = self.roster.take() {
            let mut seated = roster.seated();
            seated.seats.remove(&self.number);
            seated.on_the_way = plus(seated.on_the_way, kinds(std::slice::from_ref(&frozen)));
            drop(seated);
            roster.answer(Answer::Frozen(self.number, Box::new(frozen)));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(roster) = self.roster.take() {
            roster.seated().seats.remove(&self.number);
            roster.are_gone(1);
            if self.is_wanted() {
                roster.answer(Answer::Gone(self.number));
            }
        }
    }
}
