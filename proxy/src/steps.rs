//! The single steps of which every course of the policy consists: each changes what a generation
//! is, and says what has to be done for that.

use std::time::Duration;

use handoff::message::{Drain, GenerationId, Newcomers};

use crate::attaching::Startable;
use crate::event::{
    Action, Attaching, DRAIN_GRACE, Deadline, During, EXIT_TIMEOUT, Note, Order, ProgramId,
    SHORT_LIFE, STEP_TIMEOUT, respawn_pause,
};
use crate::generation::{Course, Generation, Generations, State, Stops};
use crate::standby::Called;

impl Generations {
    pub(crate) fn state(&self, id: GenerationId) -> Option<State> {
        self.living.get(&id).map(|generation| generation.state)
    }

    /// Whether a generation has ever served without being watched.
    pub(crate) fn is_trusted(&self, id: GenerationId) -> bool {
        let starts =
            matches!(self.state(id), Some(State::Starting | State::Standby | State::Admitting));
        let goes_back = match &self.course {
            Course::Takeover(takeover) => takeover.incumbent == Some(id),
            Course::Resuming(resuming) => *resuming == id,
            _ => false,
        };
        (!starts || goes_back) && self.successor_during(id).is_none()
    }

    pub(crate) fn set_state(&mut self, id: GenerationId, state: State) {
        if let Some(generation) = self.living.get_mut(&id) {
            generation.state = state;
        }
    }

    pub(crate) fn serving(&self) -> Option<GenerationId> {
        self.living.iter().find(|(_, g)| g.state == State::Serving).map(|(id, _)| *id)
    }

    pub(crate) fn is_served(&self) -> bool {
        self.serving().is_some()
    }

    pub(crate) fn launch(&mut self, program: ProgramId, actions: &mut Vec<Action>) -> GenerationId {
        let id = self.next;
        self.next = id.next();
        let generation = Generation {
            state: State::Starting,
            program,
            failing: Vec::new(),
            linked: true,
            heir: None,
            stops: Stops::default(),
        };
        self.living.insert(id, generation);
        if program == ProgramId::ATTACHED && self.attaching == Attaching::Fresh {
            // It is who waited; whoever is next is said to be. Anybody else is not meant, and waits on.
            self.attaching = Attaching::Nobody;
        }
        actions.push(Action::Spawn { generation: id, program });
        actions.push(Action::SetDeadline(Deadline::Ready(id), self.rules.ready_timeout));
        id
    }

    pub(crate) fn launch_current(&mut self, actions: &mut Vec<Action>) {
        if self.replace_attached(actions) == Startable::Nothing {
            self.course = Course::Pausing;
            return;
        }
        let id = self.launch(self.current, actions);
        self.course = Course::Launching(id);
    }

    /// Nobody serves any more: a standby is to, or the current program is started again; at once, unless lives have been
    /// short. What an operator asked for never waits.
    pub(crate) fn relaunch(&mut self, actions: &mut Vec<Action>) {
        self.short_lives = self.short_lives.saturating_add(1);
        self.course = Course::Pausing;
        if self.pending.is_some() {
            return self.begin_pending(actions);
        }
        self.mind_crash_loop(actions);
        if self.call_standby(actions) == Called::Somebody {
            return;
        }
        if self.replace_attached(actions) == Startable::Nothing {
            return;
        }
        let pause = respawn_pause(self.short_lives);
        // Who comes by itself has waited already.
        if pause.is_zero() || self.current == ProgramId::ATTACHED {
            return self.launch_current(actions);
        }
        actions.push(Action::Note(Note::Pausing(pause)));
        actions.push(Action::SetDeadline(Deadline::Respawn, pause));
    }

    pub(crate) fn admit(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.set_state(id, State::Admitting);
        actions.push(Action::Tell(id, Order::Admit));
        actions.push(Action::SetDeadline(Deadline::Accepting(id), STEP_TIMEOUT));
    }

    pub(crate) fn tell_to_stop(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.set_state(id, State::Stopping);
        actions.push(Action::Tell(id, Order::StopAccepting));
        actions.push(Action::SetDeadline(Deadline::Stopped(id), STEP_TIMEOUT));
    }

    pub(crate) fn drain(&mut self, id: GenerationId, timeout: Duration, actions: &mut Vec<Action>) {
        self.set_state(id, State::Draining);
        actions.push(Action::ClearDeadline(Deadline::Proven(id)));
        actions.push(Action::Tell(id, Order::Drain(Drain::within(timeout))));
        actions.push(Action::SetDeadline(Deadline::Drained(id), timeout + DRAIN_GRACE));
    }

    pub(crate) fn empty(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.set_state(id, State::Emptying);
        actions.push(Action::ClearDeadline(Deadline::Proven(id)));
        let timeout = self.rules.drain_timeout;
        let drain = Drain { newcomers: Newcomers::Serve, ..Drain::within(timeout) };
        actions.push(Action::Tell(id, Order::Drain(drain)));
        actions.push(Action::SetDeadline(Deadline::Drained(id), timeout + DRAIN_GRACE));
        actions.push(Action::Note(Note::Emptying(id)));
    }

    /// The writer lease passes to `id`, under a new epoch.
    pub(crate) fn grant_lease(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.lease = Some(id);
        self.epoch += 1;
        actions.push(Action::Tell(id, Order::Lease { epoch: self.epoch }));
    }

    pub(crate) fn kill(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.clear_deadlines(id, actions);
        self.set_state(id, State::Ending);
        actions.push(Action::Kill(id));
        // SIGKILL can only be late; it is sent again until it is not.
        actions.push(Action::SetDeadline(Deadline::Exited(id), EXIT_TIMEOUT));
    }

    pub(crate) fn clear_deadlines(&self, id: GenerationId, actions: &mut Vec<Action>) {
        if self.living.contains_key(&id) {
            actions.extend(deadlines_of(id).map(Action::ClearDeadline));
        }
    }

    /// `id` serves, nothing else is going on.
    pub(crate) fn settle_on(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if self.lease != Some(id) {
            self.grant_lease(id, actions);
        }
        self.course = Course::Steady;
        actions.push(Action::SetDeadline(Deadline::Proven(id), SHORT_LIFE));
        self.begin_pending(actions);
    }
}

pub(crate) fn deadlines_of(id: GenerationId) -> impl Iterator<Item = Deadline> {
    [
        Deadline::Ready(id),
        Deadline::Accepting(id),
        Deadline::Stopped(id),
        Deadline::Drained(id),
        Deadline::Exited(id),
        Deadline::Proven(id),
    ]
    .into_iter()
}

pub(crate) const fn during_of(state: State) -> During {
    match state {
        State::Starting => During::Start,
        State::Admitting => During::Admission,
        State::Standby => During::Standby,
        _ => During::Service,
    }
}
