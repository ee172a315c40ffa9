//! Whatever may be found of a front's workers, and what comes of it.

use handoff::rescue::Incumbent;

use super::*;
use crate::event::{Event, Exit, WithStandby};
use crate::explored::{World, explore, rules};
use Standing::{Admitted, Stopped};

const DRAINING: Standing =
    Standing::Draining(Drain { timeout_ms: 7_000, newcomers: Newcomers::Leave });
const EMPTYING: Standing =
    Standing::Draining(Drain { timeout_ms: 7_000, newcomers: Newcomers::Serve });

fn g(number: u64) -> GenerationId {
    GenerationId::new(number)
}

fn worker(number: u64, standing: Standing) -> Rescued {
    Rescued {
        generation: g(number),
        age_ms: 60_000,
        standing,
        lease: None,
        latest_epoch: 0,
        sockets: Vec::new(),
        hears_of_orphans: false,
        stops_only_by_draining: false,
        incumbent: None,
    }
}

/// The same with the lease, under this epoch.
fn leased(epoch: u64, worker: Rescued) -> Rescued {
    Rescued { lease: Some(epoch), latest_epoch: epoch, ..worker }
}

/// The same as the successor of the generation before it.
fn linked(worker: Rescued) -> Rescued {
    let generation = g(worker.generation.number() - 1);
    Rescued { incumbent: Some(Incumbent { generation, linked: true }), ..worker }
}

fn found(workers: impl IntoIterator<Item = Rescued>) -> Found {
    let workers = workers.into_iter().collect();
    Found {
        workers,
        astray: Vec::new(),
        attached: Vec::new(),
        latest: None,
        sockets: Sockets::AsWanted,
    }
}

fn recovered(order: TakeoverOrder, found: &Found) -> (Generations, Vec<Action>) {
    recovered_by(rules(order, WithStandby::No), found)
}

fn recovered_by(rules: Rules, found: &Found) -> (Generations, Vec<Action>) {
    let (generations, actions) = Generations::recover(rules, ProgramId(0), found);
    World::of(generations.clone(), &actions).assert_sound();
    (generations, actions)
}

fn start_first(workers: impl IntoIterator<Item = Rescued>) -> (Generations, Vec<Action>) {
    recovered(TakeoverOrder::StartFirst, &found(workers))
}

fn state(generations: &Generations, number: u64) -> State {
    generations.state(g(number)).unwrap()
}

fn step(generations: &Generations) -> &Step {
    let Course::Takeover(takeover) = &generations.course else { panic!("{generations:?}") };
    &takeover.step
}

