//! The connections and sessions of a worker that could move, and the question each of them is asked.
//!
//! A connection's task holds a [`Seat`] for its whole life and polls it beside its own work. Asked to move,
//! it freezes at the first moment at which it can: at once when it is idle, else when it has said
//! what it is saying. Sessions take seats of their own kind: they are asked when there is no connection left to ask, so that
//! whoever speaks to one is gone before, or as soon as one of them [hurries](Seat::hurry).
//!
//! **Invariants**
//! - Every seat that is asked answers: with its connection, with *busy* (and its connection later),
//!   or by being dropped, which is *gone*.
//! - An idle roster costs nothing: no timer, no poll, one small allocation a connection.
//! - Before everything is to move, a session is not asked unless it hurries.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::{Notify, mpsc, watch};

use super::progress::Tally;
use super::snapshot::Frozen;
use crate::message::Connections;

/// Nobody has asked.
const LEFT_ALONE: u8 = 0;
/// It is to move, and has not answered.
const ASKED: u8 = 1;
/// It is to move, and has said that it is busy.
const BUSY: u8 = 2;
/// Nobody has asked, and it waits for that: it would rather move.
const HURRIED: u8 = 3;

/// The connections of a worker that could move.
#[derive(Clone, Debug)]
pub struct Roster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seated: Mutex<Seated>,
    /// Those with a seat, and those on their way.
    present: watch::Sender<usize>,
    answers: mpsc::UnboundedSender<Answer>,
    /// There may be a session to be asked that was not there before.
    stirred: Notify,
}

#[derive(Debug, Default)]
struct Seated {
    next: u64,
    seats: BTreeMap<u64, Arc<Wish>>,
    sessions: BTreeMap<u64, Arc<Wish>>,
    on_the_way: Tally,
}

