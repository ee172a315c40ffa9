//! What becomes of the workers that outlived their front: the decision of the next one, without a socket, a clock or a
//! task.
//!
//! ```text
//! who might accept                    what becomes of them
//! nobody                              an ordinary start; with stop-first once the last one is gone
//! one                                 it serves; one that had been told to stop is admitted again
//! two, the newer has the lease        it was committed: the newer serves, the other drains
//! two, connections can move           the takeover goes on where it stood: it switches, or soaks anew
//! two, they cannot                    it is called off: the older serves, the newer drains
//! ```
//!
//! A takeover goes on rather than back where it can: who drains towards a link gives its connections away, and nobody
//! notices; who drains without one has them told to come back. It can still be rolled back, by the same rules as ever.
//!
//! **Invariants**
//! - Numbers go on: no generation and no epoch is given twice.
//! - Whoever drains drains on, within what is left of its time.
//! - What holds of every state of the policy holds of each that comes out of here (`explored/`).

use std::time::Duration;

use handoff::message::{Drain, GenerationId, Newcomers};
use handoff::rescue::{Rescued, Standing};

use crate::event::{
    Action, DRAIN_GRACE, Deadline, EXIT_TIMEOUT, Note, Order, ProgramId, Rules, TakeoverNumber,
    TakeoverOrder,
};
use crate::generation::{Course, Generation, Generations, State, Stops};
use crate::takeover::{Step, Takeover};

/// Whether the workers that were found listen where they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sockets {
    AsWanted,
    /// Only a fresh worker can be given what is wanted, and lets go of what is not.
    Changed,
}

/// What was found of the workers of a front that died.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// What each says of itself.
    pub(crate) workers: Vec<Rescued>,
    /// Those of them whose sockets are not the ones that the front goes on with.
    pub(crate) astray: Vec<GenerationId>,
    /// Those of them that had attached themselves.
    pub(crate) attached: Vec<GenerationId>,
    /// The latest generation of which there is any trace.
    pub(crate) latest: Option<GenerationId>,
    pub(crate) sockets: Sockets,
}

impl Generations {
    /// Goes on with what was found.
    pub(crate) fn recover(rules: Rules, program: ProgramId, found: &Found) -> (Self, Vec<Action>) {
        let mut workers = found.workers.clone();
        workers.sort_by_key(|worker| worker.generation);
        let mut this = Self::new(rules, program);
        let latest = workers.iter().map(|worker| worker.generation).max().max(found.latest);
        this.next = latest.map_or(this.next, GenerationId::next);
        this.epoch = workers.iter().map(|worker| worker.latest_epoch).max().unwrap_or_default();
        for worker in &workers {
            let came = found.attached.contains(&worker.generation);
            let generation = Generation {
                state: State::Stopped,
                program: if came { ProgramId::ATTACHED } else { program },
                failing: Vec::new(),
                linked: true,
                heir: None,
                stops: if worker.stops_only_by_draining {
                    Stops::OnlyByDraining
                } else {
                    Stops::AtOnce
                },
            };
            this.living.insert(worker.generation, generation);
        }
        // Of two that think so, the one with the later grant has it.
        let holder = workers.iter().max_by_key(|worker| worker.lease);
        this.lease = holder.filter(|worker| worker.lease.is_some()).map(|w| w.generation);
        let mut actions = Vec::new();
        this.tell_heirs(&workers, &mut actions);
        this.decide(&workers, found, &mut actions);
        this.mind(&mut actions);
        (this, actions)
    }

    /// Who takes whose connections over; and who is gone of those that are awaited.
    fn tell_heirs(&mut self, workers: &[Rescued], actions: &mut Vec<Action>) {
        for worker in workers {
            let Some(incumbent) = worker.incumbent else { continue };
            match self.living.get_mut(&incumbent.generation) {
                Some(generation) => generation.heir = Some(worker.generation),
                // It had a rescue socket as well, and nobody is there: the front that died never told.
                None => actions.push(Action::Tell(
                    worker.generation,
                    Order::Reaped { generation: incumbent.generation },
                )),
            }
        }
    }

    fn decide(&mut self, workers: &[Rescued], found: &Found, actions: &mut Vec<Action>) {
        let mut able: Vec<&Rescued> = workers
            .iter()
            .filter(|worker| !worker.standing.is_draining())
            .filter(|worker| !found.astray.contains(&worker.generation))
            .collect();
        let newer = able.pop();
        let older = able.pop();
        let way = match (older, newer) {
            (_, None) => Way::Start,
            (None, Some(only)) => Way::Serve(only),
            (Some(_), Some(newer)) if self.lease == Some(newer.generation) => Way::Serve(newer),
            (Some(older), Some(newer)) if self.can_go_on(older, newer) => Way::GoOn(older, newer),
            (Some(older), Some(_)) => Way::Serve(older),
        };
        let kept: Vec<GenerationId> = match way {
            Way::Start => Vec::new(),
            Way::Serve(one) => vec![one.generation],
            Way::GoOn(older, newer) => vec![older.generation, newer.generation],
        };
        // Two are admitted or draining at most, with the one that is to be started.
        let mut room = 2_usize.saturating_sub(kept.len().max(1));
        for worker in workers.iter().rev().filter(|w| !kept.contains(&w.generation)) {
            let id = worker.generation;
            if room == 0 {
                self.dismiss(id, actions);
                continue;
            }
            room -= 1;
            match worker.standing {
                Standing::Draining(drain) => self.drains_on(id, drain, actions),
                Standing::Admitted | Standing::Stopped => {
                    self.drain(id, self.rules.drain_timeout, actions);
                }
            }
        }
        if self.lease.is_some_and(|holder| !kept.contains(&holder)) {
            self.lease = None;
        }
        match way {
            Way::Start => self.start_beside(actions),
            Way::Serve(one) => self.serve_on(one, found.sockets, actions),
            Way::GoOn(older, newer) => self.go_on(older, newer, found.sockets, actions),
        }
    }

