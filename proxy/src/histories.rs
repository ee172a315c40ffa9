//! Random histories of the policy, and single stories: wherever things have come to, cooperation mends them.

use handoff::message::GenerationId;
use proptest::prelude::*;

use crate::event::{
    Action, Deadline, During, Event, Exit, Failure, Note, Order, ProgramId, TakeoverNumber,
    TakeoverOrder,
};
use crate::explored::{LONG, SHORT, Stimulus, World};
use crate::generation::{Course, State};

/// What a worker that does as it is told would say next; `None` when nothing is awaited.
fn cooperate(world: &World) -> Option<Event> {
    for (id, generation) in &world.generations.living {
        let exited = Event::Exited { generation: *id, exit: Exit::Code(0), lived: LONG };
        return Some(match generation.state {
            _ if !generation.linked => exited,
            State::Starting => Event::Ready(*id),
            State::Admitting => Event::Accepting(*id),
            State::Stopping => Event::Stopped(*id),
            State::Emptying | State::Draining => Event::Drained(*id),
            State::Ending => exited,
            State::Serving | State::Stopped => continue,
        });
    }
    let waits = [Deadline::Soaked, Deadline::Respawn];
    waits.into_iter().find(|d| world.deadlines.contains(d)).map(Event::Passed)
}

fn stimulus_at(world: &World, choice: prop::sample::Index) -> Stimulus {
    let stimuli = world.stimuli();
    // Stopping ends the history; it is explored exhaustively above.
    let lasting: Vec<_> =
        stimuli.into_iter().filter(|s| !matches!(s, Stimulus::Stop | Stimulus::StopNow)).collect();
    lasting[choice.index(lasting.len())].clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_cooperation_leads_to_one_serving_generation_with_the_lease(
        order in prop_oneof![Just(TakeoverOrder::StartFirst), Just(TakeoverOrder::StopFirst)],
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let mut world = World::new(order);
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
        prop_assert_eq!(g.living.len(), 1);
        prop_assert_eq!(g.lease, g.serving());
        prop_assert!(g.lease.is_some() && g.pending.is_none());
        prop_assert!(world.deadlines.is_empty());
    }

    #[test]
    fn a_stopping_front_always_ends(
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut world = World::new(TakeoverOrder::StartFirst);
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
                    Event::Exited { generation, exit: Exit::Signal(9), lived: LONG }
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
    let mut world = World::new(TakeoverOrder::StartFirst);
    let (g1, g2) = (GenerationId::new(1), GenerationId::new(2));
    for event in [Event::Ready(g1), Event::Accepting(g1)] {
        world.feel(Stimulus::Event(event));
    }
    world.feel(Stimulus::Takeover(Some(ProgramId(1))));
    for event in [Event::Ready(g2), Event::Accepting(g2), Event::Stopped(g1)] {
        world.feel(Stimulus::Event(event));
    }
    let died = Event::Exited { generation: g2, exit: Exit::Code(1), lived: SHORT };
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
