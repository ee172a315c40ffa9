//! Random histories of the policy, and single stories: wherever things have come to, cooperation mends them.
//!
//! | file | idea |
//! | --- | --- |
//! | `mod` | random histories, and what follows them |
//! | `door` | the policy with those who wait at the attach socket |
//! | `stories` | single stories |
//! | `attached` | single stories of workers that come by themselves |

mod attached;
mod door;
mod stories;

use proptest::prelude::*;

use self::door::{Door, Step};
use crate::event::{
    Attaching, Deadline, Event, Exit, ProgramId, Rules, TakeoverOrder, WithStandby,
};
use crate::explored::{Others, Stimulus, World, rules};
use crate::generation::{Course, State};

/// What a worker that does as it is told would say next, or who attaches where only that helps; `None` when nothing is
/// awaited.
fn cooperate(door: &Door) -> Option<Step> {
    let world = &door.world;
    for (id, generation) in &world.generations.living {
        let exited = Event::Exited { generation: *id, exit: Exit::Code(0) };
        let event = match generation.state {
            _ if !generation.linked => exited,
            State::Starting => Event::Ready(*id),
            State::Admitting => Event::Accepting(*id),
            State::Stopping => Event::Stopped(*id),
            State::Emptying | State::Draining => Event::Drained(*id),
            State::Ending => exited,
            State::Serving | State::Stopped | State::Standby => continue,
        };
        return Some(Step::Feel(Stimulus::Event(event)));
    }
    let ids = world.generations.living.keys().map(|id| Deadline::Proven(*id));
    let waits = [Deadline::Soaked, Deadline::Respawn, Deadline::Standby, Deadline::Resume];
    let passed = waits.into_iter().chain(ids).find(|d| world.deadlines.contains(d));
    if let Some(deadline) = passed {
        return Some(Step::Feel(Stimulus::Event(Event::Passed(deadline))));
    }
    let is_needed = world.generations.awaits_worker() && door.waiting.is_empty();
    is_needed.then_some(Step::Comes(Attaching::Fresh))
}

/// Those that the command line allows.
fn any_front() -> impl Strategy<Value = (Rules, ProgramId, Others)> {
    let start_first = rules(TakeoverOrder::StartFirst, WithStandby::No);
    let stop_first = rules(TakeoverOrder::StopFirst, WithStandby::No);
    let standby = rules(TakeoverOrder::StartFirst, WithStandby::Yes);
    let own = ProgramId(0);
    prop_oneof![
        Just((start_first, own, Others::Program)),
        Just((stop_first, own, Others::Program)),
        Just((standby, own, Others::Program)),
        Just((start_first, own, Others::Both)),
        Just((stop_first, own, Others::Both)),
        Just((standby, own, Others::Both)),
        Just((start_first, ProgramId::ATTACHED, Others::Both)),
        Just((stop_first, ProgramId::ATTACHED, Others::Both)),
    ]
}

/// What becomes of such a front by these choices.
fn after(
    (rules, program, others): (Rules, ProgramId, Others),
    choices: Vec<prop::sample::Index>,
) -> Door {
    let mut door = Door::new(World::beginning(rules, program, others));
    for choice in choices {
        let mut steps = door.steps();
        door.step(steps.swap_remove(choice.index(steps.len())));
    }
    door
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_cooperation_leads_to_one_serving_generation_with_the_lease(
        front in any_front(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let mut door = after(front, choices);
        let mut steps = 0;
        while let Some(step) = cooperate(&door) {
            door.step(step);
            steps += 1;
            prop_assert!(steps < 200, "it never settles: {door:#?}");
        }
        let g = &door.world.generations;
        prop_assert_eq!(&g.course, &Course::Steady);
        let stands_by =
            g.rules.standby == WithStandby::Yes && g.current != ProgramId::ATTACHED;
        prop_assert_eq!(g.living.len(), 1 + usize::from(stands_by));
        prop_assert_eq!(g.lease, g.serving());
        prop_assert!(g.lease.is_some() && g.pending.is_none());
        prop_assert!(door.world.deadlines.is_empty());
        prop_assert!(door.waiting.is_empty(), "somebody waits for nothing: {door:#?}");
    }

    #[test]
    fn a_stopping_front_always_ends(
        front in any_front(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut door = after(front, choices);
        door.feel(Stimulus::Stop);
        // Nobody cooperates: every deadline passes, and only SIGKILL works.
        let mut steps = 0;
        while !door.world.left {
            let living = &door.world.generations.living;
            let killed = living.iter().find(|(_, g)| g.state == State::Ending).map(|(id, _)| *id);
            let event = match killed {
                Some(generation) => {
                    Event::Exited { generation, exit: Exit::Signal(9) }
                }
                None => {
                    let deadline = door.world.deadlines.iter().next();
                    Event::Passed(*deadline.expect("a deadline is set"))
                }
            };
            door.happens(event);
            steps += 1;
            prop_assert!(steps < 100, "it never ends: {door:#?}");
        }
        prop_assert!(!door.world.listening);
    }
}
