//! Which states of the policy are one and the same, so that there is an end of them.
//!
//! **Invariants**
//! - Two states with the same canonical one cannot be told apart by anything that may happen to them.

use handoff::message::GenerationId;

use super::{Others, World};
use crate::event::{Attaching, CRASH_LOOP, Deadline, Failure, ProgramId, TakeoverNumber};
use crate::generation::{Course, State};
use crate::standby::Standby;
use crate::takeover::Step;

impl World {
    /// The same world with everything that only grows counted from the start, and nobody at the attach socket.
    pub(super) fn canonical(&self) -> Self {
        let ids: Vec<GenerationId> = self.generations.living.keys().copied().collect();
        // One that is gone keeps no name: nothing may depend on it.
        let rename = |id: GenerationId| {
            let at = ids.iter().position(|living| *living == id);
            GenerationId::new(at.map_or(0, |at| at as u64 + 1))
        };
        let mut g = self.generations.clone();
        // Whoever waits may leave, and whoever may come has come: `space.rs` tries all of them.
        g.attaching = Attaching::Nobody;
        g.living = g.living.into_iter().map(|(id, g)| (rename(id), g)).collect();
        for generation in g.living.values_mut() {
            // Only shown, never decided upon.
            generation.program = ProgramId(0);
            generation.failing.clear();
            // One that is going is told nothing any more.
            generation.linked |= generation.state == State::Ending;
            generation.heir = generation.heir.filter(|heir| ids.contains(heir)).map(rename);
        }
        g.next = GenerationId::new(ids.len() as u64 + 1);
        g.lease = g.lease.map(rename);
        g.epoch = 0;
        g.takeovers = TakeoverNumber(0);
        // From the second on there is a pause before the next start, and from the third on a way back, if there is one.
        let most = if g.proven.is_some_and(|p| p != g.current) { CRASH_LOOP } else { 2 };
        g.short_lives = g.short_lives.min(most);
        g.standby_failures = g.standby_failures.min(2);
        if g.course == Course::Leaving {
            // Nothing is started any more.
            (g.short_lives, g.standby_failures, g.proven) = (0, 0, None);
        }
        if let Standby::Kept(id) = &mut g.standby {
            *id = rename(*id);
        }
        // Of two programs of the front's own nothing depends on which is which.
        let first = if g.current == ProgramId::ATTACHED { g.own } else { Some(g.current) };
        let renamed = |program: ProgramId| match program {
            ProgramId::ATTACHED => program,
            program if self.others == Others::Attached => program,
            program => ProgramId(u32::from(Some(program) != first)),
        };
        g.own = g.own.map(renamed);
        g.current = renamed(g.current);
        g.proven = g.proven.map(renamed);
        g.pending = g.pending.map(|program| program.map(renamed));
        if self.others == Others::Attached && g.own.is_some() {
            // There is only one that can be meant.
            g.pending = g.pending.map(|program| program.or(g.own));
        }
        match &mut g.course {
            Course::Launching(id) | Course::Paused(id) | Course::Resuming(id) => *id = rename(*id),
            Course::Takeover(takeover) => {
                takeover.number = TakeoverNumber(0);
                takeover.program = renamed(takeover.program);
                takeover.incumbent = takeover.incumbent.map(rename);
                takeover.successor = takeover.successor.map(rename);
                if let Step::RollingBack(failure)
                | Step::Clearing(failure)
                | Step::Restoring(failure) = &mut takeover.step
                {
                    *failure = Failure::NotAccepting;
                }
            }
            Course::Steady | Course::Pausing | Course::Leaving => {}
        }
        let lasting = |d: &&Deadline| !matches!(d, Deadline::Proven(_));
        let deadlines = self.deadlines.iter().filter(lasting).map(|deadline| match *deadline {
            Deadline::Ready(id) => Deadline::Ready(rename(id)),
            Deadline::Accepting(id) => Deadline::Accepting(rename(id)),
            Deadline::Stopped(id) => Deadline::Stopped(rename(id)),
            Deadline::Drained(id) => Deadline::Drained(rename(id)),
            Deadline::Exited(id) => Deadline::Exited(rename(id)),
            Deadline::Proven(id) => Deadline::Proven(rename(id)),
            other @ (Deadline::Soaked
            | Deadline::Respawn
            | Deadline::Standby
            | Deadline::Resume
            | Deadline::Held
            | Deadline::Stop) => other,
        });
        Self { deadlines: deadlines.collect(), generations: g, ..*self }
    }
}
