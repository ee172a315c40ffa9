//! Every reachable state of the policy × every event; `histories/` has random histories on top.
//!
//! | file | idea |
//! | --- | --- |
//! | `mod` | the policy with the deadlines it has asked for, and whatever may happen to it |
//! | `canonical` | which of its states are one and the same |
//! | `space` | all of them |

mod canonical;
mod space;

use std::collections::BTreeSet;
use std::time::Duration;

use handoff::message::GenerationId;

pub(crate) use self::space::explore;
use crate::event::{
    Action, Attaching, Deadline, Event, Exit, Failure, Order, ProgramId, Rules, TakeoverOrder,
    WithStandby,
};
use crate::generation::{Generations, State};
use crate::standby::Standby;

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const fn rules(order: TakeoverOrder, standby: WithStandby) -> Rules {
    Rules {
        order,
        ready_timeout: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(30),
        soak: Duration::from_secs(1),
        hold_timeout: Duration::from_secs(60),
        standby,
    }
}

/// What may happen, or be asked, at any time.
#[derive(Clone, Debug)]
pub(crate) enum Stimulus {
    Event(Event),
    Takeover(Option<ProgramId>),
    DrainNow(GenerationId),
    /// A worker wishes to be replaced.
    Grant(GenerationId),
    Pause,
    Resume,
    Stop,
    StopNow,
}

/// The policy together with the deadlines it has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) generations: Generations,
    pub(crate) deadlines: BTreeSet<Deadline>,
    pub(crate) listening: bool,
    pub(crate) turning_away: bool,
    pub(crate) left: bool,
    pub(crate) others: Others,
}

/// Who may come to serve besides the program that the front has begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Others {
    /// Another program, by a takeover that names it.
    Program,
    /// Whatever attaches itself.
    Attached,
    /// Either.
    Both,
}

impl World {
    /// A front that starts its workers itself.
    pub(crate) fn new(rules: Rules) -> Self {
        Self::beginning(rules, ProgramId(0), Others::Program)
    }

    /// A front that has begun with this program, or with none ([`ProgramId::ATTACHED`]).
    pub(crate) fn beginning(rules: Rules, program: ProgramId, others: Others) -> Self {
        let mut generations = Generations::new(rules, program);
        let actions = generations.start();
        Self { others, ..Self::of(generations, &actions) }
    }

    /// A policy that has just asked for this.
    pub(crate) fn of(generations: Generations, actions: &[Action]) -> Self {
        let mut world = Self {
            generations,
            deadlines: BTreeSet::new(),
            listening: true,
            turning_away: false,
            left: false,
            others: Others::Program,
        };
        world.perform(actions);
        world
    }

    fn perform(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::SetDeadline(deadline, _) => {
                    self.deadlines.insert(*deadline);
                }
                Action::ClearDeadline(deadline) => {
                    self.deadlines.remove(deadline);
                }
                Action::ExtendDeadline(deadline, _) => {
                    assert!(self.deadlines.contains(deadline), "{deadline:?} is not waited for");
                }
                Action::TurnAway => self.turning_away = true,
                Action::TurnNobodyAway => self.turning_away = false,
                Action::Tell(_, Order::Admit) => {
                    assert!(!self.turning_away, "admitted while newcomers are turned away");
                }
                Action::CloseListeners => self.listening = false,
                Action::Leave => self.left = true,
                _ => {}
            }
        }
    }

    pub(crate) fn feel(&mut self, stimulus: Stimulus) -> Vec<Action> {
        let actions = match stimulus {
            Stimulus::Event(event) => {
                if let Event::Passed(deadline) = &event {
                    self.deadlines.remove(deadline);
                }
                self.generations.on(event)
            }
            Stimulus::Takeover(program) => {
                self.generations.request_takeover(program).map_or_else(|_| vec![], |(_, a)| a)
            }
            Stimulus::DrainNow(id) => self.generations.drain_now(id).unwrap_or_default(),
            Stimulus::Grant(id) => self.generations.grant(id).1,
            Stimulus::Pause => self.generations.pause(LONG).unwrap_or_default(),
            Stimulus::Resume => self.generations.resume().unwrap_or_default(),
            Stimulus::Stop => self.generations.stop(),
            Stimulus::StopNow => self.generations.stop_now(),
        };
        self.perform(&actions);
        actions
    }

    /// Whatever may happen, but for who comes to the attach socket or leaves it.
    pub(crate) fn stimuli(&self) -> Vec<Stimulus> {
        let mut all = vec![
            Stimulus::Takeover(None),
            Stimulus::Takeover(Some(self.another_program())),
            Stimulus::Pause,
            Stimulus::Resume,
            Stimulus::Stop,
            Stimulus::StopNow,
        ];
        for id in self.generations.living.keys().copied() {
            all.push(Stimulus::DrainNow(id));
            all.push(Stimulus::Grant(id));
            let events = [
                Event::Ready(id),
                Event::Accepting(id),
                Event::Stopped(id),
                Event::Drained(id),
                Event::Failing(id, vec!["store".into()]),
                Event::Unfit(id, Failure::Refused { reason: String::new() }),
                Event::Extend(id, LONG),
                Event::LinkEnded(id),
                Event::Exited { generation: id, exit: Exit::Signal(9) },
            ];
            all.extend(events.map(Stimulus::Event));
            if self.generations.state(id) == Some(State::Starting) {
                let failure = Failure::NotStarted { reason: String::new() };
                all.push(Stimulus::Event(Event::Unfit(id, failure)));
            }
        }
        let passed = |deadline| Stimulus::Event(Event::Passed(deadline));
        all.extend(self.deadlines.iter().map(|deadline| passed(*deadline)));
        all.extend(self.proving().map(|id| passed(Deadline::Proven(id))));
        all
    }

    /// Who may wait at the attach socket.
    pub(crate) fn comers(&self) -> Vec<Attaching> {
        if self.others == Others::Program {
            return Vec::new();
        }
        let mut comers = vec![Attaching::Fresh];
        // One that returns has a number that none of the living has.
        let returning = GenerationId::new(0);
        if !self.generations.living.contains_key(&returning) {
            comers.push(Attaching::Returned(returning));
            comers.push(Attaching::Drains(returning, LONG));
        }
        comers
    }

    /// What a takeover may name.
    fn another_program(&self) -> ProgramId {
        match self.others {
            Others::Attached => ProgramId(0),
            Others::Program | Others::Both => {
                ProgramId(1_u32.saturating_sub(self.generations.current.0))
            }
        }
    }

    /// Who may be told any time that it has proved itself. Whether the deadline for that is still set is nothing to
    /// decide upon, and no part of a canonical world.
    fn proving(&self) -> impl Iterator<Item = GenerationId> {
        let g = &self.generations;
        let standby = match g.standby {
            Standby::Kept(id) if g.state(id) == Some(State::Standby) => Some(id),
            _ => None,
        };
        let holder = g.lease.filter(|id| g.state(*id) != Some(State::Ending));
        standby.into_iter().chain(holder)
    }
}
