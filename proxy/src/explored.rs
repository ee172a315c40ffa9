//! Every reachable state of the policy × every event; `histories.rs` has random histories on top.
//!
//! Generation numbers, epochs and counters are renumbered before states are compared, so that the
//! space is finite; a process that is never reaped is followed only as far as [`MOST_LIVING`].

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use handoff::message::GenerationId;

use crate::event::{
    Action, Attaching, CRASH_LOOP, Deadline, Event, Exit, Failure, Order, ProgramId, Rules,
    TakeoverNumber, TakeoverOrder, WithStandby,
};
use crate::generation::{Course, Generations, State};
use crate::standby::Standby;
use crate::takeover::Step;

const MOST_LIVING: usize = 3;
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
    pub(crate) attach: Attach,
}

/// Whether workers may come by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Attach {
    No,
    Yes,
}

impl World {
    pub(crate) fn new(rules: Rules) -> Self {
        let mut generations = Generations::new(rules, ProgramId(0));
        let actions = generations.start();
        Self::of(generations, &actions)
    }

    /// A policy that has just asked for this.
    pub(crate) fn of(generations: Generations, actions: &[Action]) -> Self {
        let mut world = Self {
            generations,
            deadlines: BTreeSet::new(),
            listening: true,
            turning_away: false,
            left: false,
            attach: Attach::No,
        };
        world.perform(actions);
        world
    }

    /// One to which workers come by themselves, besides those of this program, or only they.
    pub(crate) fn attached(rules: Rules, program: ProgramId) -> Self {
        let mut generations = Generations::new(rules, program);
        let actions = generations.start();
        Self { attach: Attach::Yes, ..Self::of(generations, &actions) }
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

    pub(crate) fn stimuli(&self) -> Vec<Stimulus> {
        let mut all = vec![
            Stimulus::Takeover(None),
            Stimulus::Takeover(Some(other_than(self.generations.current))),
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
        if self.attach == Attach::Yes {
            // One that returns has a number that none of the living has.
            let returning = GenerationId::new(0);
            let mut waiting = vec![Attaching::Nobody, Attaching::Fresh];
            if !self.generations.living.contains_key(&returning) {
                waiting.push(Attaching::Returned(returning));
                waiting.push(Attaching::Drains(returning, LONG));
            }
            let changed = |waits: &Attaching| *waits != self.generations.attaching;
            let waiting = waiting.into_iter().filter(changed);
            all.extend(waiting.map(|waits| Stimulus::Event(Event::Attaching(waits))));
        }
        let passed = |deadline| Stimulus::Event(Event::Passed(deadline));
        all.extend(self.deadlines.iter().map(|deadline| passed(*deadline)));
        all.extend(self.proving().map(|id| passed(Deadline::Proven(id))));
        all
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

    /// The same world with everything that only grows counted from the start.
    fn canonical(&self) -> Self {
        let names: BTreeMap<GenerationId, GenerationId> = self
            .generations
            .living
            .keys()
            .zip(1..)
            .map(|(id, number)| (*id, GenerationId::new(number)))
            .collect();
        // One that is gone keeps no name: nothing may depend on it.
        let rename = |id: GenerationId| names.get(&id).copied().unwrap_or(GenerationId::new(0));
        let mut g = self.generations.clone();
        g.living = g.living.into_iter().map(|(id, g)| (rename(id), g)).collect();
        for generation in g.living.values_mut() {
            // Only shown, never decided upon.
            generation.program = ProgramId(0);
            generation.failing.clear();
            // One that is going is told nothing any more.
            generation.linked |= generation.state == State::Ending;
            generation.heir = generation.heir.filter(|heir| names.contains_key(heir)).map(rename);
        }
        g.next = GenerationId::new(names.len() as u64 + 1);
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
        // There are two programs, and nothing depends on which is which.
        let first = if g.current == ProgramId::ATTACHED { g.own } else { Some(g.current) };
        let renamed = |program: ProgramId| match program {
            ProgramId::ATTACHED => program,
            program => ProgramId(u32::from(Some(program) != first)),
        };
        g.own = g.own.map(renamed);
        g.current = renamed(g.current);
        g.proven = g.proven.map(renamed);
        g.pending = g.pending.map(|program| program.map(renamed));
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

/// The other one of two programs.
const fn other_than(program: ProgramId) -> ProgramId {
    ProgramId(1_u32.saturating_sub(program.0))
}

/// Everything that can come of these within so many steps; how many states there are.
pub(crate) fn explore(first: impl IntoIterator<Item = World>, steps: usize) -> usize {
    let mut seen: HashSet<World> = first.into_iter().map(|world| world.canonical()).collect();
    let mut frontier: VecDeque<(World, usize)> = seen.iter().map(|w| (w.clone(), 0)).collect();
    while let Some((world, step)) = frontier.pop_front() {
        if step == steps {
            continue;
        }
        for stimulus in world.stimuli() {
            let mut next = world.clone();
            let actions = next.feel(stimulus.clone());
            if actions.is_empty() && next == world {
                continue;
            }
            let sound = std::panic::catch_unwind(|| {
                next.assert_sound();
                next.assert_consequent(&world, &stimulus, &actions);
            });
            if sound.is_err() {
                panic!("{world:#?}\n felt {stimulus:?}\n and became {next:#?}\n by {actions:#?}");
            }
            if next.generations.living.len() <= MOST_LIVING && !next.left {
                let canonical = next.canonical();
                if seen.insert(canonical.clone()) {
                    frontier.push_back((canonical, step + 1));
                }
            }
        }
    }
    seen.len()
}

fn explore_all(order: TakeoverOrder, standby: WithStandby) -> usize {
    explore([World::new(rules(order, standby))], usize::MAX)
}

#[test]
fn every_state_answers_every_event_soundly_with_start_first() {
    let states = explore_all(TakeoverOrder::StartFirst, WithStandby::No);
    assert!(states > 1000, "only {states} states were reached");
}

#[test]
fn every_state_answers_every_event_soundly_with_stop_first() {
    let states = explore_all(TakeoverOrder::StopFirst, WithStandby::No);
    assert!(states > 1000, "only {states} states were reached");
}

#[test]
fn every_state_answers_every_event_soundly_when_workers_come_by_themselves() {
    for order in [TakeoverOrder::StartFirst, TakeoverOrder::StopFirst] {
        let only = World::attached(rules(order, WithStandby::No), ProgramId::ATTACHED);
        let besides = World::attached(rules(order, WithStandby::No), ProgramId(0));
        for world in [only, besides] {
            // So many things may happen that only so many of them are followed.
            let states = explore([world], 6);
            assert!(states > 500, "only {states} states were reached");
        }
    }
}

#[test]
fn every_state_answers_every_event_soundly_with_a_standby() {
    let states = explore_all(TakeoverOrder::StartFirst, WithStandby::Yes);
    assert!(states > 1000, "only {states} states were reached");
}
