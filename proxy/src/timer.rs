//! What the front waits for, and what it does when that has come.

use std::time::{Duration, Instant};

use handoff::GenerationId;
use serde::{Deserialize, Serialize};

use crate::event::{Deadline, Event};
use crate::front::Front;
use crate::generation::Course;
use crate::memory;

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
    /// Nothing has happened for a while, maybe. Never written down: another image has something happen first.
    Rest,
}

/// How long after something has happened the front gives back what it had for it.
const REST_AFTER: Duration = Duration::from_secs(1);

impl Timer {
    /// Whether it is the same moment in another image of the front.
    pub(crate) const fn is_carried(self) -> bool {
        !matches!(self, Self::Admin | Self::Rest)
    }
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
                Timer::Rest if self.generations.course == Course::Steady => memory::give_back(),
                // Whoever waits for somebody to serve, or for a takeover, waits for this task. Its end is something
                // that happens, and has the front rest.
                Timer::Rest => {}
            }
        }
    }

    /// Something happens: the front rests a while after it.
    pub(crate) fn rest_later(&mut self) {
        self.timers.entry(Timer::Rest).or_insert_with(|| Instant::now() + REST_AFTER);
    }
}

/// Ends at this moment; never without one. Cancel safe.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
