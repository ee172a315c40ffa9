//! One who follows a run: hears it piece by piece, and for whom alone it goes on.
//!
//! ```text
//! run ─► piece ─► [unheard: ≤ 256 pieces, ≤ 32 MiB] ─► follower ─► a response
//!  ▲                                                       │ dropped
//!  └───────────────────── it is ended ◄────────────────────┘
//! ```
//!
//! **Invariants**
//! - A run never waits for its follower: a client that reads slowly holds up nobody else of its session.
//! - What was not heard yet is kept once, in ever longer pieces. A follower that falls too far behind is given up.
//! - A follower that goes before the run has ended ends it, also while it waits for its lane; the run is counted as a
//!   call from that moment on, and until then as whatever follows it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

use super::ending::Outcome;
use super::harness::Usage;
use super::session::SessionKey;
use super::told::lane_cleared;
use crate::census::{CallSeat, Census};

/// So many pieces are kept apart.
const MOST_PIECES: usize = 256;
/// So much may be unheard, in bytes: more than the largest message that can be sent back.
const MOST_UNHEARD: usize = 32 * 1024 * 1024;
/// Why a follower is given up.
const TOO_SLOW: &str = "the answer was read too slowly";

/// What a follower hears next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// More of the answer.
    Text(String),
    /// That was all: the answer is complete, or somebody has ended it.
    End {
        /// In how many pieces it was said.
        pieces: usize,
        /// What it cost, if whoever answered has counted.
        usage: Option<Usage>,
    },
    /// There is no more, for this reason.
    Failed(String),
}

/// The one who follows.
#[derive(Debug)]
pub(crate) struct Follower {
    unheard: Arc<Mutex<Unheard>>,
    census: Arc<Census>,
    goes: Option<oneshot::Sender<CallSeat>>,
}

/// The run's end of it.
#[derive(Debug)]
pub(super) struct Followed {
    unheard: Arc<Mutex<Unheard>>,
    gone: oneshot::Receiver<CallSeat>,
    /// Holds this generation once nobody follows any more.
    seat: Option<CallSeat>,
}

/// What a follower hears with.
#[derive(Debug)]
pub(super) struct Ear {
    unheard: Arc<Mutex<Unheard>>,
}

#[derive(Debug, Default)]
struct Unheard {
    texts: VecDeque<String>,
    bytes: usize,
    pieces: usize,
    usage: Option<Usage>,
    last: Option<Heard>,
    waker: Option<Waker>,
}

/// A follower of a run that is counted in this census, and the run's end of it.
pub(super) fn follower(census: &Arc<Census>) -> (Follower, Followed) {
    let (goes, gone) = oneshot::channel();
    let unheard = Arc::default();
    let follower =
        Follower { unheard: Arc::clone(&unheard), census: Arc::clone(census), goes: Some(goes) };
    (follower, Followed { unheard, gone, seat: None })
}

impl Follower {
    /// What comes next; after the end and a failure, that again.
    pub(crate) fn poll_heard(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        let mut unheard = lock(&self.unheard);
        if let Some(text) = unheard.texts.pop_front() {
            unheard.bytes -= text.len();
            return Poll::Ready(Heard::Text(text));
        }
        if let Some(last) = &unheard.last {
            return Poll::Ready(last.clone());
        }
        unheard.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(goes) = self.goes.take() {
            // A run that has ended does not listen any more.
            let _ = goes.send(self.census.call("an agent's run"));
        }
    }
}

impl Followed {
    /// Ends when the follower has gone. Cancel-safe.
    pub(super) async fn gone(&mut self) {
        if self.seat.is_none() {
            // The follower sends in any case.
            self.seat = (&mut self.gone).await.ok();
        }
    }

    /// What the follower hears with.
    pub(super) fn ear(&self) -> Ear {
        Ear { unheard: Arc::clone(&self.unheard) }
    }

    /// The run has ended, in this way.
    pub(super) fn ended(self, outcome: &Outcome, session: &SessionKey) {
        self.end(|pieces, usage| match outcome {
            Outcome::Finished(_) | Outcome::Aborted => Heard::End { pieces, usage },
            Outcome::LaneCleared => Heard::Failed(lane_cleared(session)),
            Outcome::Failed(reason) => Heard::Failed(reason.clone()),
        });
    }

