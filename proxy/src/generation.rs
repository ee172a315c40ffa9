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
//! Starting ──Ready──► Standby ──the one that serves is gone──► Admitting        (`--standby`)
//! ```
//!
//! Events come in, actions go out; `front.rs` performs them. The same machine goes on in
//! `takeover.rs` (an incumbent and a successor), `attaching.rs` (who comes by itself), `standby.rs` (who waits), `pause.rs` and `hold.rs` (nobody accepts),
//! `failing.rs` (what goes wrong), `crash_loop.rs` (again and again), `leaving.rs` (the front stops) and `steps.rs`
//! (what each of them is made of).
//!
//! **Invariants** (each explored in `explored/` over every reachable state × every event)
//! - At most one generation holds the writer lease.
//! - At most two are admitted or draining; a standby is neither, and is told nothing.
//! - Nothing is said to the incumbent of a `start-first` takeover before its successor accepts.
//! - Every wait on a process has its deadline set; a front with nothing to wait for has none.
//! - Unless the front is stopping, somebody serves, or is on the way to, or a pause is running, or only a worker that
//!   attaches itself can.

use std::collections::BTreeMap;
use std::time::Duration;

use handoff::message::{Drain, GenerationId, LONGEST_EXTENSION};
use serde::{Deserialize, Serialize};

use crate::event::{
    Action, Attaching, DRAIN_GRACE, Deadline, DrainDenied, During, EXIT_TIMEOUT, Event, Exit,
    Failure, Note, Order, ProgramId, Rules, TakeoverDenied, TakeoverNumber,
};
use crate::hold::Hold;
use crate::standby::Standby;
use crate::takeover::{Step, Takeover};

/// What one generation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum State {
    /// Its process runs and is not ready.
    Starting,
    /// It is ready, and waits in case the one that serves crashes.
    Standby,
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
            Self::Standby => "standby",
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
        !matches!(self, Self::Starting | Self::Standby | Self::Ending)
    }

    /// Whether it may be accepting.
    pub(crate) const fn may_accept(self) -> bool {
        matches!(self, Self::Admitting | Self::Serving | Self::Stopping | Self::Emptying)
    }
}

/// A generation whose process is not reaped yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) state: State,
    pub(crate) program: ProgramId,
    /// What it last said it fails at.
    pub(crate) failing: Vec<String>,
    /// Whether it can still be told anything.
    pub(crate) linked: bool,
    /// Who takes its connections over.
    pub(crate) heir: Option<GenerationId>,
    #[serde(default)]
    pub(crate) stops: Stops,
}

/// How a generation comes to accept no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Stops {
    /// As it is told to, and it may begin again.
    #[default]
    AtOnce,
    /// When it drains, and for good.
    OnlyByDraining,
}

/// What the front is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Course {
    /// One generation serves.
    Steady,
    /// Nobody serves; this generation will, as soon as it is ready.
    Launching(GenerationId),
    /// Nobody serves, and the next start waits.
    Pausing,
    /// A takeover is on its way.
    Takeover(Takeover),
    /// The operator wants that nobody accepts; this generation serves what it has open.
    Paused(GenerationId),
    /// It was told to accept again.
    Resuming(GenerationId),
    /// The front stops.
    Leaving,
}

/// Every living generation, and what is to become of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Generations {
    pub(crate) rules: Rules,
    pub(crate) living: BTreeMap<GenerationId, Generation>,
    pub(crate) next: GenerationId,
    /// The program of the last committed generation.
    pub(crate) current: ProgramId,
    /// The last one of those that the front can start itself; `None` in a state from before there were others.
    #[serde(default)]
    pub(crate) own: Option<ProgramId>,
    #[serde(default)]
    pub(crate) attaching: Attaching,
    pub(crate) course: Course,
    /// The takeover that begins when it can; `None` inside means the current program.
    pub(crate) pending: Option<Option<ProgramId>>,
    pub(crate) lease: Option<GenerationId>,
    pub(crate) epoch: u64,
    pub(crate) takeovers: TakeoverNumber,
    /// Starts in a row that ended before they had served for
    /// [`SHORT_LIFE`](crate::event::SHORT_LIFE).
    pub(crate) short_lives: u32,
    /// The last program that has served for so long.
    #[serde(default)]
    pub(crate) proven: Option<ProgramId>,
    pub(crate) hold: Hold,
    #[serde(default)]
    pub(crate) standby: Standby,
    /// Standbys in a row that failed before they had stood by for so long.
    #[serde(default)]
    pub(crate) standby_failures: u32,
}

impl Generations {
    /// A front that has not started anything.
    pub(crate) fn new(rules: Rules, program: ProgramId) -> Self {
        Self {
            rules,
            living: BTreeMap::new(),
            next: GenerationId::new(1),
            current: program,
            own: (program != ProgramId::ATTACHED).then_some(program),
            attaching: Attaching::Nobody,
            course: Course::Pausing,
            pending: None,
            lease: None,
            epoch: 0,
            takeovers: TakeoverNumber(0),
            short_lives: 0,
            proven: None,
            hold: Hold::None,
            standby: Standby::None,
            standby_failures: 0,
        }
    }

