//! The operator's pause: nobody accepts, newcomers wait in the kernel's queue, what is open is served.
//!
//! ```text
//! Steady ──pause──► Paused ──resume, or its time has passed──► Resuming ──Accepting──► Steady
//!                    │  ▲───────────pause again────────────────────┘
//!                    └── the worker is gone: the pause is over, and the next one serves
//! ```
//!
//! **Invariants**
//! - A pause has a deadline, an hour away at most: one that is forgotten ends by itself.
//! - No takeover begins in it; what the worker itself wishes waits for its end.
//! - It is the pause of one generation, and does not outlive it: a front without a worker has no reason to wait.

use std::time::Duration;

use handoff::message::GenerationId;

use crate::event::{
    Action, Deadline, LONGEST_PAUSE_OF_ACCEPTING, Note, PauseDenied, PauseEnd, ResumeDenied,
};
use crate::generation::{Course, Generations, State, Stops};

impl Generations {
    /// Has nobody accept for so long; asked again, it only moves the end.
    pub(crate) fn pause(&mut self, timeout: Duration) -> Result<Vec<Action>, PauseDenied> {
        if timeout > LONGEST_PAUSE_OF_ACCEPTING {
            return Err(PauseDenied::TooLong { asked: timeout });
        }
        let mut actions = Vec::new();
        let id = match self.course {
            Course::Leaving => return Err(PauseDenied::Stopping),
            Course::Takeover(_) => return Err(PauseDenied::TakeoverRuns),
            Course::Launching(_) | Course::Pausing => return Err(PauseDenied::NobodyServes),
            Course::Steady if self.pending.is_some() => return Err(PauseDenied::TakeoverWaits),
            Course::Steady => self.serving().ok_or(PauseDenied::NobodyServes)?,
            Course::Paused(id) | Course::Resuming(id) => id,
        };
        if self.living.get(&id).is_some_and(|g| g.stops == Stops::OnlyByDraining) {
            return Err(PauseDenied::OnlyByDraining { generation: id });
        }
        actions.push(Action::SetDeadline(Deadline::Resume, timeout));
        actions.push(Action::Note(Note::PauseBegan { generation: id, timeout }));
        if self.course == Course::Paused(id) {
            if self.state(id) == Some(State::Stopped) {
                actions.push(Action::Note(Note::Paused(id)));
            }
        } else {
            self.course = Course::Paused(id);
            actions.push(Action::ClearDeadline(Deadline::Accepting(id)));
            self.tell_to_stop(id, &mut actions);
        }
        self.mind(&mut actions);
        Ok(actions)
    }

    /// Has the paused generation accept again.
    pub(crate) fn resume(&mut self) -> Result<Vec<Action>, ResumeDenied> {
        let mut actions = Vec::new();
        match self.course {
            Course::Paused(_) => self.accept_again(PauseEnd::Asked, &mut actions),
            Course::Resuming(_) => {}
            _ => return Err(ResumeDenied::NotPaused),
        }
        self.mind(&mut actions);
        Ok(actions)
    }

    /// A worker says that it cannot be paused.
    pub(crate) fn stops_only_by_draining(&mut self, id: GenerationId) {
        if let Some(generation) = self.living.get_mut(&id) {
            generation.stops = Stops::OnlyByDraining;
        }
    }

    /// The pause has lasted for as long as it may.
    pub(crate) fn on_pause_over(&mut self, actions: &mut Vec<Action>) {
        self.accept_again(PauseEnd::Expired, actions);
    }

    fn accept_again(&mut self, why: PauseEnd, actions: &mut Vec<Action>) {
        let Course::Paused(id) = self.course else { return };
        self.end_pause(why, actions);
        self.course = Course::Resuming(id);
        actions.push(Action::ClearDeadline(Deadline::Stopped(id)));
        self.admit(id, actions);
    }

    /// The pause is over; what comes then is the caller's affair.
    pub(crate) fn end_pause(&mut self, why: PauseEnd, actions: &mut Vec<Action>) {
        let Course::Paused(generation) = self.course else { return };
        self.course = Course::Steady;
        actions.push(Action::ClearDeadline(Deadline::Resume));
        actions.push(Action::Note(Note::PauseEnded { generation, why }));
    }

    /// A generation is gone, and with it its pause.
    pub(crate) fn end_pause_of(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if self.course == Course::Paused(id) {
            self.end_pause(PauseEnd::WorkerGone, actions);
        } else if self.course == Course::Resuming(id) {
            self.course = Course::Steady;
        }
    }

    /// A generation that is on its way out by itself is not paused any more, and will be replaced.
    pub(crate) fn mind_pause(&mut self, actions: &mut Vec<Action>) {
        if let Course::Paused(id) | Course::Resuming(id) = self.course
            && !matches!(self.state(id), Some(State::Stopping | State::Stopped | State::Admitting))
        {
            self.end_pause_of(id, actions);
        }
    }
}
