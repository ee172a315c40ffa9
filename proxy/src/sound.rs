//! What must hold in every state of the policy, and between a state, what happens, and what comes of it.
//!
//! `explored/` asks this of every reachable state, `histories/` along random ways.

use std::collections::BTreeSet;

use handoff::message::GenerationId;

use crate::event::{
    Action, Attaching, CRASH_LOOP, Deadline, Event, Note, Order, ProgramId, TakeoverOrder,
    WithStandby,
};
use crate::explored::{Others, Stimulus, World};
use crate::generation::{Course, Generation, State};
use crate::hold::Hold;
use crate::standby::Standby;
use crate::takeover::Step;

impl World {
    pub(crate) fn assert_sound(&self) {
        let g = &self.generations;
        // What comes by itself is started only when it is there.
        assert!(g.startable() != Some(ProgramId::ATTACHED));
        let admitted = g.living.values().filter(|g| g.state.is_admitted_or_draining()).count();
        assert!(admitted <= 2, "more than two admitted or draining");
        if let Some(holder) = g.lease {
            assert!(g.living.contains_key(&holder), "the lease is held by one that is gone");
            let early = matches!(g.state(holder), Some(State::Starting | State::Standby));
            assert!(!early, "the lease is held too early");
        }
        self.assert_one_stands_by_at_most();
        self.assert_every_wait_has_its_deadline();
        assert_eq!(g.hold != Hold::None, g.holds(), "a hold that nobody minds");
        assert_eq!(g.hold == Hold::TurnedAway, self.turning_away);
        if g.course == Course::Leaving {
            assert!(self.left == g.living.is_empty());
        } else {
            assert!(self.listening, "the port was closed by a front that does not stop");
            assert!(!self.left);
            self.assert_somebody_serves_or_will();
            self.assert_nothing_waits_without_a_reason();
        }
    }

    /// Who waits is taken at once, or when something has happened: told of them again the policy has nothing to add.
    pub(crate) fn assert_waiting_is_minded(&self) {
        let attaching = self.generations.attaching;
        if attaching != Attaching::Nobody {
            let mut again = self.clone();
            let actions = again.feel(Stimulus::Event(Event::Attaching(attaching)));
            assert!(
                actions.is_empty() && again == *self,
                "{attaching:?} is minded late: {actions:?}"
            );
        }
    }