impl Seated {
    fn leave(&mut self, number: u64) {
        // It is in one of the two.
        if self.seats.remove(&number).is_none() {
            self.sessions.remove(&number);
        }
    }
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
        let (seated, stirred) = (Mutex::default(), Notify::new());
        let shared = Shared { seated, present: watch::Sender::new(0), answers, stirred };
        (Self { shared: Arc::new(shared) }, receiver)
    }

    /// A seat for a new connection.
    #[must_use]
    pub fn seat(&self) -> Seat {
        self.take_seat(|seated| &mut seated.seats)
    }

    /// A seat for a session that is here from now on.
    #[must_use]
    pub fn session_seat(&self) -> Seat {
        let seat = self.take_seat(|seated| &mut seated.sessions);
        self.shared.stirred.notify_one();
        seat
    }

    fn take_seat(&self, row: impl FnOnce(&mut Seated) -> &mut BTreeMap<u64, Arc<Wish>>) -> Seat {
        let wish = Arc::new(Wish {
            state: AtomicU8::new(LEFT_ALONE),
            waker: Mutex::new(Waker::noop().clone()),
        });
        let mut seated = self.seated();
        let number = seated.next;
        seated.next += 1;
        row(&mut seated).insert(number, Arc::clone(&wish));
        drop(seated);
        self.shared.present.send_modify(|present| *present += 1);
        Seat { number, wish, roster: Some(self.clone()) }
    }

    /// How many connections and sessions are here: those with a seat, and those frozen and not yet started
    /// elsewhere.
    #[must_use]
    pub fn present(&self) -> usize {
        *self.shared.present.borrow()
    }

    /// Ends when none is here any more. Cancel safe.
    pub async fn emptied(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.present.subscribe().wait_for(|present| *present == 0).await;
    }

    /// The connections that are frozen, and not yet started elsewhere: nobody's task, and here all the same.
    #[must_use]
    pub fn on_the_way(&self) -> Connections {
        self.seated().on_the_way.connections
    }

    /// Frozen ones are not any more: they serve elsewhere, or here again.
    pub(super) fn departed(&self, departed: Tally) {
        let mut seated = self.seated();
        seated.on_the_way = seated.on_the_way.minus(departed);
        drop(seated);
        self.are_gone(usize::try_from(departed.total()).unwrap_or(usize::MAX));
    }

    fn are_gone(&self, number: usize) {
        self.shared.present.send_modify(|present| *present = present.saturating_sub(number));
    }

    /// Asks up to `most` connections with numbers from `from` on, and says which.
    pub(super) fn ask(&self, from: u64, most: usize) -> Vec<u64> {
        // Under one lock: a seat that is given up meanwhile either is not chosen, or answers that it
        // is gone.
        let seated = self.seated();
        Self::ask_of(seated.seats.range(from..), most, |state| state == LEFT_ALONE)
    }

    /// Asks up to `most` sessions that hurry, and says which.
    pub(super) fn ask_hurried(&self, most: usize) -> Vec<u64> {
        Self::ask_of(self.seated().sessions.iter(), most, |state| state == HURRIED)
    }

    /// Asks up to `most` sessions, and says which.
    pub(super) fn ask_sessions(&self, most: usize) -> Vec<u64> {
        let was_not_asked = |state| matches!(state, LEFT_ALONE | HURRIED);
        Self::ask_of(self.seated().sessions.iter(), most, was_not_asked)
    }

    /// Ends when there may be a session to be asked that was not there before. Cancel safe.
    pub(super) async fn stirred(&self) {
        self.shared.stirred.notified().await;
    }

    fn ask_of<'a>(
        row: impl Iterator<Item = (&'a u64, &'a Arc<Wish>)>,
        most: usize,
        is_meant: impl Fn(u8) -> bool,
    ) -> Vec<u64> {
        let chosen: Vec<(u64, &Arc<Wish>)> = row
            .filter(|(_, wish)| is_meant(wish.state.load(Ordering::Acquire)))
            .take(most)
            .map(|(number, wish)| (*number, wish))
            .collect();
        for (_, wish) in &chosen {
            wish.state.store(ASKED, Ordering::Release);
            wish.wake();
        }
        chosen.into_iter().map(|(number, _)| number).collect()
    }

    /// Leaves all of them alone again. Those that hurry still do.
    pub(super) fn leave_alone(&self) {
        let seated = self.seated();
        for wish in seated.seats.values().chain(seated.sessions.values()) {
            if wish.state.load(Ordering::Acquire) != HURRIED {
                wish.state.store(LEFT_ALONE, Ordering::Release);
            }
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

/// A connection's seat in the roster, or a session's.
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

    /// Ready while it is asked, and has neither said that it is busy nor was given; otherwise the task is woken when it is.
    /// Whoever says that it is busy asks once more, to hear of the next time.
    pub fn poll_asked(&self, context: &mut Context<'_>) -> Poll<()> {
        let is_asked = || self.wish.state.load(Ordering::Acquire) == ASKED;
        if is_asked() {
            return Poll::Ready(());
        }
        {
            let mut waker = self.wish.waker.lock().unwrap_or_else(PoisonError::into_inner);
            waker.clone_from(context.waker());
        }
        // Asked between the look and the waker's arrival.
        if is_asked() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the connection is to move as soon as it can.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        matches!(self.wish.state.load(Ordering::Acquire), ASKED | BUSY)
    }

    /// Says that the session would rather move, as soon as any may: somebody waits for it there.
    pub fn hurry(&self) {
        let (from, to) = (LEFT_ALONE, HURRIED);
        let state = &self.wish.state;
        // One that was asked need not ask.
        if state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
            && let Some(roster) = &self.roster
        {
            roster.shared.stirred.notify_one();
        }
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
            seated.leave(self.number);
            let on_the_way = seated.on_the_way.plus(Tally::of(std::slice::from_ref(&frozen)));
            seated.on_the_way = on_the_way;
            drop(seated);
            roster.answer(Answer::Frozen(self.number, Box::new(frozen)));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(roster) = self.roster.take() {
            roster.seated().leave(self.number);
            roster.are_gone(1);
            if self.is_wanted() {
                roster.answer(Answer::Gone(self.number));
            }
        }
    }
}
