//! The course of one takeover: the part of the policy that has an incumbent and a successor.
//!
//! ```text
//! start-first:             Starting ─► Admitting ─► Switching ─► Soaking ─► committed
//! stop-first:  Emptying ─► Starting ─► Admitting ──────────────► Soaking ─► committed
//! a failure:      before Switching: the incumbent was told nothing, it serves on
//!                 from Switching on: RollingBack, the incumbent is admitted again
//!                 stop-first: Clearing ─► Restoring, its program is started again
//! ```
//!
//! **Invariants**
//! - The writer lease moves at *committed*, and nothing is rolled back after that.
//! - A takeover whose incumbent died has nothing to go back to: it commits as soon as its
//!   successor accepts.

use handoff::message::GenerationId;
use serde::{Deserialize, Serialize};

use crate::attaching::Startable;
use crate::event::{
    Action, Deadline, During, Failure, Note, ProgramId, TakeoverNumber, TakeoverOrder,
};
use crate::generation::{Course, Generation, Generations, State};

/// A takeover on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Takeover {
    pub(crate) number: TakeoverNumber,
    pub(crate) program: ProgramId,
    /// Who serves, or served until now; `None` when there is nobody, or no longer.
    pub(crate) incumbent: Option<GenerationId>,
    /// Who is to serve; the restored generation while restoring.
    pub(crate) successor: Option<GenerationId>,
    pub(crate) step: Step,
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Step {
    /// The incumbent finishes its work while it accepts.
    Emptying,
    /// The successor is not ready yet.
    Starting,
    /// The successor was told to accept.
    Admitting,
    /// The incumbent was told to accept no more.
    Switching,
    /// Only the successor accepts, and is watched.
    Soaking,
    /// The successor is killed; the incumbent was told to accept again.
    RollingBack(Failure),
    /// The successor is killed; when it is gone, the incumbent's program is started again.
    Clearing(Failure),
    /// The incumbent's program is starting again.
    Restoring(Failure),
}

impl Step {
    /// The word for it in status.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Emptying => "emptying",
            Self::Starting => "starting",
            Self::Admitting => "admitting",
            Self::Switching => "switching",
            Self::Soaking => "soaking",
            Self::RollingBack(_) | Self::Clearing(_) | Self::Restoring(_) => "restoring",
        }
    }
}

impl Generations {
    /// Begins the pending takeover if nothing stands in its way.
    pub(crate) fn begin_pending(&mut self, actions: &mut Vec<Action>) {
        let can_begin = match self.course {
            Course::Steady | Course::Pausing => self.has_room(),
            Course::Launching(_)
            | Course::Takeover(_)
            | Course::Paused(_)
            | Course::Resuming(_)
            | Course::Leaving => false,
        };
        if !can_begin {
            return;
        }
        let Some(wanted) = self.pending.take() else { return };
        let Some(program) = wanted.or_else(|| self.startable()) else { return };
        actions.push(Action::ClearDeadline(Deadline::Respawn));
        // Whoever asks for a takeover wants what is fresh, and a standby was started before that.
        self.end_standby(actions);
        self.takeovers.0 += 1;
        let incumbent = self.serving();
        let mut takeover = Takeover {
            number: self.takeovers,
            program,
            incumbent,
            successor: None,
            step: Step::Emptying,
        };
        actions.push(Action::Note(Note::Began { takeover: takeover.number, incumbent }));
        match (self.rules.order, incumbent) {
            (TakeoverOrder::StopFirst, Some(incumbent)) => self.empty(incumbent, actions),
            (TakeoverOrder::StartFirst, _) | (_, None) => {
                takeover.successor = Some(self.launch(takeover.program, actions));
                takeover.step = Step::Starting;
            }
        }
        self.course = Course::Takeover(takeover);
    }

    /// Whether one more admitted generation would be a third one.
    pub(crate) fn is_full(&self) -> bool {
        self.living.values().filter(|g| g.state.is_admitted_or_draining()).count() >= 2
    }

    /// Whether the next one may be started: it is no third one, and with `stop-first` the process is gone of everybody
    /// who had to go.
    pub(crate) fn has_room(&self) -> bool {
        let goes = |generation: &Generation| match self.rules.order {
            TakeoverOrder::StartFirst => false,
            TakeoverOrder::StopFirst => generation.state == State::Ending,
        };
        !self.is_full() && !self.living.values().any(goes)
    }

