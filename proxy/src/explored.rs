//! Every reachable state of the policy × every event; `histories.rs` has random histories on top.
//!
//! Generation numbers, epochs and counters are renumbered before states are compared, so that the
//! space is finite; a process that is never reaped is followed only as far as [`MOST_LIVING`].

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use handoff::message::GenerationId;

use crate::event::{
    Action, Deadline, Event, Exit, Failure, Note, Order, ProgramId, Rules, TakeoverNumber,
    TakeoverOrder,
};
use crate::generation::{Course, Generations, State};
use crate::hold::Hold;
use crate::takeover::Step;

const MOST_LIVING: usize = 3;
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const SHORT: Duration = Duration::from_secs(1);

fn rules(order: TakeoverOrder) -> Rules {
    Rules {
        order,
        ready_timeout: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(30),
        soak: Duration::from_secs(1),
        hold_timeout: Duration::from_secs(60),
    }
}

/// What may happen, or be asked, at any time.
#[derive(Clone, Debug)]
pub(crate) enum Stimulus {
    Event(Event),
    Takeover(Option<ProgramId>),
    DrainNow(GenerationId),
    Stop,
    StopNow,
}

/// The policy together with the deadlines it has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) generations: Generations,
    pub(crate) deadlines: BTreeSet<Deadline>,
    pub(crate) listening: bool,
    turning_away: bool,
    pub(crate) left: bool,
}

