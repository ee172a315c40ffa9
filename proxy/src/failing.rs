//! What becomes of a generation that is not what it should be, or is no more: a takeover rolls
//! back, a launch is repeated, a crash is made good, a standby is replaced.

use handoff::message::GenerationId;

use crate::event::{Action, Deadline, Exit, Failure, LINK_GRACE, Note, Order};
use crate::generation::{Course, Generations, State};
use crate::steps::{deadlines_of, during_of};

impl Generations {
    pub(crate) fn on_not_ready(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if let Some(generation) = self.living.get(&id) {
            let failing = generation.failing.clone();
            let failure = Failure::NotReady { limit: self.rules.ready_timeout, failing };
            self.fail(id, State::Starting, failure, actions);
        }
    }

    pub(crate) fn on_unfit(
        &mut self,
        id: GenerationId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        if let Failure::NotStarted { .. } = failure {
            // There is no process whose exit would tell.
            self.clear_deadlines(id, actions);
            if self.living.remove(&id).is_some() {
                self.on_start_failed(id, failure, actions);
            }
            return;
        }
        match self.state(id) {
            Some(state @ (State::Starting | State::Admitting)) => {
                self.fail(id, state, failure, actions);
            }
            Some(State::Standby) => self.fail_standby(id, failure, actions),
            Some(State::Serving) if self.successor_during(id).is_some() => {
                self.roll_back(failure, actions);
            }
            Some(_) => self.on_link_ended(id, actions),
            None => {}
        }
    }

    /// Usually the process is on its way out and its exit says more. One that stays can no longer
    /// be told anything, and is ended.
    pub(crate) fn on_link_ended(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if let Some(generation) = self.living.get_mut(&id)
            && generation.state != State::Ending
        {
            generation.linked = false;
            actions.push(Action::SetDeadline(Deadline::Exited(id), LINK_GRACE));
        }
    }

    /// A process that had every reason to be gone is still there.
    pub(crate) fn on_not_exited(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        let Some(state) = self.state(id) else { return };
        let during = self.successor_during(id).unwrap_or_else(|| during_of(state));
        match state {
            State::Starting | State::Admitting => {
                self.fail(id, state, Failure::LinkEnded { during }, actions);
            }
            State::Standby => self.fail_standby(id, Failure::LinkEnded { during }, actions),
            State::Serving if self.successor_during(id).is_some() => {
                self.roll_back(Failure::LinkEnded { during }, actions);
            }
            _ => self.kill(id, actions),
        }
    }

    pub(crate) fn on_overran(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if let Some(State::Draining | State::Emptying) = self.state(id) {
            actions.push(Action::Note(Note::Overran(id)));
            self.kill(id, actions);
        }
    }

    pub(crate) fn on_exited(&mut self, id: GenerationId, exit: Exit, actions: &mut Vec<Action>) {
        // Asked while it is still among the living.
        let successor_during = self.successor_during(id);
        let Some(gone) = self.living.remove(&id) else { return };
        for deadline in deadlines_of(id) {
            actions.push(Action::ClearDeadline(deadline));
        }
        let served = self.lease == Some(id);
        if served {
            self.lease = None;
        }
        // What it had offered and neither given nor taken back is the heir's now.
        if let Some(heir) = gone.heir.filter(|heir| self.living.contains_key(heir)) {
            actions.push(Action::Tell(heir, Order::Reaped { generation: id }));
        }
        if self.course == Course::Leaving {
            actions.push(Action::Note(Note::Gone { generation: id, exit }));
            return self.advance_leaving(actions);
        }
        if self.is_standby(id) {
            let (during, failing) = (during_of(gone.state), gone.failing);
            return self.lose_standby(id, Failure::Exited { exit, during, failing }, actions);
        }
        self.end_pause_of(id, actions);
        if let Some(during) = successor_during
            && gone.state != State::Ending
        {
            let failing = gone.failing;
            return self.roll_back(Failure::Exited { exit, during, failing }, actions);
        }
        let was_told_to_go =
            matches!(gone.state, State::Draining | State::Emptying | State::Ending);
        match (&self.course, gone.state) {
            (Course::Launching(launched), state) if *launched == id => {
                if state == State::Ending {
                    // Its failure was told when it was killed.
                    self.relaunch(actions);
                } else {
                    let during = during_of(state);
                    let failing = gone.failing;
                    let failure = Failure::Exited { exit, during, failing };
                    self.on_start_failed(id, failure, actions);
                }
            }
            (Course::Takeover(takeover), _) => {
                let takeover = takeover.clone();
                if was_told_to_go {
                    actions.push(Action::Note(Note::Gone { generation: id, exit }));
                } else {
                    actions.push(Action::Note(Note::Crashed { generation: id, exit }));
                }
                self.on_takeover_exited(takeover, id, actions);
            }
            (Course::Steady, _) if served => {
                actions.push(Action::Note(Note::Crashed { generation: id, exit }));
                self.relaunch(actions);
            }
            _ => {
                actions.push(Action::Note(Note::Gone { generation: id, exit }));
                self.begin_pending(actions);
            }
        }
    }

    /// A generation that was starting failed in a way the process itself did not survive.
    pub(crate) fn on_start_failed(
        &mut self,
        id: GenerationId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        if self.is_standby(id) {
            return self.lose_standby(id, failure, actions);
        }
        match &self.course {
            Course::Takeover(_) if self.successor_during(id).is_some() => {
                self.roll_back(failure, actions);
            }
            Course::Takeover(takeover) => {
                let takeover = takeover.clone();
                actions.push(Action::Note(Note::NotServing { generation: id, failure }));
                self.on_takeover_exited(takeover, id, actions);
            }
            Course::Launching(launched) if *launched == id => {
                actions.push(Action::Note(Note::NotServing { generation: id, failure }));
                self.relaunch(actions);
            }
            _ => {}
        }
    }

    /// A starting or admitted generation is not what it should be: a takeover rolls back, a launch
    /// is repeated once it is gone.
    pub(crate) fn fail(
        &mut self,
        id: GenerationId,
        state: State,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        if self.state(id) != Some(state) {
            return;
        }
        if self.successor_during(id).is_some() {
            return self.roll_back(failure, actions);
        }
        if self.is_standby(id) {
            return self.fail_standby(id, failure, actions);
        }
        self.kill(id, actions);
        if self.course != Course::Leaving {
            actions.push(Action::Note(Note::NotServing { generation: id, failure }));
        }
    }
}