    fn end(&self, last: impl FnOnce(usize, Option<Usage>) -> Heard) {
        let mut unheard = lock(&self.unheard);
        if unheard.last.is_none() {
            unheard.last = Some(last(unheard.pieces, unheard.usage));
        }
        wake(unheard);
    }
}

impl Ear {
    /// More of the answer, heard when it is woken.
    pub(super) fn piece(&self, text: &str) {
        let mut unheard = lock(&self.unheard);
        if unheard.last.is_some() {
            return;
        }
        unheard.pieces += 1;
        unheard.bytes += text.len();
        if unheard.bytes > MOST_UNHEARD {
            (unheard.texts, unheard.bytes) = (VecDeque::new(), 0);
            unheard.last = Some(Heard::Failed(TOO_SLOW.to_owned()));
        } else if unheard.texts.len() < MOST_PIECES {
            unheard.texts.push_back(text.to_owned());
        } else if let Some(longest) = unheard.texts.back_mut() {
            longest.push_str(text);
        }
    }

    /// What the answer has cost, heard at its end.
    pub(super) fn cost(&self, usage: Option<Usage>) {
        lock(&self.unheard).usage = usage;
    }

    /// There is something to hear.
    pub(super) fn wake(&self) {
        wake(lock(&self.unheard));
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // Only a panic leaves it without an end.
        self.end(|_, _| Heard::Failed("the agent's run panicked".to_owned()));
    }
}

fn wake(mut unheard: MutexGuard<'_, Unheard>) {
    let waker = unheard.waker.take();
    drop(unheard);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn lock(unheard: &Mutex<Unheard>) -> MutexGuard<'_, Unheard> {
    // A panic between two of its operations leaves it whole.
    unheard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn session() -> SessionKey {
        SessionKey::main_of("main")
    }

    async fn next(follower: &mut Follower) -> Heard {
        poll_fn(|context| follower.poll_heard(context)).await
    }

    #[tokio::test]
    async fn pieces_are_heard_as_they_were_said_and_merged_for_one_who_falls_behind() {
        let (mut follower, followed) = follower(&Arc::default());
        let ear = followed.ear();
        ear.piece("a");
        assert_eq!(next(&mut follower).await, Heard::Text("a".to_owned()));
        for _ in 0..MOST_PIECES + 10 {
            ear.piece(" b");
        }
        let usage = Some(Usage { prompt: 1, completion: 2 });
        ear.cost(usage);
        followed.ended(&Outcome::Finished(String::new()), &session());
        let mut texts = Vec::new();
        let last = loop {
            match next(&mut follower).await {
                Heard::Text(text) => texts.push(text),
                last => break last,
            }
        };
        assert_eq!((texts.len(), texts[0].as_str()), (MOST_PIECES, " b"));
        assert_eq!(texts.concat(), " b".repeat(MOST_PIECES + 10));
        assert_eq!(last, Heard::End { pieces: MOST_PIECES + 11, usage });
    }

    #[tokio::test]
    async fn one_who_falls_too_far_behind_is_given_up_and_costs_nothing_any_more() {
        let (mut follower, followed) = follower(&Arc::default());
        let text = "x".repeat(1 << 20);
        for _ in 0..100 {
            followed.ear().piece(&text);
        }
        assert_eq!(lock(&followed.unheard).bytes, 0);
        followed.ended(&Outcome::Aborted, &session());
        assert_eq!(next(&mut follower).await, Heard::Failed(TOO_SLOW.to_owned()));
    }

    #[tokio::test]
    async fn a_run_hears_of_a_follower_that_goes_and_is_counted_from_then_on() {
        let census = Arc::new(Census::default());
        let (follower, mut followed) = follower(&census);
        assert_eq!(census.report().in_flight, 0);
        drop(follower);
        assert_eq!(census.report().in_flight, 1, "before the run has heard of it");
        followed.gone().await;
        assert_eq!(census.report().in_flight, 1);
        drop(followed);
        assert_eq!(census.report().in_flight, 0);
    }

    #[tokio::test]
    async fn a_run_that_ends_in_a_panic_has_an_end_for_its_follower() {
        let (mut follower, followed) = follower(&Arc::default());
        drop(followed);
        assert!(matches!(next(&mut follower).await, Heard::Failed(_)));
    }
}
