//! Which generation may do what: the whole policy, without a socket, a clock or a task.
//!
//! ```text
//!            Ready            Accepting          (a takeover's successor accepts)
//! Starting ────────► Admitting ────────► Serving ─────────────► Stopping
//!                        ▲                  │ stop-first            │ Stopped
//!                        │ rolled back      ▼                       ▼
//!                        └───────────── Stopped ◄───────────────────┘
//!                        (Serving ──► Emptying) ──┐   │ committed
//!                                                 ▼   ▼
//!                                     Ending ◄── Draining
//! ```
//!
//! Events come in, actions go out; `front.rs` performs them. A takeover's own steps are in
//! `takeover.rs`, which is part of the same machine.
//!
//! **Invariants** (each explored in `explored.rs` over every reachable state × every event)
//! - At most one generation holds the writer lease.
//! - At most two are admitted or draining.
//! - Nothing is said to the incumbent of a `start-first` takeover before its successor accepts.
//! - Every wait on a process has its deadline set; a front with nothing to wait for has none.
//! - Unless the front is stopping, somebody serves, or is on the way to, or a pause is running.

use std::collections::BTreeMap;
use std::time::Duration;

use handoff::message::{Drain, GenerationId, Newcomers};

use crate::event::{
    Action, DRAIN_GRACE, Deadline, DrainDenied, During, EXIT_TIMEOUT, Event, Exit, Failure,
    LINK_GRACE, Note, Order, ProgramId, Rules, SHORT_LIFE, STEP_TIMEOUT, TakeoverDenied,
    TakeoverNumber, respawn_pause,
};
use crate::takeover::{Step, Takeover};

/// What one generation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Its process runs and is not ready.
    Starting,
    /// It was told to accept and has not confirmed.
    Admitting,
    /// It accepts.
    Serving,
    /// It was told to accept no more and has not confirmed.
    Stopping,
    /// It serves what is open, accepts nothing, and may be admitted again.
    Stopped,
    /// It finishes its work while it still accepts (`stop-first`).
    Emptying,
    /// It finishes its work and accepts nothing.
    Draining,
    /// It said goodbye or was killed; its process is not reaped yet.
    Ending,
}

impl State {
    /// The word for it in status, logs and metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Admitting => "admitting",
            Self::Serving => "serving",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Emptying => "emptying",
            Self::Draining => "draining",
            Self::Ending => "ending",
        }
    }

    /// Whether it may hold connections: at most two generations do.
    pub(crate) const fn is_admitted_or_draining(self) -> bool {
        !matches!(self, Self::Starting | Self::Ending)
    }

    /// Whether it may be accepting.
    const fn may_accept(self) -> bool {
        matches!(self, Self::Admitting | Self::Serving | Self::Stopping | Self::Emptying)
    }
}

/// A generation whose process is not reaped yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Generation {
    pub(crate) state: State,
    pub(crate) program: ProgramId,
    /// What it last said it fails at.
    pub(crate) failing: Vec<String>,
    /// Whether it can still be told anything.
    pub(crate) linked: bool,
}

/// What the front is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Course {
    /// One generation serves.
    Steady,
    /// Nobody serves; this generation will, as soon as it is ready.
    Launching(GenerationId),
    /// Nobody serves, and the next start waits.
    Pausing,
    /// A takeover is on its way.
    Takeover(Takeover),
    /// The front stops.
    Leaving,
}

/// Every living generation, and what is to become of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Generations {
    pub(crate) rules: Rules,
    pub(crate) living: BTreeMap<GenerationId, Generation>,
    pub(crate) next: GenerationId,
    /// The program of the last committed generation.
    pub(crate) current: ProgramId,
    pub(crate) course: Course,
    /// The takeover that begins when it can; `None` inside means the current program.
    pub(crate) pending: Option<Option<ProgramId>>,
    pub(crate) lease: Option<GenerationId>,
    pub(crate) epoch: u64,
    pub(crate) takeovers: TakeoverNumber,
    /// Starts in a row that ended before they had served for [`SHORT_LIFE`].
    pub(crate) short_lives: u32,
}

