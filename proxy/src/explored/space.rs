//! All states of the policy that can be reached, and what comes of everything that may happen in each of them.
//!
//! A process that is never reaped is followed only as far as [`MOST_LIVING`]. Who waits at the attach socket is no part
//! of a state here: they come and leave as they like, so where nothing comes of it any of them may be there.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Others, Stimulus, World, rules};
use crate::event::{Action, Attaching, Event, Note, ProgramId, TakeoverOrder, WithStandby};
use crate::generation::Course;

const MOST_LIVING: usize = 3;

/// Everything that can come of these within so many steps; how many states there are.
pub(crate) fn explore(first: impl IntoIterator<Item = World>, steps: usize) -> usize {
    let mut space = Space { seen: HashSet::default(), frontier: VecDeque::new() };
    for world in first {
        space.reach(&world, 0);
    }
    while let Some((world, step)) = space.frontier.pop_front() {
        if step < steps {
            space.follow(&world, step + 1);
        }
    }
    space.seen.len()
}

/// What was reached, and what of it is still to be followed.
struct Space {
    seen: HashSet<World, BuildHasherDefault<Quick>>,
    frontier: VecDeque<(World, usize)>,
}

/// What came of something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing, whoever waits.
    Nothing,
    /// Something, whoever waits.
    Whatever,
    /// Something else may come of it when another one waits.
    Depends,
}

impl Space {
    /// Everything that may happen next.
    fn follow(&mut self, world: &World, step: usize) {
        let mut with_others = Vec::new();
        for comer in world.comers() {
            let comes = Stimulus::Event(Event::Attaching(comer));
            let mut with = world.clone();
            if with.feel(comes.clone()).is_empty() {
                assert_eq!(world, &Self::without_comer(&with), "{comer:?} came, and said nothing");
                with_others.push(with);
            } else {
                self.happen(world, &mut world.clone(), &comes, step);
            }
        }
        let mut next = world.clone();
        for stimulus in world.stimuli() {
            match self.happen(world, &mut next, &stimulus, step) {
                Outcome::Nothing => continue,
                Outcome::Whatever => {}
                Outcome::Depends => {
                    for with in &with_others {
                        self.happen(with, &mut with.clone(), &stimulus, step);
                    }
                }
            }
            next.clone_from(world);
        }
    }

    fn without_comer(world: &World) -> World {
        let mut without = world.clone();
        without.generations.attaching = Attaching::Nobody;
        without
    }

    /// `next` is the same world, and becomes what comes of it.
    fn happen(
        &mut self,
        world: &World,
        next: &mut World,
        stimulus: &Stimulus,
        step: usize,
    ) -> Outcome {
        let actions = next.feel(stimulus.clone());
        if actions.is_empty() && next == world {
            return Outcome::Nothing;
        }
        let sound = catch_unwind(AssertUnwindSafe(|| {
            next.assert_consequent(world, stimulus, &actions);
            next.assert_waiting_is_minded();
            self.reach(next, step);
        }));
        if sound.is_err() {
            panic!("{world:#?}\n felt {stimulus:?}\n and became {next:#?}\n by {actions:#?}");
        }
        // Nobody else looks at who waits (`attaching.rs`).
        let may_take = matches!(next.generations.course, Course::Steady | Course::Pausing);
        let missed = |a: &Action| matches!(a, Action::Note(Note::StartsOwn | Note::AwaitsWorker));
        if may_take || actions.iter().any(missed) { Outcome::Depends } else { Outcome::Whatever }
    }

    fn reach(&mut self, world: &World, step: usize) {
        if world.left || world.generations.living.len() > MOST_LIVING {
            return world.assert_sound();
        }
        let canonical = world.canonical();
        if !self.seen.contains(&canonical) {
            world.assert_sound();
            self.seen.insert(canonical.clone());
            self.frontier.push_back((canonical, step));
        }
    }
}

/// Nobody chooses states so that they collide, and unoptimized the usual hash takes a third of the time.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // The multiplier is that of PCG, the rotation brings its upper bits down.
        self.0 = (self.0 ^ word).wrapping_mul(0x5851_F42D_4C95_7F2D).rotate_left(23);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn all_of(order: TakeoverOrder, standby: WithStandby) -> usize {
    explore([World::new(rules(order, standby))], usize::MAX)
}

/// With one program of the front's own and without: with a second one, which `histories/` has, there are twice as many.
fn all_with_attached(order: TakeoverOrder) -> usize {
    let beginning =
        |program| World::beginning(rules(order, WithStandby::No), program, Others::Attached);
    explore([beginning(ProgramId(0)), beginning(ProgramId::ATTACHED)], usize::MAX)
}

#[test]
fn every_state_answers_every_event_soundly_with_start_first() {
    let states = all_of(TakeoverOrder::StartFirst, WithStandby::No);
    assert!(states > 10_000, "only {states} states were reached");
}

#[test]
fn every_state_answers_every_event_soundly_with_stop_first() {
    let states = all_of(TakeoverOrder::StopFirst, WithStandby::No);
    assert!(states > 1_000, "only {states} states were reached");
}

#[test]
fn every_state_answers_every_event_soundly_with_a_standby() {
    let states = all_of(TakeoverOrder::StartFirst, WithStandby::Yes);
    assert!(states > 10_000, "only {states} states were reached");
}

#[test]
fn every_state_answers_every_event_soundly_with_attached_workers_and_start_first() {
    let states = all_with_attached(TakeoverOrder::StartFirst);
    assert!(states > 10_000, "only {states} states were reached");
}

#[test]
fn every_state_answers_every_event_soundly_with_attached_workers_and_stop_first() {
    let states = all_with_attached(TakeoverOrder::StopFirst);
    assert!(states > 5_000, "only {states} states were reached");
}

#[test]
fn every_state_answers_every_event_soundly_with_attached_workers_and_a_standby() {
    let rules = rules(TakeoverOrder::StartFirst, WithStandby::Yes);
    // There are 70 000 states within 25 steps: too many for a test. Of those within 8 there are 16 000.
    let states = explore([World::beginning(rules, ProgramId(0), Others::Attached)], 8);
    assert!(states > 10_000, "only {states} states were reached");
}