    fn assert_one_stands_by_at_most(&self) {
        let g = &self.generations;
        let stand_by = |g: &&Generation| g.state == State::Standby;
        let waiting = g.living.values().filter(stand_by).count();
        match g.standby {
            Standby::Kept(id) => {
                let state = g.state(id);
                assert!(matches!(state, Some(State::Starting | State::Standby)), "{state:?}");
                assert_eq!(waiting, usize::from(state == Some(State::Standby)));
                let calm =
                    matches!(g.course, Course::Steady | Course::Paused(_) | Course::Resuming(_));
                assert!(calm && g.rules.standby == WithStandby::Yes);
                assert!(g.living.len() == 2, "a standby beside more than the one that serves");
            }
            Standby::None | Standby::Pausing => assert_eq!(waiting, 0, "who stands by for nobody?"),
        }
        let wanted = g.rules.standby == WithStandby::Yes
            && g.course == Course::Steady
            && g.current != ProgramId::ATTACHED;
        if wanted && g.living.len() == 1 && g.is_served() {
            assert_ne!(g.standby, Standby::None, "nobody stands by");
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
                State::Serving | State::Stopped | State::Standby => {
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
        // It runs out by itself, for one that may serve well.
        let is_proving = |d: &&Deadline| match d {
            Deadline::Proven(id) => g.lease == Some(*id) || g.is_standby(*id),
            _ => false,
        };
        wanted.extend(self.deadlines.iter().filter(is_proving));
        if g.standby == Standby::Pausing {
            wanted.insert(Deadline::Standby);
        }
        match &g.course {
            // Nothing tells when a worker comes by itself.
            Course::Pausing if g.awaits_worker() => {}
            // It begins when the last one is gone, or the pause is over.
            Course::Pausing
                if g.pending.is_some() && !self.deadlines.contains(&Deadline::Respawn) => {}
            Course::Pausing => {
                wanted.insert(Deadline::Respawn);
            }
            Course::Paused(_) => {
                wanted.insert(Deadline::Resume);
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
            Course::Steady => {
                let state = alive(&g.lease);
                assert!(matches!(state, Some(State::Serving | State::Ending)), "{state:?}");
            }
            Course::Paused(id) => {
                assert_eq!(g.lease, Some(*id));
                let state = g.state(*id);
                assert!(matches!(state, Some(State::Stopping | State::Stopped)), "{state:?}");
            }
            Course::Resuming(id) => assert_eq!(g.state(*id), Some(State::Admitting)),
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

    /// What was asked for begins, and the front's own program is started, as soon as nothing stands in the way.
    fn assert_nothing_waits_without_a_reason(&self) {
        let g = &self.generations;
        // The end of one that goes has a deadline, and brings up what waits.
        let goes = g.living.values().any(|generation| generation.state == State::Ending);
        let is_free = matches!(g.course, Course::Steady | Course::Pausing) && !g.is_full() && !goes;
        assert!(!is_free || g.pending.is_none(), "nothing stands in the way of what was asked for");
        assert!(!g.awaits_worker() || g.own.is_none(), "the front's own program is not started");
    }

    /// What must hold between a state, an event, and what comes of them.
    pub(crate) fn assert_consequent(&self, before: &Self, stimulus: &Stimulus, actions: &[Action]) {
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
                let proves = |a: &Action| matches!(a, Action::SetDeadline(Deadline::Proven(p), _) if p == id);
                assert!(actions.iter().any(proves), "it never proves itself");
            }
        }
        self.assert_standby_is_apart(before, stimulus, actions);
        self.assert_program_changes_for_a_reason(before, actions);
        if g.awaits_worker() && !was.awaits_worker() {
            let said = actions.contains(&Action::Note(Note::AwaitsWorker));
            assert!(said, "nobody was told that the front waits for a worker");
        }
        // Of a program of which there may be one only the next one waits for the last one's end. A front that was started
        // anew may have found two.
        if g.rules.order == TakeoverOrder::StopFirst
            && self.others == Others::Program
            && was.living.len() <= 1
        {
            let started = actions.iter().any(|a| matches!(a, Action::Spawn { .. }));
            let goes = g.living.values().any(|generation| generation.state == State::Ending);
            assert!(!(started && goes), "started beside one that is on its way out");
        }
        // After the commit nothing is rolled back.
        let committed = actions.iter().any(|a| matches!(a, Action::Note(Note::Committed { .. })));
        let rolled = actions.iter().any(|a| matches!(a, Action::Note(Note::RolledBack { .. })));
        assert!(!(committed && rolled));
    }

    /// Whatever becomes of a standby, who serves hears nothing of it; and who stands by is called when it is needed.
    fn assert_standby_is_apart(&self, before: &Self, stimulus: &Stimulus, actions: &[Action]) {
        let (g, was) = (&self.generations, &before.generations);
        if let Standby::Kept(standby) = g.standby {
            let told = actions.iter().any(|a| matches!(a, Action::Tell(id, _) if *id == standby));
            assert!(!told, "a standby was told something");
        }
        let Standby::Kept(standby) = was.standby else { return };
        let Stimulus::Event(event) = stimulus else { return };
        if about(event) == Some(standby) {
            let elsewhere = |action: &Action| match action {
                Action::Tell(id, _) | Action::Kill(id) => *id != standby,
                _ => false,
            };
            assert!(!actions.iter().any(elsewhere), "a standby was noticed by others");
        }
        let Event::Exited { generation, .. } = event else { return };
        let was_ready = was.state(standby) == Some(State::Standby) && was.living[&standby].linked;
        if was.lease == Some(*generation) && was_ready && was.pending.is_none() {
            let went_back =
                actions.iter().any(|a| matches!(a, Action::Note(Note::WentBack { .. })));
            let called = actions.contains(&Action::Tell(standby, Order::Admit));
            assert!(called != went_back, "a crash, and the standby was not called");
        }
    }

    /// Only a takeover that was committed, or a crash loop of a program that never served well, changes it.
    fn assert_program_changes_for_a_reason(&self, before: &Self, actions: &[Action]) {
        let (g, was) = (&self.generations, &before.generations);
        let mut current = was.current;
        for action in actions {
            match action {
                Action::Note(Note::Committed { .. }) => current = g.current,
                Action::Note(Note::StartsOwn) => {
                    assert_eq!(current, ProgramId::ATTACHED);
                    current = g.own.expect("it is the front's own");
                }
                Action::Note(Note::Returned(id)) if g.course == Course::Launching(*id) => {
                    current = ProgramId::ATTACHED;
                }
                Action::Note(Note::WentBack { from, to }) => {
                    assert_eq!((*from, Some(*to)), (current, was.proven));
                    assert_ne!(from, to, "back to itself");
                    assert!(was.short_lives + 1 >= CRASH_LOOP && !g.is_served());
                    current = *to;
                }
                _ => {}
            }
        }
        assert_eq!(g.current, current, "the program changed without a reason");
    }
}

/// Which generation an event comes from.
fn about(event: &Event) -> Option<GenerationId> {
    match event {
        Event::Ready(id)
        | Event::Accepting(id)
        | Event::Stopped(id)
        | Event::Drained(id)
        | Event::Failing(id, _)
        | Event::Extend(id, _)
        | Event::Unfit(id, _)
        | Event::LinkEnded(id)
        | Event::Exited { generation: id, .. } => Some(*id),
        Event::Attaching(_) => None,
        Event::Passed(Deadline::Ready(id) | Deadline::Exited(id) | Deadline::Proven(id)) => {
            Some(*id)
        }
        Event::Passed(_) => None,
    }
}