impl Generations {
    /// A front that has not started anything.
    pub(crate) const fn new(rules: Rules, program: ProgramId) -> Self {
        Self {
            rules,
            living: BTreeMap::new(),
            next: GenerationId::new(1),
            current: program,
            course: Course::Pausing,
            pending: None,
            lease: None,
            epoch: 0,
            takeovers: TakeoverNumber(0),
            short_lives: 0,
        }
    }

    /// Starts the first generation.
    pub(crate) fn start(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.launch_current(&mut actions);
        actions
    }

    /// Asks for a takeover, with another program or the current one. Asking again while one runs
    /// makes at most one more.
    pub(crate) fn request_takeover(
        &mut self,
        program: Option<ProgramId>,
    ) -> Result<(TakeoverNumber, Vec<Action>), TakeoverDenied> {
        if self.course == Course::Leaving {
            return Err(TakeoverDenied::Stopping);
        }
        let wanted = match (self.pending, program) {
            (Some(Some(pending)), Some(program)) if pending != program => {
                return Err(TakeoverDenied::AnotherProgramPending);
            }
            (Some(pending), program) => program.or(pending),
            (None, program) => program,
        };
        self.pending = Some(wanted);
        let mut actions = Vec::new();
        self.begin_pending(&mut actions);
        if self.pending.is_none() {
            return Ok((self.takeovers, actions));
        }
        let takeover = TakeoverNumber(self.takeovers.0 + 1);
        if let Some(draining) = self.holding_up() {
            actions.push(Action::Note(Note::Waits { takeover, draining }));
        }
        Ok((takeover, actions))
    }

    /// The generation whose drain the next takeover waits for.
    pub(crate) fn holding_up(&self) -> Option<GenerationId> {
        self.living.iter().find(|(_, g)| g.state == State::Draining).map(|(id, _)| *id)
    }

    /// Brings a drain's deadline to now.
    pub(crate) fn drain_now(&mut self, id: GenerationId) -> Result<Vec<Action>, DrainDenied> {
        match self.living.get(&id).map(|g| g.state) {
            None => Err(DrainDenied::Unknown { generation: id }),
            Some(State::Draining | State::Emptying) => {
                let drain = Drain::within(Duration::ZERO);
                Ok(vec![
                    Action::Tell(id, Order::Drain(drain)),
                    Action::SetDeadline(Deadline::Drained(id), DRAIN_GRACE),
                ])
            }
            Some(state) => Err(DrainDenied::NotDraining { generation: id, state: state.word() }),
        }
    }

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
        self.course = Course::Leaving;
        self.pending = None;
        for id in self.living.keys().copied().collect::<Vec<_>>() {
            match self.living[&id].state {
                State::Starting => self.kill(id, &mut actions),
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
        actions
    }

    /// Ends everything at once.
    pub(crate) fn stop_now(&mut self) -> Vec<Action> {
        let mut actions = vec![
            Action::ClearDeadline(Deadline::Respawn),
            Action::ClearDeadline(Deadline::Soaked),
            Action::ClearDeadline(Deadline::Stop),
        ];
        self.course = Course::Leaving;
        self.pending = None;
        for id in self.living.keys().copied().collect::<Vec<_>>() {
            self.kill(id, &mut actions);
        }
        self.advance_leaving(&mut actions);
        actions
    }

    /// The one place where what happens changes what is.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let a = &mut actions;
        match event {
            Event::Ready(id) => self.on_ready(id, a),
            Event::Accepting(id) => self.on_accepting(id, a),
            Event::Stopped(id) | Event::Passed(Deadline::Stopped(id)) => {
                // Without an answer the takeover goes forward all the same: the successor accepts, and a
                // worker that hangs accepts nothing.
                let unconfirmed = matches!(event, Event::Passed(_));
                self.on_stopped(id, unconfirmed, a);
            }
            Event::Drained(id) => self.on_drained(id, a),
            Event::Failing(id, failing) => self.on_failing(id, failing, a),
            Event::Unfit(id, failure) => self.on_unfit(id, failure, a),
            Event::LinkEnded(id) => self.on_link_ended(id, a),
            Event::Exited { generation, exit, lived } => self.on_exited(generation, exit, lived, a),
            Event::Passed(Deadline::Ready(id)) => self.on_not_ready(id, a),
            Event::Passed(Deadline::Accepting(id)) => {
                self.fail(id, State::Admitting, Failure::NotAccepting, a);
            }
            Event::Passed(Deadline::Drained(id)) => self.on_overran(id, a),
            Event::Passed(Deadline::Exited(id)) => self.on_not_exited(id, a),
            Event::Passed(Deadline::Soaked) => self.on_soaked(a),
            Event::Passed(Deadline::Respawn) => {
                if self.course == Course::Pausing {
                    self.launch_current(a);
                }
            }
            Event::Passed(Deadline::Stop) => {
                if self.course == Course::Leaving {
                    actions.extend(self.stop_now());
                }
            }
        }
        actions
    }