    /// Starts the first generation.
    pub(crate) fn start(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.launch_current(&mut actions);
        self.mind(&mut actions);
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
        if let Course::Paused(_) = self.course {
            return Err(TakeoverDenied::Paused);
        }
        let wanted = match (self.pending, program) {
            (Some(Some(pending)), Some(program)) if pending != program => {
                return Err(TakeoverDenied::AnotherProgramPending);
            }
            (Some(pending), program) => program.or(pending),
            (None, program) => program,
        };
        if wanted.is_none() && self.startable().is_none() {
            return Err(TakeoverDenied::OnlyAttached);
        }
        self.pending = Some(wanted);
        let mut actions = Vec::new();
        self.begin_pending(&mut actions);
        self.mind(&mut actions);
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
            Event::Extend(id, timeout) => self.on_extend(id, timeout, a),
            Event::Unfit(id, failure) => self.on_unfit(id, failure, a),
            Event::LinkEnded(id) => self.on_link_ended(id, a),
            Event::Exited { generation, exit } => self.on_exited(generation, exit, a),
            Event::Attaching(attaching) => self.attaching = attaching,
            Event::Passed(Deadline::Ready(id)) => self.on_not_ready(id, a),
            Event::Passed(Deadline::Accepting(id)) => {
                self.fail(id, State::Admitting, Failure::NotAccepting, a);
            }
            Event::Passed(Deadline::Drained(id)) => self.on_overran(id, a),
            Event::Passed(Deadline::Exited(id)) => self.on_not_exited(id, a),
            Event::Passed(Deadline::Soaked) => self.on_soaked(a),
            Event::Passed(Deadline::Held) => self.on_held_too_long(a),
            Event::Passed(Deadline::Proven(id)) => self.on_proven(id),
            Event::Passed(Deadline::Standby) => self.on_standby_due(a),
            Event::Passed(Deadline::Resume) => self.on_pause_over(a),
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
        self.mind(&mut actions);
        actions
    }

    /// What is looked at after everything that happens.
    pub(crate) fn mind(&mut self, actions: &mut Vec<Action>) {
        self.mind_pause(actions);
        self.mind_attaching(actions);
        self.mind_standby(actions);
        self.mind_hold(actions);
    }

    fn on_ready(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        if self.state(id) == Some(State::Starting) {
            actions.push(Action::ClearDeadline(Deadline::Ready(id)));
            if self.is_standby(id) {
                return self.stand_by(id, actions);
            }
            actions.push(Action::Note(Note::Ready(id)));
            self.introduce(id, actions);
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
            Course::Resuming(resuming) if *resuming == id => {
                actions.push(Action::Note(Note::Resumed(id)));
                self.settle_on(id, actions);
            }
            Course::Steady
            | Course::Launching(_)
            | Course::Pausing
            | Course::Paused(_)
            | Course::Resuming(_)
            | Course::Leaving => {}
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
        } else if self.course == Course::Paused(id) {
            actions.push(Action::Note(Note::Paused(id)));
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
                } else if self.is_standby(id) {
                    let (exit, during) = (Exit::Code(0), During::Standby);
                    let failing = self.living[&id].failing.clone();
                    self.lose_standby(id, Failure::Exited { exit, during, failing }, actions);
                } else if let Some(during) = self.successor_during(id) {
                    let failing = self.living[&id].failing.clone();
                    let failure = Failure::Exited { exit: Exit::Code(0), during, failing };
                    self.roll_back(failure, actions);
                }
            }
        }
    }

    fn on_extend(&self, id: GenerationId, timeout: Duration, actions: &mut Vec<Action>) {
        let timeout = timeout.min(LONGEST_EXTENSION);
        match self.state(id) {
            Some(State::Starting) => {
                actions.push(Action::ExtendDeadline(Deadline::Ready(id), timeout));
            }
            Some(State::Emptying | State::Draining) => {
                let timeout = timeout + DRAIN_GRACE;
                actions.push(Action::ExtendDeadline(Deadline::Drained(id), timeout));
            }
            _ => {}
        }
    }

    fn on_failing(&mut self, id: GenerationId, failing: Vec<String>, actions: &mut Vec<Action>) {
        let soaking = self.successor_during(id) == Some(During::Soak);
        if let Some(generation) = self.living.get_mut(&id) {
            generation.failing.clone_from(&failing);
            if failing.is_empty() {
                return;
            }
            if soaking {
                self.roll_back(Failure::Failing { failing }, actions);
            } else if self.state(id) == Some(State::Standby) {
                self.fail_standby(id, Failure::Failing { failing }, actions);
            }
        }
    }
}