    /// What the successor of the running takeover is in the middle of; `None` for anybody else.
    pub(crate) fn successor_during(&self, id: GenerationId) -> Option<During> {
        let Course::Takeover(takeover) = &self.course else { return None };
        if takeover.successor != Some(id) {
            return None;
        }
        match takeover.step {
            Step::Starting => Some(During::Start),
            Step::Admitting => Some(During::Admission),
            Step::Switching | Step::Soaking => Some(During::Soak),
            Step::Emptying | Step::RollingBack(_) | Step::Clearing(_) | Step::Restoring(_) => None,
        }
    }

    pub(crate) fn takeover_step(&mut self, from: Step, to: Step) {
        if let Course::Takeover(takeover) = &mut self.course
            && takeover.step == from
        {
            takeover.step = to;
        }
    }

    pub(crate) fn on_takeover_accepting(
        &mut self,
        mut takeover: Takeover,
        id: GenerationId,
        actions: &mut Vec<Action>,
    ) {
        match takeover.step {
            Step::Admitting if takeover.successor == Some(id) => match self.in_service(&takeover) {
                Some(incumbent) => {
                    self.tell_to_stop(incumbent, actions);
                    takeover.step = Step::Switching;
                    self.course = Course::Takeover(takeover);
                }
                // There is nobody left to stop; with `stop-first` there is a program to go back to.
                None => {
                    actions.push(Action::Note(Note::Switched { successor: id }));
                    match self.rules.order {
                        TakeoverOrder::StartFirst => self.commit(&takeover, actions),
                        TakeoverOrder::StopFirst => self.soak(takeover, actions),
                    }
                }
            },
            Step::RollingBack(failure) if takeover.incumbent == Some(id) => {
                self.end_rolled_back(takeover.number, takeover.successor, failure, actions);
                self.settle_on(id, actions);
            }
            Step::Restoring(failure) if takeover.successor == Some(id) => {
                self.end_rolled_back(takeover.number, None, failure, actions);
                self.settle_on(id, actions);
            }
            _ => {}
        }
    }

    /// The successor is to be admitted: first the two are introduced to one another, so that the successor
    /// serves nobody before it knows of whom it comes after.
    pub(crate) fn introduce(&mut self, successor: GenerationId, actions: &mut Vec<Action>) {
        let Course::Takeover(takeover) = &self.course else { return };
        if takeover.successor != Some(successor) || takeover.step != Step::Starting {
            return;
        }
        if let Some(incumbent) = self.in_service(takeover) {
            actions.push(Action::Introduce { incumbent, successor });
            if let Some(generation) = self.living.get_mut(&incumbent) {
                generation.heir = Some(successor);
            }
        }
    }

    /// The incumbent accepts no more: the successor is watched from here.
    pub(crate) fn on_switched(&mut self, incumbent: GenerationId, actions: &mut Vec<Action>) {
        let Course::Takeover(takeover) = &self.course else { return };
        if let (Step::Switching, Some(successor)) = (&takeover.step, takeover.successor)
            && takeover.incumbent == Some(incumbent)
        {
            let takeover = takeover.clone();
            actions.push(Action::Note(Note::Switched { successor }));
            self.soak(takeover, actions);
        }
    }

    fn soak(&mut self, mut takeover: Takeover, actions: &mut Vec<Action>) {
        takeover.step = Step::Soaking;
        self.course = Course::Takeover(takeover);
        actions.push(Action::SetDeadline(Deadline::Soaked, self.rules.soak));
    }

    pub(crate) fn on_soaked(&mut self, actions: &mut Vec<Action>) {
        let Course::Takeover(takeover) = &self.course else { return };
        if takeover.step != Step::Soaking {
            return;
        }
        let takeover = takeover.clone();
        let linked =
            takeover.successor.and_then(|id| self.living.get(&id)).is_some_and(|g| g.linked);
        if linked {
            self.commit(&takeover, actions);
        } else {
            self.roll_back(Failure::LinkEnded { during: During::Soak }, actions);
        }
    }

    /// The incumbent, unless it is gone or going by itself.
    fn in_service(&self, takeover: &Takeover) -> Option<GenerationId> {
        takeover.incumbent.filter(|id| {
            matches!(self.state(*id), Some(State::Serving | State::Stopping | State::Stopped))
        })
    }

