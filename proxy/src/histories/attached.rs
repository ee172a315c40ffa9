//! Single stories of workers that come by themselves.

use std::time::Duration;

use handoff::message::GenerationId;

use super::door::Door;
use crate::event::{
    Action, Attaching, DRAIN_GRACE, Deadline, Event, Exit, Granted, Note, Order, PauseEnd,
    ProgramId, TakeoverOrder, WithStandby,
};
use crate::explored::{LONG, Others, Stimulus, World, rules};
use crate::generation::{Course, State};
use crate::takeover::Step;

const OWN: ProgramId = ProgramId(0);
const FRESH: Attaching = Attaching::Fresh;

fn g(number: u64) -> GenerationId {
    GenerationId::new(number)
}

fn door(order: TakeoverOrder, program: ProgramId) -> Door {
    let rules = rules(order, WithStandby::No);
    Door::new(World::beginning(rules, program, Others::Attached))
}

fn start_first(program: ProgramId) -> Door {
    door(TakeoverOrder::StartFirst, program)
}

fn stop_first(program: ProgramId) -> Door {
    door(TakeoverOrder::StopFirst, program)
}

impl Door {
    /// The front's program is ready and serves, or one attaches that does.
    fn serves(mut self) -> Self {
        if self.world.generations.awaits_worker() {
            self.comes(FRESH);
        }
        self.begins_to_serve(1);
        self
    }

    fn begins_to_serve(&mut self, number: u64) -> Vec<Action> {
        self.happens(Event::Ready(g(number)));
        self.happens(Event::Accepting(g(number)))
    }

    /// Its link is cut, which is all that is seen of its end.
    fn is_cut_off(&mut self, number: u64) -> Vec<Action> {
        self.happens(Event::Exited { generation: g(number), exit: Exit::Unknown })
    }

    fn drains_and_ends(&mut self, number: u64) -> Vec<Action> {
        let mut actions = self.happens(Event::Drained(g(number)));
        actions.extend(self.happens(Event::Exited { generation: g(number), exit: Exit::Code(0) }));
        actions
    }

    /// A takeover as far as its commit.
    fn is_taken_over(&mut self, incumbent: u64, successor: u64) -> Vec<Action> {
        self.begins_to_serve(successor);
        self.happens(Event::Stopped(g(incumbent)));
        self.happens(Event::Passed(Deadline::Soaked))
    }

    fn state(&self, number: u64) -> Option<State> {
        self.world.generations.state(g(number))
    }

    fn course(&self) -> &Course {
        &self.world.generations.course
    }

    fn step_of_takeover(&self) -> &Step {
        let Course::Takeover(takeover) = self.course() else { panic!("{self:#?}") };
        &takeover.step
    }
}

fn notes(actions: &[Action]) -> Vec<&Note> {
    let noted = actions.iter().filter_map(|action| match action {
        Action::Note(note) => Some(note),
        _ => None,
    });
    noted.collect()
}

