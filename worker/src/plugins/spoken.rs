//! What a run has said and nobody has heard yet.
//!
//! **Invariants**
//! - No more than [`MOST_UNHEARD`] waits: a reader that is slower than the plugin ends its run, and not the
//!   calls beside it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How much may wait, in bytes.
const MOST_UNHEARD: usize = 4 * 1024 * 1024;

/// What a run says, between the plugin and whoever wants the answer.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    end: Option<Result<(), String>>,
    waker: Option<Waker>,
}

/// What there is to hear.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// More of the answer, in the buffer that was given.
    Text,
    /// It is complete, or there is none for this reason.
    End(Result<(), String>),
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It does.
    On,
    /// More waits than may.
    TooMuch,
}

impl Spoken {
    /// More of the answer.
    pub(super) fn say(&self, more: &str) -> Course {
        let mut state = self.state();
        if state.end.is_some() {
            return Course::On;
        }
        if state.text.len() + more.len() > MOST_UNHEARD {
            drop(state);
            self.end(Err("it said more than could be read of it".to_owned()));
            return Course::TooMuch;
        }
        state.text.push_str(more);
        wake(state);
        Course::On
    }

    /// There is no more. The first end counts.
    pub(super) fn end(&self, how: Result<(), String>) {
        let mut state = self.state();
        state.end.get_or_insert(how);
        wake(state);
    }

    /// What was said since it was asked last.
    pub(super) fn poll_hear(&self, context: &mut Context<'_>, into: &mut String) -> Poll<Heard> {
        into.clear();
        let mut state = self.state();
        if !state.text.is_empty() {
            std::mem::swap(&mut state.text, into);
            return Poll::Ready(Heard::Text);
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Heard::End(end.clone()));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two of its operations leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn what_was_said_is_heard_once_and_then_how_it_ended() {
        let spoken = Spoken::default();
        let mut heard = String::new();
        spoken.say("a");
        spoken.say("b");
        spoken.end(Ok(()));
        spoken.end(Err("too late".to_owned()));
        spoken.say("too late");
        assert_eq!(poll_fn(|context| spoken.poll_hear(context, &mut heard)).await, Heard::Text);
        assert_eq!(heard, "ab");
        let end = poll_fn(|context| spoken.poll_hear(context, &mut heard)).await;
        assert_eq!((end, &*heard), (Heard::End(Ok(())), ""));
    }

    #[tokio::test]
    async fn a_run_that_nobody_listens_to_ends() {
        let spoken = Spoken::default();
        let half = "x".repeat(MOST_UNHEARD / 2 + 1);
        assert_eq!((spoken.say(&half), spoken.say(&half)), (Course::On, Course::TooMuch));
        let mut heard = String::new();
        assert_eq!(poll_fn(|context| spoken.poll_hear(context, &mut heard)).await, Heard::Text);
        let end = poll_fn(|context| spoken.poll_hear(context, &mut heard)).await;
        assert!(matches!(end, Heard::End(Err(_))), "{end:?}");
    }
}