    /// The point of no return.
    fn commit(&mut self, takeover: &Takeover, actions: &mut Vec<Action>) {
        let Some(successor) = takeover.successor else { return };
        actions.push(Action::ClearDeadline(Deadline::Soaked));
        self.current = takeover.program;
        self.own = self.startable();
        self.short_lives = 0;
        self.standby_failures = 0;
        actions.push(Action::Note(Note::Committed { takeover: takeover.number, successor }));
        // The incumbent stops writing before the successor begins.
        if let Some(incumbent) = self.in_service(takeover) {
            actions.push(Action::ClearDeadline(Deadline::Stopped(incumbent)));
            self.drain(incumbent, self.rules.drain_timeout, actions);
        }
        self.settle_on(successor, actions);
    }

    /// The successor failed: whoever served before serves on.
    pub(crate) fn roll_back(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        let Course::Takeover(takeover) = &self.course else { return };
        let mut takeover = takeover.clone();
        actions.push(Action::ClearDeadline(Deadline::Soaked));
        let successor = takeover.successor;
        let successor_lives = match successor.and_then(|id| Some((id, self.state(id)?))) {
            // It said goodbye itself; its exit has a deadline already.
            Some((_, State::Ending)) => true,
            Some((id, _)) => {
                self.kill(id, actions);
                true
            }
            None => false,
        };
        if self.rules.order == TakeoverOrder::StopFirst {
            takeover.step = Step::Clearing(failure);
            self.course = Course::Takeover(takeover.clone());
            if !successor_lives {
                self.restore(takeover, actions);
            }
            return;
        }
        match self.in_service(&takeover).and_then(|id| Some((id, self.state(id)?))) {
            Some((incumbent, State::Serving)) => {
                self.end_rolled_back(takeover.number, successor, failure, actions);
                self.settle_on(incumbent, actions);
            }
            Some((incumbent, _)) => {
                actions.push(Action::ClearDeadline(Deadline::Stopped(incumbent)));
                self.admit(incumbent, actions);
                takeover.step = Step::RollingBack(failure);
                self.course = Course::Takeover(takeover);
            }
            None => {
                self.end_rolled_back(takeover.number, successor, failure, actions);
                self.relaunch(actions);
            }
        }
    }

    /// Starts the program again that served before (`stop-first`).
    fn restore(&mut self, mut takeover: Takeover, actions: &mut Vec<Action>) {
        let Step::Clearing(failure) = takeover.step else { return };
        if self.replace_attached(actions) == Startable::Nothing {
            self.end_rolled_back(takeover.number, None, failure, actions);
            self.course = Course::Pausing;
            return self.begin_pending(actions);
        }
        takeover.successor = Some(self.launch(self.current, actions));
        takeover.step = Step::Restoring(failure);
        self.course = Course::Takeover(takeover);
    }

    fn end_rolled_back(
        &mut self,
        takeover: TakeoverNumber,
        successor: Option<GenerationId>,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        self.course = Course::Steady;
        actions.push(Action::Note(Note::RolledBack { takeover, successor, failure }));
    }

    /// A generation other than a failing successor is gone while a takeover runs.
    pub(crate) fn on_takeover_exited(
        &mut self,
        mut takeover: Takeover,
        id: GenerationId,
        actions: &mut Vec<Action>,
    ) {
        if takeover.incumbent == Some(id) {
            takeover.incumbent = None;
            match takeover.step {
                Step::Emptying => {
                    takeover.successor = Some(self.launch(takeover.program, actions));
                    takeover.step = Step::Starting;
                    self.course = Course::Takeover(takeover);
                }
                // The successor accepts, and there is nothing to roll back to.
                Step::Switching | Step::Soaking => {
                    if let (Step::Switching, Some(successor)) = (&takeover.step, takeover.successor)
                    {
                        actions.push(Action::Note(Note::Switched { successor }));
                    }
                    self.commit(&takeover, actions);
                }
                Step::RollingBack(failure) => {
                    self.end_rolled_back(takeover.number, takeover.successor, failure, actions);
                    self.relaunch(actions);
                }
                Step::Starting | Step::Admitting | Step::Clearing(_) | Step::Restoring(_) => {
                    self.course = Course::Takeover(takeover);
                }
            }
        } else if takeover.successor == Some(id) {
            match takeover.step {
                Step::Clearing(_) => self.restore(takeover, actions),
                Step::Restoring(failure) => {
                    self.end_rolled_back(takeover.number, None, failure, actions);
                    self.relaunch(actions);
                }
                _ => {}
            }
        }
    }
}