fn told(actions: &[Action], number: u64) -> Vec<Order> {
    let of = |action: &Action| match action {
        Action::Tell(id, order) if *id == g(number) => Some(*order),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn the_only_one_that_is_admitted_serves_and_keeps_its_lease() {
    let (it, actions) = start_first([leased(4, worker(7, Admitted))]);
    assert_eq!((state(&it, 7), &it.course), (State::Serving, &Course::Steady));
    assert_eq!((it.lease, it.epoch, it.next), (Some(g(7)), 4, g(8)));
    assert_eq!(told(&actions, 7), []);
}

#[test]
fn one_that_serves_without_a_lease_is_granted_it_under_an_epoch_of_its_own() {
    let mut newer = worker(8, Admitted);
    newer.latest_epoch = 3;
    let (it, actions) = start_first([newer]);
    assert_eq!((it.lease, told(&actions, 8)), (Some(g(8)), vec![Order::Lease { epoch: 4 }]));
}

#[test]
fn one_that_had_been_told_to_stop_is_admitted_again() {
    let (it, actions) = start_first([leased(1, worker(7, Stopped))]);
    assert_eq!((state(&it, 7), &it.course), (State::Admitting, &Course::Launching(g(7))));
    assert_eq!((it.lease, told(&actions, 7)), (Some(g(7)), vec![Order::Admit]));
}

#[test]
fn a_takeover_that_had_not_switched_goes_on_with_that() {
    let (it, actions) = start_first([leased(1, worker(7, Admitted)), linked(worker(8, Admitted))]);
    assert_eq!((state(&it, 7), state(&it, 8)), (State::Stopping, State::Serving));
    assert_eq!((step(&it), it.lease), (&Step::Switching, Some(g(7))));
    assert_eq!(told(&actions, 7), [Order::StopAccepting]);
    assert_eq!(it.living[&g(7)].heir, Some(g(8)));
}

#[test]
fn a_takeover_that_had_switched_soaks_anew() {
    let (it, actions) = start_first([leased(1, worker(7, Stopped)), linked(worker(8, Admitted))]);
    assert_eq!((state(&it, 7), step(&it)), (State::Stopped, &Step::Soaking));
    assert!(actions.iter().any(|a| matches!(a, Action::SetDeadline(Deadline::Soaked, _))));
}

#[test]
fn a_takeover_whose_connections_cannot_move_is_called_off() {
    for older in [Admitted, Stopped] {
        let (it, actions) = start_first([leased(1, worker(7, older)), worker(8, Admitted)]);
        assert_eq!((it.lease, state(&it, 8)), (Some(g(7)), State::Draining));
        assert!(matches!(told(&actions, 8)[..], [Order::Drain(_)]));
    }
}

#[test]
fn a_takeover_whose_lease_had_moved_is_committed_whatever_the_incumbent_has_heard() {
    for older in [Admitted, Stopped, DRAINING] {
        for older in [worker(7, older), leased(1, worker(7, older))] {
            let (it, actions) = start_first([older, leased(2, linked(worker(8, Admitted)))]);
            assert_eq!((state(&it, 7), state(&it, 8)), (State::Draining, State::Serving));
            assert_eq!((it.lease, &it.course), (Some(g(8)), &Course::Steady));
            assert_eq!(told(&actions, 8), []);
        }
    }
}

#[test]
fn who_drains_drains_on_and_its_heir_hears_of_its_end() {
    let (mut it, actions) = start_first([worker(7, DRAINING), linked(worker(8, Admitted))]);
    assert_eq!((state(&it, 7), told(&actions, 7)), (State::Draining, vec![]));
    let left = Duration::from_secs(7) + DRAIN_GRACE;
    assert!(actions.contains(&Action::SetDeadline(Deadline::Drained(g(7)), left)));
    let exit = Exit::Unknown;
    let actions = it.on(Event::Exited { generation: g(7), exit });
    assert_eq!(told(&actions, 8), [Order::Reaped { generation: g(7) }]);
}

#[test]
fn an_heir_hears_of_the_end_that_nobody_told() {
    let (_, actions) = start_first([leased(2, linked(worker(8, Admitted)))]);
    assert_eq!(told(&actions, 8), [Order::Reaped { generation: g(7) }]);
}

#[test]
fn while_the_last_ones_drain_a_fresh_one_is_started_unless_it_has_to_be_alone() {
    for standing in [DRAINING, EMPTYING] {
        let (it, _) = start_first([worker(7, standing)]);
        assert_eq!((&it.course, it.next), (&Course::Launching(g(8)), g(9)));
        let (it, _) = recovered(TakeoverOrder::StopFirst, &found([worker(7, standing)]));
        assert_eq!((step(&it), it.living.len()), (&Step::Emptying, 1));
    }
}

#[test]
fn nobody_is_an_ordinary_start_with_a_number_that_nobody_had() {
    let nobody = Found { latest: Some(g(9)), ..found([]) };
    let (it, _) = recovered(TakeoverOrder::StartFirst, &nobody);
    assert_eq!(it.course, Course::Launching(g(10)));
}

#[test]
fn one_whose_sockets_are_others_drains() {
    let both = [leased(1, worker(7, Admitted)), worker(8, Admitted)];
    let (it, _) =
        recovered(TakeoverOrder::StartFirst, &Found { astray: vec![g(8)], ..found(both) });
    assert_eq!((state(&it, 7), state(&it, 8)), (State::Serving, State::Draining));
}

#[test]
fn sockets_that_are_not_the_wanted_ones_are_a_reason_for_a_takeover() {
    let changed =
        |standing| Found { sockets: Sockets::Changed, ..found([leased(1, worker(7, standing))]) };
    let (it, _) = recovered(TakeoverOrder::StartFirst, &changed(Admitted));
    assert_eq!(step(&it), &Step::Starting);
    let (it, _) = recovered(TakeoverOrder::StartFirst, &changed(Stopped));
    assert_eq!(it.pending, Some(None), "as soon as it serves again");
}

/// Everything that up to three workers may say of themselves, whether a front could have led to it or not.
fn whatever_may_be_found() -> Vec<Found> {
    let mut every = Vec::new();
    for standing in [Admitted, Stopped, DRAINING, EMPTYING] {
        for lease in [None, Some(1), Some(2)] {
            for link in [None, Some(true), Some(false)] {
                every.push((standing, lease, link));
            }
        }
    }
    let of = |number: u64, (standing, lease, link): (Standing, Option<u64>, Option<bool>)| {
        let generation = g(number - 1);
        Rescued {
            lease,
            incumbent: link.map(|linked| Incumbent { generation, linked }),
            ..worker(number, standing)
        }
    };
    let mut all = vec![found([])];
    for &one in &every {
        all.push(found([of(7, one)]));
        for &two in &every {
            all.push(found([of(7, one), of(8, two)]));
        }
    }
    for standing in [Admitted, Stopped, DRAINING, EMPTYING] {
        let three = [(7, DRAINING), (8, Admitted), (9, standing)];
        all.push(found(three.map(|(number, standing)| worker(number, standing))));
        let three = [(7, DRAINING), (8, DRAINING), (9, standing)];
        all.push(found(three.map(|(number, standing)| worker(number, standing))));
    }
    let changed = all.clone().into_iter().map(|f| Found { sockets: Sockets::Changed, ..f });
    changed.chain(all.clone()).collect()
}

#[test]
fn whatever_is_found_the_policy_is_sound_and_whatever_happens_next() {
    for rules in [
        rules(TakeoverOrder::StartFirst, WithStandby::No),
        rules(TakeoverOrder::StopFirst, WithStandby::No),
        rules(TakeoverOrder::StartFirst, WithStandby::Yes),
    ] {
        let worlds = whatever_may_be_found().into_iter().map(|found| {
            let (generations, actions) = recovered_by(rules, &found);
            World::of(generations, &actions)
        });
        explore(worlds, 2);
    }
}

#[test]
fn at_most_one_has_the_lease_and_none_that_drains() {
    for found in whatever_may_be_found() {
        let (it, _) = recovered(TakeoverOrder::StartFirst, &found);
        let draining = |id| matches!(it.state(id), Some(State::Draining | State::Ending));
        assert!(!it.lease.is_some_and(draining), "{found:?} became {it:?}");
    }
}
