//! Workers that die again and again: the next start waits longer and longer, and a program that never served well gives
//! way to the last one that did.
//!
//! ```text
//! A serves for 10 s: proven ── takeover to B, committed ── B dies young, 3 times in a row ──► A is started again
//!                                                           A dies young, too: it is proven, and stays
//! ```
//!
//! **Invariants**
//! - Only a takeover that was committed makes a program current, and only a crash loop takes that back.
//! - Nobody goes back from a program to itself, so two that both fail are not started in turns.

use std::collections::BTreeSet;

use handoff::message::GenerationId;

use crate::event::{Action, CRASH_LOOP, Note, ProgramId};
use crate::generation::{Course, Generations};

impl Generations {
    /// A generation has served, or stood by, for long enough to end a row of short lives.
    pub(crate) fn on_proven(&mut self, id: GenerationId) {
        if self.is_standby(id) {
            self.standby_failures = 0;
        } else if self.lease == Some(id) {
            self.short_lives = 0;
            if self.current != ProgramId::ATTACHED {
                self.proven = Some(self.current);
            }
        }
    }

    /// Goes back from a program in a crash loop to the one that served well before, if there is another.
    pub(crate) fn mind_crash_loop(&mut self, actions: &mut Vec<Action>) {
        let Some(proven) = self.proven.filter(|proven| *proven != self.current) else { return };
        if self.short_lives < CRASH_LOOP {
            return;
        }
        actions.push(Action::Note(Note::WentBack { from: self.current, to: proven }));
        self.current = proven;
        self.own = Some(proven);
        self.short_lives = 0;
        // It is of the program that fails.
        self.end_standby(actions);
    }

    /// Every program that runs, or that anything here may have started.
    pub(crate) fn programs(&self) -> BTreeSet<ProgramId> {
        // Field by field: a program that a new one names must not be forgotten (`Programs::keep_only`).
        let Self {
            living,
            current,
            own,
            attaching: _,
            course,
            pending,
            rules: _,
            next: _,
            lease: _,
            epoch: _,
            takeovers: _,
            short_lives: _,
            proven,
            hold: _,
            standby: _,
            standby_failures: _,
        } = self;
        let on_its_way = match course {
            Course::Takeover(takeover) => Some(takeover.program),
            Course::Steady
            | Course::Launching(_)
            | Course::Pausing
            | Course::Paused(_)
            | Course::Resuming(_)
            | Course::Leaving => None,
        };
        let living = living.values().map(|generation| generation.program);
        let lasting = living.chain([*current, ProgramId::ATTACHED]).chain(*own).chain(*proven);
        lasting.chain(on_its_way).chain(pending.flatten()).collect()
    }
}