    fn on_ready(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if self.state(id) == Some(State::Starting) {
            actions.push(Action::ClearDeadline(Deadline::Ready(id)));
            actions.push(Action::Note(Note::Ready(id)));
            self.admit(id, actions);
            self.takeover_step(Step::Starting, Step::Admitting);
        }
    }

    fn on_accepting(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if self.state(id) != Some(State::Admitting) {
            return;
        }
        self.set_state(id, State::Serving);
        actions.push(Action::ClearDeadline(Deadline::Accepting(id)));
        actions.push(Action::RestoreBacklog);
        actions.push(Action::Note(Note::Accepting(id)));
        match &self.course {
            Course::Launching(launched) if *launched == id => {
                actions.push(Action::Note(Note::Serving(id)));
                self.settle_on(id, actions);
            }
            Course::Takeover(takeover) => {
                let takeover = takeover.clone();
                self.on_takeover_accepting(takeover, id, actions);
            }
            Course::Steady | Course::Launching(_) | Course::Pausing | Course::Leaving => {}
        }
    }

    fn on_stopped(&mut self, id: GenerationId, unconfirmed: bool, actions: &mut Vec<Action>) {
        if self.state(id) != Some(State::Stopping) {
            return;
        }
        self.set_state(id, State::Stopped);
        actions.push(Action::ClearDeadline(Deadline::Stopped(id)));
        if unconfirmed {
            actions.push(Action::Note(Note::Unconfirmed(id)));
        }
        if self.course == Course::Leaving {
            self.drain(id, self.last_drain(), actions);
            self.advance_leaving(actions);
        } else {
            self.on_switched(id, actions);
        }
    }

    fn on_drained(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        match self.state(id) {
            // Nothing to drain, or gone already.
            None | Some(State::Starting | State::Ending) => {}
            Some(_) => {
                self.clear_deadlines(id, actions);
                self.set_state(id, State::Ending);
                actions.push(Action::SetDeadline(Deadline::Exited(id), EXIT_TIMEOUT));
                if self.course == Course::Leaving {
                    self.advance_leaving(actions);
                } else if let Some(during) = self.successor_during(id) {
                    let failure = Failure::Exited { exit: Exit::Code(0), during };
                    self.roll_back(failure, actions);
                }
            }
        }
    }

    fn on_failing(&mut self, id: GenerationId, failing: Vec<String>, actions: &mut Vec<Action>) {
        let soaking = self.successor_during(id) == Some(During::Soak);
        if let Some(generation) = self.living.get_mut(&id) {
            generation.failing.clone_from(&failing);
            if soaking && !failing.is_empty() {
                self.roll_back(Failure::Failing { failing }, actions);
            }
        }
    }

    fn on_not_ready(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if let Some(generation) = self.living.get(&id) {
            let failing = generation.failing.clone();
            let failure = Failure::NotReady { limit: self.rules.ready_timeout, failing };
            self.fail(id, State::Starting, failure, actions);
        }
    }