fn started(actions: &[Action]) -> Vec<(GenerationId, ProgramId)> {
    let of = |action: &Action| match action {
        Action::Spawn { generation, program } => Some((*generation, *program)),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

fn told(actions: &[Action], number: u64) -> Vec<Order> {
    let of = |action: &Action| match action {
        Action::Tell(id, order) if *id == g(number) => Some(*order),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn one_that_serves_and_is_cut_off_serves_on_under_its_number_when_it_returns() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    let actions = door.is_cut_off(1);
    assert!(notes(&actions).contains(&&Note::AwaitsWorker), "{actions:?}");
    assert!(door.world.deadlines.contains(&Deadline::Held));
    let actions = door.comes(Attaching::Returned(g(1)));
    assert!(actions.contains(&Action::TakeBack(g(1))), "{actions:?}");
    assert_eq!((told(&actions, 1), started(&actions)), (vec![Order::Admit], vec![]));
    let actions = door.happens(Event::Accepting(g(1)));
    assert_eq!(told(&actions, 1), [Order::Lease { epoch: 2 }]);
    assert_eq!(door.course(), &Course::Steady);
}

#[test]
fn one_that_returns_while_the_fronts_own_program_serves_in_its_place_drains() {
    let mut door = start_first(OWN).serves();
    door.comes(FRESH);
    door.is_taken_over(1, 2);
    door.drains_and_ends(1);
    let actions = door.is_cut_off(2);
    assert!(notes(&actions).contains(&&Note::StartsOwn), "{actions:?}");
    assert_eq!(started(&actions), [(g(3), OWN)]);
    let actions = door.comes(Attaching::Returned(g(2)));
    assert_eq!(actions, [], "the one that starts is not disturbed");
    let actions = door.begins_to_serve(3);
    assert!(matches!(told(&actions, 2)[..], [Order::Drain(_)]), "{actions:?}");
    assert_eq!(door.world.generations.serving(), Some(g(3)));
}

#[test]
fn one_that_drains_and_was_cut_off_drains_on_within_what_is_left_of_its_time() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    door.comes(FRESH);
    door.is_taken_over(1, 2);
    let actions = door.is_cut_off(1);
    assert!(notes(&actions).iter().any(|note| matches!(note, Note::Gone { .. })), "{actions:?}");
    let left = Duration::from_secs(7);
    let actions = door.comes(Attaching::Drains(g(1), left));
    let deadline = Action::SetDeadline(Deadline::Drained(g(1)), left + DRAIN_GRACE);
    assert!(actions.contains(&deadline), "{actions:?}");
    assert_eq!((told(&actions, 1), told(&actions, 2)), (vec![], vec![]));
}

#[test]
fn two_that_wait_take_over_one_after_the_other() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    let first = door.comes(FRESH);
    assert_eq!(started(&first), [(g(2), ProgramId::ATTACHED)]);
    assert_eq!(door.comes(FRESH), [], "one at a time");
    let committed = door.is_taken_over(1, 2);
    assert_eq!(started(&committed), [], "the incumbent drains still");
    let gone = door.drains_and_ends(1);
    assert_eq!(started(&gone), [(g(3), ProgramId::ATTACHED)]);
    assert_eq!(door.waiting.len(), 0);
}

#[test]
fn nothing_begins_for_one_that_waited_and_has_left() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    door.comes(FRESH);
    door.is_taken_over(1, 2);
    assert_eq!(door.comes(FRESH), [], "the incumbent drains still");
    assert_eq!(door.leaves(0), []);
    assert_eq!(started(&door.drains_and_ends(1)), []);
    assert_eq!(door.course(), &Course::Steady);
}

#[test]
fn newcomers_are_held_when_the_only_one_dies_then_turned_away_until_somebody_attaches() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    let actions = door.is_cut_off(1);
    assert!(notes(&actions).contains(&&Note::HoldBegan), "{actions:?}");
    let actions = door.happens(Event::Passed(Deadline::Held));
    assert!(actions.contains(&Action::TurnAway), "{actions:?}");
    door.comes(FRESH);
    let actions = door.happens(Event::Ready(g(2)));
    let at = |wanted: &Action| actions.iter().position(|action| action == wanted);
    let turned = at(&Action::TurnNobodyAway).expect("it is to accept");
    assert!(turned < at(&Action::Tell(g(2), Order::Admit)).expect("it is admitted"));
    door.happens(Event::Accepting(g(2)));
    assert_eq!(door.world.generations.lease, Some(g(2)));
}

#[test]
fn another_image_of_the_front_goes_on_with_who_waits_or_is_told_that_they_left() {
    for left in [0, 1] {
        let mut door = start_first(ProgramId::ATTACHED).serves();
        door.comes(FRESH);
        door.is_taken_over(1, 2);
        door.comes(FRESH);
        let written = serde_json::to_vec(&door.world.generations).expect("it is written");
        door.world.generations = serde_json::from_slice(&written).expect("it is read");
        // What an image is told when it begins.
        door.waiting.truncate(1 - left);
        let begun = door.waiting.front().copied().unwrap_or_default();
        assert_eq!(door.happens(Event::Attaching(begun)), []);
        let actions = door.drains_and_ends(1);
        assert_eq!(started(&actions).len(), 1 - left, "{actions:?}");
    }
}

#[test]
fn one_that_attaches_in_a_pause_takes_over_when_it_is_over() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    door.feel(Stimulus::Pause);
    door.happens(Event::Stopped(g(1)));
    assert_eq!(door.comes(FRESH), []);
    let actions = door.feel(Stimulus::Resume);
    assert_eq!((told(&actions, 1), started(&actions)), (vec![Order::Admit], vec![]));
    let actions = door.happens(Event::Accepting(g(1)));
    assert_eq!(started(&actions), [(g(2), ProgramId::ATTACHED)]);
}