    /// Whether a takeover from one to the other stands where it could be taken up again.
    fn can_go_on(&self, older: &Rescued, newer: &Rescued) -> bool {
        let linked = newer.incumbent.is_some_and(|i| i.linked && i.generation == older.generation);
        // A program of which there may be one only is no successor beside another.
        linked
            && newer.standing == Standing::Admitted
            && self.rules.order == TakeoverOrder::StartFirst
    }

    fn drains_on(&mut self, id: GenerationId, drain: Drain, actions: &mut Vec<Action>) {
        let left = Duration::from_millis(drain.timeout_ms) + DRAIN_GRACE;
        self.set_state(id, State::Draining);
        if drain.newcomers == Newcomers::Serve {
            self.set_state(id, State::Emptying);
        }
        actions.push(Action::SetDeadline(Deadline::Drained(id), left));
    }

    /// It is one too many.
    fn dismiss(&mut self, id: GenerationId, actions: &mut Vec<Action>) {
        self.set_state(id, State::Ending);
        actions.push(Action::Tell(id, Order::Drain(Drain::within(Duration::ZERO))));
        actions.push(Action::SetDeadline(Deadline::Exited(id), EXIT_TIMEOUT));
    }

    /// Nobody who was found can serve.
    fn start_beside(&mut self, actions: &mut Vec<Action>) {
        let last = self.living.iter().find(|(_, g)| g.state != State::Ending).map(|(id, _)| *id);
        let Some(incumbent) = last.filter(|_| self.rules.order == TakeoverOrder::StopFirst) else {
            return self.launch_current(actions);
        };
        // What a takeover does whose incumbent has to be gone first.
        if self.state(incumbent) == Some(State::Draining) {
            self.set_state(incumbent, State::Ending);
            actions.push(Action::ClearDeadline(Deadline::Drained(incumbent)));
            let limit = self.rules.drain_timeout + DRAIN_GRACE;
            actions.push(Action::SetDeadline(Deadline::Exited(incumbent), limit));
        }
        self.takeovers = TakeoverNumber(1);
        actions.push(Action::Note(Note::Began {
            takeover: self.takeovers,
            incumbent: Some(incumbent),
        }));
        self.course = Course::Takeover(Takeover {
            number: self.takeovers,
            program: self.current,
            incumbent: Some(incumbent),
            successor: None,
            step: Step::Emptying,
        });
    }

    fn serve_on(&mut self, one: &Rescued, sockets: Sockets, actions: &mut Vec<Action>) {
        let id = one.generation;
        self.current = self.living[&id].program;
        self.renew(sockets);
        match one.standing {
            Standing::Admitted => {
                self.set_state(id, State::Serving);
                actions.push(Action::Note(Note::Serving(id)));
                self.settle_on(id, actions);
            }
            Standing::Stopped | Standing::Draining(_) => {
                self.admit(id, actions);
                self.course = Course::Launching(id);
            }
        }
    }

    fn go_on(
        &mut self,
        older: &Rescued,
        newer: &Rescued,
        sockets: Sockets,
        actions: &mut Vec<Action>,
    ) {
        let (incumbent, successor) = (older.generation, newer.generation);
        self.current = self.living[&incumbent].program;
        self.renew(sockets);
        self.takeovers = TakeoverNumber(1);
        actions.push(Action::Note(Note::Began {
            takeover: self.takeovers,
            incumbent: Some(incumbent),
        }));
        self.set_state(successor, State::Serving);
        let step = match older.standing {
            Standing::Admitted => {
                self.tell_to_stop(incumbent, actions);
                Step::Switching
            }
            Standing::Stopped | Standing::Draining(_) => {
                actions.push(Action::Note(Note::Switched { successor }));
                actions.push(Action::SetDeadline(Deadline::Soaked, self.rules.soak));
                Step::Soaking
            }
        };
        self.course = Course::Takeover(Takeover {
            number: self.takeovers,
            program: self.living[&successor].program,
            incumbent: Some(incumbent),
            successor: Some(successor),
            step,
        });
    }

    fn renew(&mut self, sockets: Sockets) {
        // One that came by itself can only be replaced by another one.
        if sockets == Sockets::Changed && self.startable().is_some() {
            self.pending = Some(None);
        }
    }
}

/// Which way it goes on.
#[derive(Clone, Copy, Debug)]
enum Way<'a> {
    Start,
    Serve(&'a Rescued),
    GoOn(&'a Rescued, &'a Rescued),
}

#[cfg(test)]
mod tests;