    fn on_unfit(&mut self, id: GenerationId, failure: Failure, actions: &mut Vec<Action>) {
        if let Failure::NotStarted { .. } = failure {
            // There is no process whose exit would tell.
            self.clear_deadlines(id, actions);
            if self.living.remove(&id).is_some() {
                self.on_start_failed(id, failure, Duration::ZERO, actions);
            }
            return;
        }
        match self.state(id) {
            Some(state @ (State::Starting | State::Admitting)) => {
                self.fail(id, state, failure, actions);
            }
            Some(State::Serving) if self.successor_during(id).is_some() => {
                self.roll_back(failure, actions);
            }
            Some(_) => self.on_link_ended(id, actions),
            None => {}
        }
    }

    /// Usually the process is on its way out and its exit says more. One that stays can no longer
    /// be told anything, and is ended.
    fn on_link_ended(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if let Some(generation) = self.living.get_mut(&id)
            && generation.state != State::Ending
        {
            generation.linked = false;
            actions.push(Action::SetDeadline(Deadline::Exited(id), LINK_GRACE));
        }
    }

    /// A process that had every reason to be gone is still there.
    fn on_not_exited(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        let Some(state) = self.state(id) else { return };
        let during = self.successor_during(id).unwrap_or_else(|| during_of(state));
        match state {
            State::Starting | State::Admitting => {
                self.fail(id, state, Failure::LinkEnded { during }, actions);
            }
            State::Serving if self.successor_during(id).is_some() => {
                self.roll_back(Failure::LinkEnded { during }, actions);
            }
            _ => self.kill(id, actions),
        }
    }

    fn on_overran(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if let Some(State::Draining | State::Emptying) = self.state(id) {
            actions.push(Action::Note(Note::Overran(id)));
            self.kill(id, actions);
        }
    }

    fn on_exited(
        &mut self,
        id: GenerationId,
        exit: Exit,
        lived: Duration,
        actions: &mut Vec<Action>,
    ) {
        // Asked while it is still among the living.
        let successor_during = self.successor_during(id);
        let Some(gone) = self.living.remove(&id) else { return };
        for deadline in deadlines_of(id) {
            actions.push(Action::ClearDeadline(deadline));
        }
        if self.lease == Some(id) {
            self.lease = None;
        }
        if self.course == Course::Leaving {
            actions.push(Action::Note(Note::Gone { generation: id, exit }));
            return self.advance_leaving(actions);
        }
        if let Some(during) = successor_during
            && gone.state != State::Ending
        {
            return self.roll_back(Failure::Exited { exit, during }, actions);
        }
        let was_told_to_go =
            matches!(gone.state, State::Draining | State::Emptying | State::Ending);
        match (&self.course, gone.state) {
            (Course::Launching(launched), state) if *launched == id => {
                if state == State::Ending {
                    // Its failure was told when it was killed.
                    self.relaunch(lived, actions);
                } else {
                    let during = during_of(state);
                    self.on_start_failed(id, Failure::Exited { exit, during }, lived, actions);
                }
            }
            (Course::Takeover(takeover), _) => {
                let takeover = takeover.clone();
                if was_told_to_go {
                    actions.push(Action::Note(Note::Gone { generation: id, exit }));
                } else {
                    actions.push(Action::Note(Note::Crashed { generation: id, exit }));
                }
                self.on_takeover_exited(takeover, id, lived, actions);
            }
            (Course::Steady, _) if !self.is_served() => {
                actions.push(Action::Note(Note::Crashed { generation: id, exit }));
                self.relaunch(lived, actions);
            }
            _ => {
                actions.push(Action::Note(Note::Gone { generation: id, exit }));
                self.begin_pending(actions);
            }
        }
    }