#[test]
fn a_pause_ends_with_the_link_of_the_worker_that_is_paused() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    door.feel(Stimulus::Pause);
    door.happens(Event::Stopped(g(1)));
    let actions = door.is_cut_off(1);
    let over = Note::PauseEnded { generation: g(1), why: PauseEnd::WorkerGone };
    assert!(notes(&actions).contains(&&over), "{actions:?}");
    let actions = door.comes(Attaching::Returned(g(1)));
    assert_eq!(told(&actions, 1), [Order::Admit]);
}

#[test]
fn nobody_who_waits_is_taken_by_a_front_that_stops() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    door.feel(Stimulus::Pause);
    door.comes(FRESH);
    let actions = door.feel(Stimulus::Stop);
    assert_eq!(started(&actions), []);
    door.happens(Event::Stopped(g(1)));
    let actions = door.drains_and_ends(1);
    assert_eq!(started(&actions), []);
    assert!(door.world.left && door.waiting.len() == 1, "{door:#?}");
}

#[test]
fn what_the_operator_asks_for_comes_before_who_waits() {
    let mut door = start_first(OWN).serves();
    door.comes(FRESH);
    door.is_taken_over(1, 2);
    assert_eq!(door.comes(FRESH), []);
    let actions = door.feel(Stimulus::Takeover(None));
    assert_eq!(started(&actions), [], "the incumbent drains still");
    assert_eq!(started(&door.drains_and_ends(1)), [(g(3), OWN)]);
    door.is_taken_over(2, 3);
    assert_eq!(door.world.generations.current, OWN);
    assert_eq!(started(&door.drains_and_ends(2)), [(g(4), ProgramId::ATTACHED)]);
}

#[test]
fn what_was_asked_for_begins_when_there_is_nothing_to_go_back_to() {
    let mut door = stop_first(ProgramId::ATTACHED).serves();
    door.feel(Stimulus::Takeover(Some(OWN)));
    assert_eq!(started(&door.drains_and_ends(1)), [(g(2), OWN)]);
    door.feel(Stimulus::Takeover(Some(OWN)));
    // It fails, and nobody waits who could serve instead.
    let actions = door.is_cut_off(2);
    assert_eq!(started(&actions), [(g(3), OWN)], "{actions:?}");
    assert_eq!(door.step_of_takeover(), &Step::Starting);
}

#[test]
fn one_that_returns_serves_on_when_the_one_that_was_to_take_over_has_left() {
    let mut door = stop_first(ProgramId::ATTACHED).serves();
    door.comes(FRESH);
    assert_eq!(door.state(1), Some(State::Emptying));
    door.leaves(0);
    // Its link is cut before it is drained, and nobody is there who could be started.
    door.comes(Attaching::Returned(g(0)));
    let actions = door.is_cut_off(1);
    assert_eq!(told(&actions, 0), [Order::Admit], "{actions:?}");
    door.happens(Event::Accepting(g(0)));
    assert_eq!(door.course(), &Course::Steady);
}

#[test]
fn a_wish_to_be_replaced_is_nothing_to_a_front_that_starts_none() {
    let mut door = start_first(ProgramId::ATTACHED).serves();
    assert_eq!(door.world.generations.grant(g(1)), (Granted::Nothing, vec![]));
    door.feel(Stimulus::Pause);
    assert_eq!(door.world.generations.grant(g(1)), (Granted::Nothing, vec![]));
    let actions = door.is_cut_off(1);
    assert!(notes(&actions).contains(&&Note::AwaitsWorker), "{actions:?}");
}

#[test]
fn one_that_drains_returns_to_a_front_that_waits_for_a_worker_and_the_next_one_serves_beside_it() {
    let mut door = start_first(ProgramId::ATTACHED);
    door.comes(Attaching::Drains(g(7), LONG));
    assert_eq!(door.state(7), Some(State::Draining));
    let actions = door.comes(FRESH);
    assert_eq!(started(&actions), [(g(8), ProgramId::ATTACHED)]);
    door.begins_to_serve(8);
    assert_eq!(door.world.generations.lease, Some(g(8)));
}
