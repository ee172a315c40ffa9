//! The standby: a ready successor that waits, unadmitted, for the moment in which the one that serves crashes.
//!
//! ```text
//! somebody serves, nothing else lives ──► Starting ──Ready──► Standby ──the one that served is gone──► Admitting
//!         ▲                                  └───────┬───────────┘
//!         └── a pause that grows ◄── it fails ───────┤
//!                    a takeover begins, or the front stops: it is ended, for it is not fresh any more
//! ```
//!
//! It is started when a generation has settled and nobody drains: a start costs what a start costs, and a takeover
//! would have three processes share the machine.
//!
//! **Invariants**
//! - There is one at most, and only while one generation serves, or is paused.
//! - Whatever it does, the one that serves is not told of it.
//! - It holds no lease and no connection: it may be ended at any time.
//! - It is minded after everything that happens, as the hold is.

use handoff::message::GenerationId;
use serde::{Deserialize, Serialize};

use crate::event::{
    Action, Deadline, Failure, Granted, Note, ProgramId, SHORT_LIFE, WithStandby, respawn_pause,
};
use crate::generation::{Course, Generations, State};

/// Who stands by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Standby {
    /// Nobody.
    #[default]
    None,
    /// This generation, or it will as soon as it is ready.
    Kept(GenerationId),
    /// Nobody, and the next start waits.
    Pausing,
}

/// Whether somebody stood by when it was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    Somebody,
    Nobody,
}

impl Generations {
    pub(crate) fn is_standby(&self, id: GenerationId) -> bool {
        self.standby == Standby::Kept(id)
    }

    /// Starts one, or ends it, after something has happened.
    pub(crate) fn mind_standby(&mut self, actions: &mut Vec<Action>) {
        let may_stay =
            matches!(self.course, Course::Steady | Course::Paused(_) | Course::Resuming(_));
        if !may_stay {
            return self.end_standby(actions);
        }
        let is_wanted = self.rules.standby == WithStandby::Yes
            && self.course == Course::Steady
            && self.current != ProgramId::ATTACHED;
        let is_alone = self.living.len() == 1 && self.is_served();
        if is_wanted && is_alone && self.standby == Standby::None {
            let pause = respawn_pause(self.standby_failures.max(self.short_lives));
            if pause.is_zero() {
                return self.launch_standby(actions);
            }
            self.standby = Standby::Pausing;
            actions.push(Action::Note(Note::StandbyWaits(pause)));
            actions.push(Action::SetDeadline(Deadline::Standby, pause));
        }
    }

    /// The pause before the next one's start is over.
    pub(crate) fn on_standby_due(&mut self, actions: &mut Vec<Action>) {
        if self.standby == Standby::Pausing {
            self.launch_standby(actions);
        }
    }

    fn launch_standby(&mut self, actions: &mut Vec<Action>) {
        self.standby = Standby::Kept(self.launch(self.current, actions));
    }

    /// It is ready.
    pub(crate) fn stand_by(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.set_state(id, State::Standby);
        actions.push(Action::Note(Note::StandsBy(id)));
        actions.push(Action::SetDeadline(Deadline::Proven(id), SHORT_LIFE));
    }

    /// The one that served is gone: who stands by is to serve, or will as soon as it is ready.
    pub(crate) fn call_standby(&mut self, actions: &mut Vec<Action>) -> Called {
        let Standby::Kept(id) = self.standby else { return Called::Nobody };
        if !self.living.get(&id).is_some_and(|generation| generation.linked) {
            return Called::Nobody;
        }
        self.standby = Standby::None;
        self.course = Course::Launching(id);
        actions.push(Action::Note(Note::StandbyCalled(id)));
        if self.state(id) == Some(State::Standby) {
            actions.push(Action::ClearDeadline(Deadline::Proven(id)));
            self.admit(id, actions);
        }
        Called::Somebody
    }

    /// Nobody is to stand by any more.
    pub(crate) fn end_standby(&mut self, actions: &mut Vec<Action>) {
        match std::mem::take(&mut self.standby) {
            Standby::None => {}
            Standby::Pausing => actions.push(Action::ClearDeadline(Deadline::Standby)),
            Standby::Kept(id) => {
                actions.push(Action::Note(Note::StandbyEnded(id)));
                self.kill(id, actions);
            }
        }
    }

    /// It is gone, or going: the next one takes its place, after a pause that grows.
    pub(crate) fn lose_standby(
        &mut self,
        id: GenerationId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        self.standby = Standby::None;
        self.standby_failures = self.standby_failures.saturating_add(1);
        actions.push(Action::Note(Note::StandbyFailed { generation: id, failure }));
    }

    /// It is not what it should be.
    pub(crate) fn fail_standby(
        &mut self,
        id: GenerationId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        self.lose_standby(id, failure, actions);
        self.kill(id, actions);
    }

    /// A worker wants to be replaced by a fresh one: the one that serves is by a takeover, a standby at once.
    pub(crate) fn grant(&mut self, id: GenerationId) -> (Granted, Vec<Action>) {
        if self.is_standby(id) {
            let mut actions = Vec::new();
            self.end_standby(&mut actions);
            // One that wishes so at each start is started less and less often.
            self.standby_failures = self.standby_failures.saturating_add(1);
            self.mind(&mut actions);
            return (Granted::Standby, actions);
        }
        if self.course == Course::Paused(id) && self.startable().is_some() {
            self.pending.get_or_insert(None);
            return (Granted::OnceResumed, Vec::new());
        }
        if self.serving() != Some(id) {
            return (Granted::Nothing, Vec::new());
        }
        match self.request_takeover(None) {
            Ok((takeover, actions)) => (Granted::Takeover(takeover), actions),
            // It serves, so the front neither stops nor is paused.
            Err(_) => (Granted::Nothing, Vec::new()),
        }
    }
}
