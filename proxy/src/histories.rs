//! Random histories of the policy, and single stories: wherever things have come to, cooperation mends them.

use handoff::message::GenerationId;
use proptest::prelude::*;

use crate::event::{
    Action, Deadline, During, Event, Exit, Failure, Note, Order, ProgramId, Rules, TakeoverNumber,
    TakeoverOrder, WithStandby,
};
use crate::explored::{Stimulus, World, rules};
use crate::generation::{Course, State};

/// What a worker that does as it is told would say next; `None` when nothing is awaited.
fn cooperate(world: &World) -> Option<Event> {
    for (id, generation) in &world.generations.living {
        let exited = Event::Exited { generation: *id, exit: Exit::Code(0) };
        return Some(match generation.state {
            _ if !generation.linked => exited,
            State::Starting => Event::Ready(*id),
            State::Admitting => Event::Accepting(*id),
            State::Stopping => Event::Stopped(*id),
            State::Emptying | State::Draining => Event::Drained(*id),
            State::Ending => exited,
            State::Serving | State::Stopped | State::Standby => continue,
        });
    }
    let ids = world.generations.living.keys().map(|id| Deadline::Proven(*id));
    let waits = [Deadline::Soaked, Deadline::Respawn, Deadline::Standby, Deadline::Resume];
    waits.into_iter().chain(ids).find(|d| world.deadlines.contains(d)).map(Event::Passed)
}

fn stimulus_at(world: &World, choice: prop::sample::Index) -> Stimulus {
    let stimuli = world.stimuli();
    // Stopping ends the history; it is explored exhaustively above.
    let lasting: Vec<_> =
        stimuli.into_iter().filter(|s| !matches!(s, Stimulus::Stop | Stimulus::StopNow)).collect();
    lasting[choice.index(lasting.len())].clone()
}

/// Those that the command line allows.
fn any_rules() -> impl Strategy<Value = Rules> {
    prop_oneof![
        Just(rules(TakeoverOrder::StartFirst, WithStandby::No)),
        Just(rules(TakeoverOrder::StopFirst, WithStandby::No)),
        Just(rules(TakeoverOrder::StartFirst, WithStandby::Yes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_cooperation_leads_to_one_serving_generation_with_the_lease(
        rules in any_rules(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let mut world = World::new(rules);
        for choice in choices {
            let stimulus = stimulus_at(&world, choice);
            world.feel(stimulus);
            world.assert_sound();
        }
        let mut steps = 0;
        while let Some(event) = cooperate(&world) {
            world.feel(Stimulus::Event(event));
            world.assert_sound();
            steps += 1;
            prop_assert!(steps < 200, "it never settles: {world:#?}");
        }
        let g = &world.generations;
        prop_assert_eq!(&g.course, &Course::Steady);
        let stands_by = usize::from(g.rules.standby == WithStandby::Yes);
        prop_assert_eq!(g.living.len(), 1 + stands_by);
        prop_assert_eq!(g.lease, g.serving());
        prop_assert!(g.lease.is_some() && g.pending.is_none());
        prop_assert!(world.deadlines.is_empty());
    }

    #[test]
    fn a_stopping_front_always_ends(
        rules in any_rules(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut world = World::new(rules);
        for choice in choices {
            let stimulus = stimulus_at(&world, choice);
            world.feel(stimulus);
        }
        world.feel(Stimulus::Stop);
        // Nobody cooperates: every deadline passes, and only SIGKILL works.
        let mut steps = 0;
        while !world.left {
            let killed = world
                .generations
                .living
                .iter()
                .find(|(_, g)| g.state == State::Ending)
                .map(|(id, _)| *id);
            let event = match killed {
                Some(generation) => {
                    Event::Exited { generation, exit: Exit::Signal(9) }
                }
                None => Event::Passed(*world.deadlines.iter().next().expect("a deadline is set")),
            };
            world.feel(Stimulus::Event(event));
            steps += 1;
            prop_assert!(steps < 100, "it never ends: {world:#?}");
        }
        prop_assert!(!world.listening);
    }
}

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
