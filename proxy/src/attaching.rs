//! Workers that come by themselves: who waits at the attach socket becomes the successor, or goes on with what it was.
//!
//! ```text
//! somebody serves ── Fresh ──► a takeover, as if it had been asked for with another program
//! nobody serves   ── Fresh ──► Launching
//!                 ── Returned ──► Launching: it accepts all the while
//! somebody serves ── Returned ──► Draining
//! ```
//!
//! The front cannot start such a program, so [`ProgramId::ATTACHED`] is started by taking who waits; when nobody does, it
//! is the front's own program that is started again, or nobody serves until one comes.
//!
//! **Invariants**
//! - One at a time: who waits is minded only between takeovers, and after what an operator has asked for.
//! - Who returns is a generation that served once, under its own number: it is admitted or drains, and is no successor.

use std::time::Duration;

use handoff::message::GenerationId;

use crate::event::{Action, Attaching, DRAIN_GRACE, Deadline, Note, ProgramId};
use crate::generation::{Course, Generation, Generations, State, Stops};

impl Generations {
    /// The program that a takeover starts unless another one is named; `None` when the front can start none.
    pub(crate) fn startable(&self) -> Option<ProgramId> {
        Some(self.current).filter(|current| *current != ProgramId::ATTACHED).or(self.own)
    }

    /// Whether only a worker that comes by itself can serve next.
    pub(crate) fn awaits_worker(&self) -> bool {
        self.course == Course::Pausing
            && self.current == ProgramId::ATTACHED
            && self.pending.is_none()
    }

    /// A worker that returns was this generation, and had been granted that epoch: neither is given again.
    pub(crate) fn has_known(&mut self, id: GenerationId, epoch: u64) {
        self.next = self.next.max(id.next());
        self.epoch = self.epoch.max(epoch);
    }

    /// Looks after who waits, after something has happened.
    pub(crate) fn mind_attaching(&mut self, actions: &mut Vec<Action>) {
        let nobody_is_asked_for = self.pending.is_none();
        match (self.attaching, &self.course) {
            (Attaching::Fresh, Course::Pausing)
                if nobody_is_asked_for
                    && self.has_room()
                    && self.current == ProgramId::ATTACHED =>
            {
                self.launch_current(actions);
            }
            (Attaching::Fresh, Course::Steady | Course::Pausing)
                if nobody_is_asked_for && self.has_room() =>
            {
                self.pending = Some(Some(ProgramId::ATTACHED));
                self.begin_pending(actions);
            }
            (Attaching::Returned(id), Course::Pausing)
                if nobody_is_asked_for && !self.is_full() =>
            {
                actions.push(Action::ClearDeadline(Deadline::Respawn));
                self.take_back(id, actions);
                self.current = ProgramId::ATTACHED;
                self.admit(id, actions);
                self.course = Course::Launching(id);
            }
            (Attaching::Returned(id), Course::Steady) if self.is_served() && !self.is_full() => {
                self.end_standby(actions);
                self.take_back(id, actions);
                self.drain(id, self.rules.drain_timeout, actions);
            }
            (Attaching::Drains(id, left), Course::Steady)
                if self.is_served() && !self.is_full() =>
            {
                self.end_standby(actions);
                self.drains_back(id, left, actions);
            }
            // There has to be room for the next one that serves.
            (Attaching::Drains(id, left), Course::Pausing) if self.holding_up().is_none() => {
                self.drains_back(id, left, actions);
            }
            _ => {}
        }
    }

    fn drains_back(&mut self, id: GenerationId, left: Duration, actions: &mut Vec<Action>) {
        self.take_back(id, actions);
        self.set_state(id, State::Draining);
        actions.push(Action::SetDeadline(Deadline::Drained(id), left + DRAIN_GRACE));
    }

    fn take_back(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.attaching = Attaching::Nobody;
        let generation = Generation {
            state: State::Stopped,
            program: ProgramId::ATTACHED,
            failing: Vec::new(),
            linked: true,
            heir: None,
            stops: Stops::default(),
        };
        self.living.insert(id, generation);
        actions.push(Action::TakeBack(id));
        actions.push(Action::Note(Note::Returned(id)));
    }

    /// The current program would be started, and is one that comes by itself: the front's own is in its place, unless
    /// somebody waits. Says whether there is anything to start.
    pub(crate) fn replace_attached(&mut self, actions: &mut Vec<Action>) -> Startable {
        if self.current != ProgramId::ATTACHED {
            return Startable::Something;
        }
        match (self.attaching, self.own) {
            (Attaching::Fresh, _) => Startable::Something,
            (Attaching::Returned(_), _) => Startable::Nothing,
            (Attaching::Nobody | Attaching::Drains(..), Some(own)) => {
                self.current = own;
                actions.push(Action::Note(Note::StartsOwn));
                Startable::Something
            }
            (Attaching::Nobody | Attaching::Drains(..), None) => {
                actions.push(Action::Note(Note::AwaitsWorker));
                Startable::Nothing
            }
        }
    }
}

/// Whether there is a program that can be started now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Startable {
    Something,
    Nothing,
}
