//! Single stories of the policy: what comes of one thing after another.

use handoff::message::GenerationId;

use crate::event::{
    Action, Deadline, During, Event, Exit, Failure, Note, Order, ProgramId, TakeoverNumber,
    TakeoverOrder, WithStandby,
};
use crate::explored::{Stimulus, World, rules};

/// The story of a takeover that is rolled back in the soak, in order.
#[test]
fn a_successor_that_dies_in_the_soak_has_the_incumbent_admitted_again() {
    let mut world = World::new(rules(TakeoverOrder::StartFirst, WithStandby::No));
    let (g1, g2) = (GenerationId::new(1), GenerationId::new(2));
    for event in [Event::Ready(g1), Event::Accepting(g1)] {
        world.feel(Stimulus::Event(event));
    }
    world.feel(Stimulus::Takeover(Some(ProgramId(1))));
    for event in [Event::Ready(g2), Event::Accepting(g2), Event::Stopped(g1)] {
        world.feel(Stimulus::Event(event));
    }
    let died = Event::Exited { generation: g2, exit: Exit::Code(1) };
    let actions = world.feel(Stimulus::Event(died));
    assert!(actions.contains(&Action::Tell(g1, Order::Admit)), "{actions:?}");
    let actions = world.feel(Stimulus::Event(Event::Accepting(g1)));
    let failure = Failure::Exited { exit: Exit::Code(1), during: During::Soak, failing: vec![] };
    let rolled_back =
        Note::RolledBack { takeover: TakeoverNumber(1), successor: Some(g2), failure };
    assert!(actions.contains(&Action::Note(rolled_back)), "{actions:?}");
    assert_eq!(world.generations.current, ProgramId(0));
    assert_eq!(world.generations.lease, Some(g1));
}

/// A world in which a program serves and has served well, and another one was committed by a takeover since.
fn after_a_takeover_from_a_proven_program() -> World {
    let mut world = World::new(rules(TakeoverOrder::StartFirst, WithStandby::No));
    let (g1, g2) = (GenerationId::new(1), GenerationId::new(2));
    for event in [Event::Ready(g1), Event::Accepting(g1), Event::Passed(Deadline::Proven(g1))] {
        world.feel(Stimulus::Event(event));
    }
    world.feel(Stimulus::Takeover(Some(ProgramId(1))));
    let takeover = [
        Event::Ready(g2),
        Event::Accepting(g2),
        Event::Stopped(g1),
        Event::Passed(Deadline::Soaked),
        Event::Drained(g1),
        Event::Exited { generation: g1, exit: Exit::Code(0) },
    ];
    for event in takeover {
        world.feel(Stimulus::Event(event));
    }
    world
}

/// Whoever serves, or is to, dies; the next one is started and serves.
fn die_young(world: &mut World) -> Vec<Action> {
    let generation = *world.generations.living.keys().next().expect("somebody lives");
    let event = Event::Exited { generation, exit: Exit::Signal(6) };
    let actions = world.feel(Stimulus::Event(event));
    if world.deadlines.contains(&Deadline::Respawn) {
        world.feel(Stimulus::Event(Event::Passed(Deadline::Respawn)));
    }
    let next = *world.generations.living.keys().next().expect("the next one is started");
    for event in [Event::Ready(next), Event::Accepting(next)] {
        world.feel(Stimulus::Event(event));
    }
    actions
}

#[test]
fn the_third_short_life_in_a_row_brings_the_previous_program_back_and_it_stays() {
    let mut world = after_a_takeover_from_a_proven_program();
    let (bad, good) = (ProgramId(1), ProgramId(0));
    for _ in 0..2 {
        die_young(&mut world);
        assert_eq!(world.generations.current, bad);
    }
    let actions = die_young(&mut world);
    assert!(actions.contains(&Action::Note(Note::WentBack { from: bad, to: good })), "{actions:?}");
    let is_start = |a: &Action| matches!(a, Action::Spawn { program, .. } if *program == good);
    assert!(actions.iter().any(is_start), "it is started at once: {actions:?}");
    // It dies young as well: there is nothing better.
    for _ in 0..10 {
        let actions = die_young(&mut world);
        let turned = actions.iter().any(|a| matches!(a, Action::Note(Note::WentBack { .. })));
        assert!(!turned && world.generations.current == good, "{actions:?}");
    }
}

#[test]
fn a_program_that_has_served_well_once_is_not_left_for_the_one_before() {
    let mut world = after_a_takeover_from_a_proven_program();
    let g2 = GenerationId::new(2);
    world.feel(Stimulus::Event(Event::Passed(Deadline::Proven(g2))));
    for _ in 0..5 {
        die_young(&mut world);
        assert_eq!(world.generations.current, ProgramId(1));
    }
}

#[test]
fn a_pause_that_is_asked_for_again_only_moves_its_end() {
    let mut world = World::new(rules(TakeoverOrder::StartFirst, WithStandby::No));
    let g1 = GenerationId::new(1);
    for event in [Event::Ready(g1), Event::Accepting(g1)] {
        world.feel(Stimulus::Event(event));
    }
    let told = |actions: &[Action]| {
        actions.iter().filter(|a| matches!(a, Action::Tell(..))).cloned().collect::<Vec<_>>()
    };
    let first = world.feel(Stimulus::Pause);
    assert_eq!(told(&first), [Action::Tell(g1, Order::StopAccepting)]);
    let second = world.feel(Stimulus::Pause);
    assert_eq!(told(&second), []);
    assert!(second.iter().any(|a| matches!(a, Action::SetDeadline(Deadline::Resume, _))));
    world.feel(Stimulus::Event(Event::Stopped(g1)));
    let over = world.feel(Stimulus::Event(Event::Passed(Deadline::Resume)));
    assert_eq!(told(&over), [Action::Tell(g1, Order::Admit)]);
}