    /// A generation that was starting failed in a way the process itself did not survive.
    fn on_start_failed(
        &mut self,
        id: GenerationId,
        failure: Failure,
        lived: Duration,
        actions: &mut Vec<Action>,
    ) {
        match &self.course {
            Course::Takeover(_) if self.successor_during(id).is_some() => {
                self.roll_back(failure, actions);
            }
            Course::Takeover(takeover) => {
                let takeover = takeover.clone();
                actions.push(Action::Note(Note::NotServing { generation: id, failure }));
                self.on_takeover_exited(takeover, id, lived, actions);
            }
            Course::Launching(launched) if *launched == id => {
                actions.push(Action::Note(Note::NotServing { generation: id, failure }));
                self.relaunch(lived, actions);
            }
            _ => {}
        }
    }

    /// A starting or admitted generation is not what it should be: a takeover rolls back, a launch
    /// is repeated once it is gone.
    fn fail(
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
        self.kill(id, actions);
        if self.course != Course::Leaving {
            actions.push(Action::Note(Note::NotServing { generation: id, failure }));
        }
    }

    /// The pieces every course is made of.
    pub(crate) fn state(&self, id: GenerationId) -> Option<State> {
        self.living.get(&id).map(|generation| generation.state)
    }

    pub(crate) fn set_state(&mut self, id: GenerationId, state: State) {
        if let Some(generation) = self.living.get_mut(&id) {
            generation.state = state;
        }
    }

    pub(crate) fn serving(&self) -> Option<GenerationId> {
        self.living.iter().find(|(_, g)| g.state == State::Serving).map(|(id, _)| *id)
    }

    fn is_served(&self) -> bool {
        self.serving().is_some()
    }

    pub(crate) fn launch(&mut self, program: ProgramId, actions: &mut Vec<Action>) -> GenerationId {
        let id = self.next;
        self.next = id.next();
        let generation =
            Generation { state: State::Starting, program, failing: Vec::new(), linked: true };
        self.living.insert(id, generation);
        actions.push(Action::Spawn { generation: id, program });
        actions.push(Action::SetDeadline(Deadline::Ready(id), self.rules.ready_timeout));
        actions.push(Action::Note(Note::Started(id)));
        id
    }

    fn launch_current(&mut self, actions: &mut Vec<Action>) {
        let id = self.launch(self.current, actions);
        self.course = Course::Launching(id);
    }

    /// Starts the current program again after a generation that lived this long: at once, unless
    /// lives have been short. What an operator asked for never waits.
    pub(crate) fn relaunch(&mut self, lived: Duration, actions: &mut Vec<Action>) {
        self.short_lives = if lived < SHORT_LIFE { self.short_lives.saturating_add(1) } else { 1 };
        self.course = Course::Pausing;
        if self.pending.is_some() {
            return self.begin_pending(actions);
        }
        let pause = respawn_pause(self.short_lives);
        if pause.is_zero() {
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
        actions.push(Action::Tell(id, Order::Drain(Drain::within(timeout))));
        actions.push(Action::SetDeadline(Deadline::Drained(id), timeout + DRAIN_GRACE));
    }

    pub(crate) fn empty(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.set_state(id, State::Emptying);
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

    fn clear_deadlines(&self, id: GenerationId, actions: &mut Vec<Action>) {
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
        self.begin_pending(actions);
    }

    /// The drain a stopping front allows: what is left after it is spent on ending the processes.
    fn last_drain(&self) -> Duration {
        let timeout = self.rules.stop_timeout;
        timeout.saturating_sub((timeout / 10).min(Duration::from_millis(500)))
    }

    fn advance_leaving(&self, actions: &mut Vec<Action>) {
        if !self.living.values().any(|g| g.state.may_accept()) {
            actions.push(Action::CloseListeners);
        }
        if self.living.is_empty() {
            actions.push(Action::ClearDeadline(Deadline::Stop));
            actions.push(Action::Leave);
        }
    }
}

fn deadlines_of(id: GenerationId) -> impl Iterator<Item = Deadline> {
    [
        Deadline::Ready(id),
        Deadline::Accepting(id),
        Deadline::Stopped(id),
        Deadline::Drained(id),
        Deadline::Exited(id),
    ]
    .into_iter()
}

pub(crate) const fn during_of(state: State) -> During {
    match state {
        State::Starting => During::Start,
        State::Admitting => During::Admission,
        _ => During::Service,
    }
}
