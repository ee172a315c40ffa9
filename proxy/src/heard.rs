//! What the front hears of its workers: their words over the links, and their ends.
//!
//! **Invariants**
//! - What a worker says is an event for the policy, or a note of it; nothing is done about it here.
//! - A worker's end is an event once it is reaped *and* its last words are heard, and never twice.

use std::time::{Duration, Instant};

use ::handoff::fault::{self, Point};
use ::handoff::message::{GenerationId, ToFront};
use tracing::debug;

use crate::claims;
use crate::event::{Event, Exit, Failure};
use crate::front::Front;
use crate::handoff::Word;
use crate::reap;
use crate::spawn;
use crate::timer::Timer;
use crate::workers::Origin;

/// How long a dead worker's link is still listened to, for what it said last.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl Front {
    pub(crate) fn on_word(&mut self, word: Word) {
        self.rest_later();
        match word {
            Word::Said(id, said) => self.on_said(id, said),
            Word::Ended(id) => {
                self.workers.end_conversation(id);
                if !self.bury(id) {
                    self.feed(Event::LinkEnded(id));
                }
            }
            Word::Exited(id) => self.on_adopted_exit(id),
            Word::Broke(id, reason) => {
                self.workers.end_conversation(id);
                if !self.bury(id) {
                    self.feed(Event::Unfit(id, Failure::BrokeProtocol { reason }));
                }
            }
        }
    }

    fn on_said(&mut self, id: GenerationId, said: ToFront) {
        fault::reach(Point::at_word(&said));
        let Some(worker) = self.workers.get_mut(id) else { return };
        let event = match said {
            ToFront::Ready(ready) => {
                worker.greeting = claims::greeting(&ready);
                worker.hears_of_orphans = ready.hears_of_orphans;
                if let Origin::Attached(peer) = &mut worker.origin
                    && !ready.program.is_empty()
                {
                    peer.program = claims::name(&ready.program);
                }
                if ready.stops_only_by_draining {
                    self.generations.stops_only_by_draining(id);
                }
                match self.too_few_descriptors(id, ready.free_descriptors) {
                    Some(failure) => Event::Unfit(id, failure),
                    None => Event::Ready(id),
                }
            }
            ToFront::Failing { conditions } => Event::Failing(id, claims::conditions(&conditions)),
            ToFront::Refuse { reason } => {
                Event::Unfit(id, Failure::Refused { reason: claims::sentence(&reason) })
            }
            ToFront::Accepting => Event::Accepting(id),
            ToFront::Stopped => Event::Stopped(id),
            ToFront::Drained(drained) => {
                worker.drained = Some(drained);
                Event::Drained(id)
            }
            ToFront::Extend { timeout_ms } => Event::Extend(id, Duration::from_millis(timeout_ms)),
            ToFront::WantsTakeover { reason } => return self.on_wanted(id, reason),
            ToFront::Lost(connections) => return self.story.lost(id, connections),
            ToFront::Report(report) => return self.workers.reported(id, claims::report(report)),
            ToFront::Rescued(_) | ToFront::Attach(_) => {
                let reason = "it was not asked what it is".to_owned();
                Event::Unfit(id, Failure::BrokeProtocol { reason })
            }
        };
        self.feed(event);
    }

    /// Whether a successor with so many free descriptors could take over what the incumbent holds.
    fn too_few_descriptors(&self, id: GenerationId, free: u64) -> Option<Failure> {
        let takes_over = !self.generations.is_standby(id);
        let incumbent = self.generations.serving().filter(|other| takes_over && *other != id)?;
        let incumbent = self.workers.get(incumbent)?;
        let held = incumbent.report.connections.total();
        // Of one in another container there is nobody to ask but itself; more than this front may have it has not.
        let held = match incumbent.origin.pid() {
            Some(_) => held,
            None => held.min(self.settings.terms.limits.current),
        };
        let needed = claims::needs_more_than(free, held, incumbent.origin.pid())?;
        Some(Failure::TooFewDescriptors { free, needed })
    }

    /// Reaps every child that has ended; those that are no workers had been adopted.
    pub(crate) fn on_children(&mut self) {
        while let Some(pid) = reap::ended() {
            let worker = self.workers.with_pid(pid);
            // What one that was never trusted had started goes with it, and a program with its adapter.
            if worker.is_some_and(|id| !self.generations.is_trusted(id) || self.runs_adapters()) {
                spawn::kill_group(pid);
            }
            let Some(exit) = reap::reap(pid) else { return };
            if let Some(awaited) = self.awaited.remove(&pid) {
                // Nobody may wait any more.
                let _ = awaited.send(exit);
                continue;
            }
            if self.is_admins_end(pid, exit) {
                continue;
            }
            self.end_strays();
            let Some(id) = worker else {
                debug!(pid = pid.as_raw(), %exit, "an adopted process ended");
                self.workers.tell_of_orphan(pid, exit);
                continue;
            };
            let exit = self.kills_seen.of(id, exit);
            self.on_reaped(id, exit);
        }
    }

    /// A worker's process is gone. Its last words may still be on their way.
    pub(crate) fn on_reaped(&mut self, id: GenerationId, exit: Exit) {
        self.workers.reaped(id, exit);
        if !self.bury(id) {
            self.timers.insert(Timer::LastWords(id), Instant::now() + LAST_WORDS);
        }
    }

    pub(crate) fn runs_adapters(&self) -> bool {
        self.programs.run_by_adapters()
    }

    /// Tells the policy of a worker's end, once the process is reaped and its last words are heard.
    pub(crate) fn bury(&mut self, id: GenerationId) -> bool {
        let Some(exit) = self.workers.end_of(id) else { return false };
        self.timers.remove(&Timer::LastWords(id));
        self.feed(Event::Exited { generation: id, exit });
        self.workers.bury(id);
        self.rescue.forget(id);
        true
    }
}
