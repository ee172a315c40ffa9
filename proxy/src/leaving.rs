//! The front's own end: workers stop accepting, the port closes, what is open is finished, and
//! whoever is left at the stop timeout is killed.

use std::time::Duration;

use crate::event::{Action, Deadline, PauseEnd};
use crate::generation::{Course, Generations, State};

impl Generations {
    /// Ends everything in good order; asked again, at once.
    pub(crate) fn stop(&mut self) -> Vec<Action> {
        if self.course == Course::Leaving {
            return self.stop_now();
        }
        let mut actions = vec![
            Action::ClearDeadline(Deadline::Respawn),
            Action::ClearDeadline(Deadline::Soaked),
            Action::SetDeadline(Deadline::Stop, self.rules.stop_timeout),
        ];
        self.cease(&mut actions);
        self.course = Course::Leaving;
        self.pending = None;
        for id in self.living.keys().copied().collect::<Vec<_>>() {
            match self.living[&id].state {
                State::Starting | State::Standby => self.kill(id, &mut actions),
                State::Admitting | State::Serving => {
                    actions.push(Action::ClearDeadline(Deadline::Accepting(id)));
                    self.tell_to_stop(id, &mut actions);
                }
                State::Stopped | State::Draining | State::Emptying => {
                    self.drain(id, self.last_drain(), &mut actions);
                }
                State::Stopping | State::Ending => {}
            }
        }
        self.advance_leaving(&mut actions);
        self.mind(&mut actions);
        actions
    }

    /// Ends everything at once.
    pub(crate) fn stop_now(&mut self) -> Vec<Action> {
        let mut actions = vec![
            Action::ClearDeadline(Deadline::Respawn),
            Action::ClearDeadline(Deadline::Soaked),
            Action::ClearDeadline(Deadline::Stop),
        ];
        self.cease(&mut actions);
        self.course = Course::Leaving;
        self.pending = None;
        for id in self.living.keys().copied().collect::<Vec<_>>() {
            self.kill(id, &mut actions);
        }
        self.advance_leaving(&mut actions);
        self.mind(&mut actions);
        actions
    }

    /// Nothing is kept for later any more.
    fn cease(&mut self, actions: &mut Vec<Action>) {
        self.end_standby(actions);
        if let Course::Paused(_) = self.course {
            self.end_pause(PauseEnd::Stopping, actions);
        }
    }

    /// The drain a stopping front allows: what is left after it is spent on ending the processes.
    pub(crate) fn last_drain(&self) -> Duration {
        let timeout = self.rules.stop_timeout;
        timeout.saturating_sub((timeout / 10).min(Duration::from_millis(500)))
    }

    pub(crate) fn advance_leaving(&self, actions: &mut Vec<Action>) {
        if !self.living.values().any(|g| g.state.may_accept()) {
            actions.push(Action::CloseListeners);
        }
        if self.living.is_empty() {
            actions.push(Action::ClearDeadline(Deadline::Stop));
            actions.push(Action::Leave);
        }
    }
}