impl World {
    pub(crate) fn new(order: TakeoverOrder) -> Self {
        let mut world = Self {
            generations: Generations::new(rules(order), ProgramId(0)),
            deadlines: BTreeSet::new(),
            listening: true,
            turning_away: false,
            left: false,
        };
        let actions = world.generations.start();
        world.perform(&actions);
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
            Stimulus::Stop => self.generations.stop(),
            Stimulus::StopNow => self.generations.stop_now(),
        };
        self.perform(&actions);
        actions
    }

    pub(crate) fn stimuli(&self) -> Vec<Stimulus> {
        let mut all = vec![
            Stimulus::Takeover(None),
            Stimulus::Takeover(Some(ProgramId(1))),
            Stimulus::Stop,
            Stimulus::StopNow,
        ];
        for id in self.generations.living.keys().copied() {
            all.push(Stimulus::DrainNow(id));
            let events = [
                Event::Ready(id),
                Event::Accepting(id),
                Event::Stopped(id),
                Event::Drained(id),
                Event::Failing(id, vec!["store".into()]),
                Event::Unfit(id, Failure::Refused { reason: String::new() }),
                Event::Extend(id, LONG),
                Event::LinkEnded(id),
                Event::Exited { generation: id, exit: Exit::Signal(9), lived: SHORT },
                Event::Exited { generation: id, exit: Exit::Code(0), lived: LONG },
            ];
            all.extend(events.map(Stimulus::Event));
            if self.generations.state(id) == Some(State::Starting) {
                let failure = Failure::NotStarted { reason: String::new() };
                all.push(Stimulus::Event(Event::Unfit(id, failure)));
            }
        }
        all.extend(self.deadlines.iter().map(|d| Stimulus::Event(Event::Passed(*d))));
        all
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
            generation.heir = generation.heir.filter(|heir| names.contains_key(heir)).map(rename);
        }
        g.next = GenerationId::new(names.len() as u64 + 1);
        g.lease = g.lease.map(rename);
        g.epoch = 0;
        g.takeovers = TakeoverNumber(0);
        g.short_lives = g.short_lives.min(2);
        match &mut g.course {
            Course::Launching(id) => *id = rename(*id),
            Course::Takeover(takeover) => {
                takeover.number = TakeoverNumber(0);
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
        let deadlines = self.deadlines.iter().map(|deadline| match *deadline {
            Deadline::Ready(id) => Deadline::Ready(rename(id)),
            Deadline::Accepting(id) => Deadline::Accepting(rename(id)),
            Deadline::Stopped(id) => Deadline::Stopped(rename(id)),
            Deadline::Drained(id) => Deadline::Drained(rename(id)),
            Deadline::Exited(id) => Deadline::Exited(rename(id)),
            other @ (Deadline::Soaked | Deadline::Respawn | Deadline::Held | Deadline::Stop) => {
                other
            }
        });
        Self { deadlines: deadlines.collect(), generations: g, ..*self }
    }

    pub(crate) fn assert_sound(&self) {
        let g = &self.generations;
        let admitted = g.living.values().filter(|g| g.state.is_admitted_or_draining()).count();
        assert!(admitted <= 2, "more than two admitted or draining");
        if let Some(holder) = g.lease {
            assert!(g.living.contains_key(&holder), "the lease is held by one that is gone");
            assert_ne!(g.state(holder), Some(State::Starting), "the lease is held too early");
        }
        self.assert_every_wait_has_its_deadline();
        assert_eq!(g.hold != Hold::None, g.holds(), "a hold that nobody minds");
        assert_eq!(g.hold == Hold::TurnedAway, self.turning_away);
        if g.course == Course::Leaving {
            assert!(self.left == g.living.is_empty());
        } else {
            assert!(self.listening, "the port was closed by a front that does not stop");
            assert!(!self.left);
            self.assert_somebody_serves_or_will();
        }
    }

    fn assert_every_wait_has_its_deadline(&self) {
        let g = &self.generations;
        let mut wanted = BTreeSet::new();
        for (id, generation) in &g.living {
            let deadline = match generation.state {
                State::Starting => Deadline::Ready(*id),
                State::Admitting => Deadline::Accepting(*id),
                State::Stopping => Deadline::Stopped(*id),
                State::Emptying | State::Draining => Deadline::Drained(*id),
                State::Ending => Deadline::Exited(*id),
                State::Serving | State::Stopped => {
                    if !generation.linked {
                        wanted.insert(Deadline::Exited(*id));
                    }
                    continue;
                }
            };
            wanted.insert(deadline);
            if !generation.linked && generation.state != State::Ending {
                wanted.insert(Deadline::Exited(*id));
            }
        }
        match &g.course {
            Course::Pausing => {
                wanted.insert(Deadline::Respawn);
            }
            Course::Takeover(takeover) if takeover.step == Step::Soaking => {
                wanted.insert(Deadline::Soaked);
            }
            Course::Leaving if !self.left && self.deadlines.contains(&Deadline::Stop) => {
                wanted.insert(Deadline::Stop);
            }
            _ => {}
        }
        if g.hold == Hold::Held {
            wanted.insert(Deadline::Held);
        }
        assert_eq!(self.deadlines, wanted, "deadlines set, and deadlines needed");
    }

    fn assert_somebody_serves_or_will(&self) {
        let g = &self.generations;
        let alive = |id: &Option<GenerationId>| id.and_then(|id| g.state(id));
        match &g.course {
            // A worker that leaves by its own decision is replaced once it is gone.
            Course::Steady => assert!(
                g.living.values().any(|g| matches!(g.state, State::Serving | State::Ending)),
                "steady, and nobody serves"
            ),
            Course::Launching(id) => assert!(g.living.contains_key(id), "launching nobody"),
            Course::Pausing => assert!(g.serving().is_none(), "pausing while somebody serves"),
            Course::Leaving => {}
            Course::Takeover(takeover) => match takeover.step {
                Step::Emptying => {
                    let state = alive(&takeover.incumbent);
                    assert!(matches!(state, Some(State::Emptying | State::Ending)), "{state:?}");
                }
                Step::Starting => assert_eq!(alive(&takeover.successor), Some(State::Starting)),
                Step::Admitting => assert_eq!(alive(&takeover.successor), Some(State::Admitting)),
                Step::Switching | Step::Soaking => {
                    assert_eq!(alive(&takeover.successor), Some(State::Serving));
                }
                Step::RollingBack(_) => assert!(alive(&takeover.incumbent).is_some()),
                Step::Clearing(_) => assert_eq!(alive(&takeover.successor), Some(State::Ending)),
                Step::Restoring(_) => assert!(alive(&takeover.successor).is_some()),
            },
        }
    }

    /// What must hold between a state, an event, and what comes of them.
    fn assert_consequent(&self, before: &Self, actions: &[Action]) {
        let (g, was) = (&self.generations, &before.generations);
        // Before its successor accepts, the incumbent of a start-first takeover hears nothing.
        if let (Course::Takeover(old), Course::Takeover(new)) = (&was.course, &g.course)
            && g.rules.order == TakeoverOrder::StartFirst
            && matches!(new.step, Step::Starting | Step::Admitting)
            && old.number == new.number
            && let Some(incumbent) = old.incumbent
        {
            // The end of a third one is news, and changes nothing for it.
            let news = |order: &Order| matches!(order, Order::Reaped { .. });
            let told = actions
                .iter()
                .any(|a| matches!(a, Action::Tell(id, order) if *id == incumbent && !news(order)));
            assert!(!told, "the incumbent was told something before its successor accepted");
        }
        // Only a generation that accepts is given the lease, under an epoch of its own.
        for action in actions {
            if let Action::Tell(id, Order::Lease { epoch }) = action {
                // It may be asked to leave again in the same breath, by a takeover that waited.
                let state = g.state(*id);
                assert!(matches!(state, Some(State::Serving | State::Emptying)), "{state:?}");
                assert!(*epoch > was.epoch);
            }
        }
        // After the commit nothing is rolled back.
        let committed = actions.iter().any(|a| matches!(a, Action::Note(Note::Committed { .. })));
        let rolled = actions.iter().any(|a| matches!(a, Action::Note(Note::RolledBack { .. })));
        assert!(!(committed && rolled));
    }
}

fn explore(order: TakeoverOrder) -> usize {
    let first = World::new(order);
    let mut seen = HashSet::from([first.canonical()]);
    let mut frontier = VecDeque::from([first.canonical()]);
    while let Some(world) = frontier.pop_front() {
        for stimulus in world.stimuli() {
            let mut next = world.clone();
            let actions = next.feel(stimulus.clone());
            let sound = std::panic::catch_unwind(|| {
                next.assert_sound();
                next.assert_consequent(&world, &actions);
            });
            if sound.is_err() {
                panic!("{world:#?}\n felt {stimulus:?}\n and became {next:#?}\n by {actions:#?}");
            }
            if next.generations.living.len() <= MOST_LIVING && !next.left {
                let canonical = next.canonical();
                if seen.insert(canonical.clone()) {
                    frontier.push_back(canonical);
                }
            }
        }
    }
    seen.len()
}

#[test]
fn every_state_answers_every_event_soundly_with_start_first() {
    let states = explore(TakeoverOrder::StartFirst);
    assert!(states > 1000, "only {states} states were reached");
}

#[test]
fn every_state_answers_every_event_soundly_with_stop_first() {
    let states = explore(TakeoverOrder::StopFirst);
    assert!(states > 1000, "only {states} states were reached");
}
