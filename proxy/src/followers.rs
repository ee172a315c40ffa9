//! Who follows a takeover, and hears of every step of it.
//!
//! **Invariants**
//! - Telling never holds the front up: a follower that does not read is let go of.

use tokio::sync::mpsc;

use crate::control::protocol::Answer;
use crate::event::TakeoverNumber;

/// How many lines of a takeover's story may wait for a follower.
const QUEUE: usize = 64;

/// Those who follow takeovers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followers(Vec<(TakeoverNumber, mpsc::Sender<Answer>)>);

impl Followers {
    /// Follows a takeover from here on.
    pub(crate) fn follow(&mut self, takeover: TakeoverNumber) -> mpsc::Receiver<Answer> {
        let (follower, events) = mpsc::channel(QUEUE);
        self.0.retain(|(_, follower)| !follower.is_closed());
        self.0.push((takeover, follower));
        events
    }

    pub(crate) fn tell(&mut self, takeover: TakeoverNumber, answer: &Answer) {
        self.0.retain(|(followed, follower)| {
            *followed != takeover || follower.try_send(answer.clone()).is_ok()
        });
    }

    /// Nothing more comes of this takeover.
    pub(crate) fn end(&mut self, takeover: TakeoverNumber) {
        self.0.retain(|(followed, _)| *followed != takeover);
    }
}
