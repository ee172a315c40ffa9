//! What the front waits for, and what it does when that has come.

use std::time::Instant;

use handoff::GenerationId;
use serde::{Deserialize, Serialize};

use crate::event::{Deadline, Event};
use crate::front::Front;

/// A moment the front waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Timer {
    /// The policy asked for it.
    Policy(Deadline),
    /// A dead worker has had time enough for its last words.
    LastWords(GenerationId),
    /// A worker that wants to be replaced has served long enough.
    Wanted(GenerationId),
    /// The service manager is to hear something.
    Manager,
    /// The status page is to be started again. Never written down: another image starts it anyway.
    Admin,
}

impl Front {
    /// Does what the moments ask for that have come.
    pub(crate) fn on_time(&mut self) {
        let now = Instant::now();
        let passed: Vec<Timer> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer).collect();
        for timer in passed {
            // An earlier one of this batch may have cleared it.
            if self.timers.remove(&timer).is_none() {
                continue;
            }
            match timer {
                Timer::Policy(deadline) => self.feed(Event::Passed(deadline)),
                Timer::LastWords(id) => {
                    self.workers.end_conversation(id);
                    self.bury(id);
                }
                Timer::Wanted(id) => self.replace_as_wanted(id),
                Timer::Manager => {
                    self.manager.on_time();
                    self.tell_manager();
                }
                Timer::Admin => self.keep_admin(),
            }
        }
    }
}

/// Ends at this moment; never without one. Cancel safe.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
