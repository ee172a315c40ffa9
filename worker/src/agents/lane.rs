//! Lanes: one run at a time for each session, also while two generations serve.
//!
//! ```text
//! enter ─► waiting ─► granted ─► leave        while there is a neighbour, each lane is here or there:
//!                                             LaneWanted ──► … idle … ──► LaneReleased
//! ```
//!
//! **Invariants**
//! - A lane is held by one generation at a time, and only its holder grants it.
//! - Until an incumbent has released a lane, it is the incumbent's: a successor knows of no run that is
//!   going on there.
//! - A generation that is wanted to release a lane does so after the run that is going on, whoever else
//!   waits here: no side starves the other.
//! - When a neighbour is gone, what it held is here.
//! - The lane of a session that was made a moment ago is where it was made. The incumbent is told so ahead of anything
//!   that is published of the session, so nobody there can enter it first.

use std::collections::{BTreeMap, VecDeque};

use handoff::migrate::Neighbour;

/// How many runs may wait in one lane.
pub(super) const MOST_WAITING: usize = 64;

/// Who waits, or was granted a lane; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

/// What follows from a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// This one may run.
    Granted(Ticket),
    /// The neighbour is to be asked for the lane of this session.
    Want(Neighbour, String),
    /// The neighbour is to be told that it has the lane of this session.
    Release(Neighbour, String),
}

/// The lanes of one generation.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<String, Lane>,
    has_incumbent: bool,
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Here,
    There(Neighbour),
}

#[derive(Debug)]
struct Lane {
    holder: Holder,
    running: bool,
    waiting: VecDeque<Ticket>,
    /// The neighbour was asked for it.
    asked: bool,
    /// This neighbour has asked for it.
    wanted_by: Option<Neighbour>,
}

impl Lane {
    /// What can be done about it now.
    fn settle(&mut self, session: &str, consequences: &mut Vec<Consequence>) {
        if self.running {
            return;
        }
        if let (Holder::Here, Some(neighbour)) = (self.holder, self.wanted_by.take()) {
            self.holder = Holder::There(neighbour);
            consequences.push(Consequence::Release(neighbour, session.to_owned()));
        }
        match self.holder {
            Holder::Here => {
                if let Some(ticket) = self.waiting.pop_front() {
                    self.running = true;
                    consequences.push(Consequence::Granted(ticket));
                }
            }
            Holder::There(neighbour) => {
                if !self.waiting.is_empty() && !self.asked {
                    self.asked = true;
                    consequences.push(Consequence::Want(neighbour, session.to_owned()));
                }
            }
        }
    }
}

impl Lanes {
    /// Someone wants to run in a lane, and is granted it sooner or later; `None` when too many wait.
    pub(super) fn enter(&mut self, session: &str) -> Option<(Ticket, Vec<Consequence>)> {
        let lane = self.lane(session);
        if lane.waiting.len() >= MOST_WAITING {
            return None;
        }
        self.next += 1;
        let ticket = Ticket(self.next);
        self.lane(session).waiting.push_back(ticket);
        Some((ticket, self.settle(session)))
    }

    /// Someone is to run in the lane of a session that nobody else has heard of, and does not wait.
    pub(super) fn enter_new(&mut self, session: &str) -> (Ticket, Vec<Consequence>) {
        let has_incumbent = self.has_incumbent;
        self.next += 1;
        let ticket = Ticket(self.next);
        let lane = self.lane(session);
        lane.holder = Holder::Here;
        lane.waiting.push_back(ticket);
        let mut consequences = Vec::new();
        if has_incumbent {
            consequences.push(Consequence::Want(Neighbour::Incumbent, session.to_owned()));
        }
        consequences.extend(self.settle(session));
        (ticket, consequences)
    }

    /// The one who was granted the lane has done.
    pub(super) fn leave(&mut self, session: &str) -> Vec<Consequence> {
        self.lane(session).running = false;
        self.settle(session)
    }

    /// Someone waits no more.
    pub(super) fn give_up(&mut self, session: &str, ticket: Ticket) {
        self.lane(session).waiting.retain(|waiting| *waiting != ticket);
        self.forget_if_idle(session);
    }

    /// There is a neighbour from now on.
    pub(super) const fn linked(&mut self, neighbour: Neighbour) {
        if let Neighbour::Incumbent = neighbour {
            self.has_incumbent = true;
        }
    }

    /// The neighbour is gone.
    pub(super) fn unlinked(&mut self, neighbour: Neighbour) -> Vec<Consequence> {
        if neighbour == Neighbour::Incumbent {
            self.has_incumbent = false;
        }
        let sessions: Vec<String> = self.lanes.keys().cloned().collect();
        let mut consequences = Vec::new();
        for session in sessions {
            let lane = self.lane(&session);
            if lane.holder == Holder::There(neighbour) {
                lane.holder = Holder::Here;
                lane.asked = false;
            }
            if lane.wanted_by == Some(neighbour) {
                lane.wanted_by = None;
            }
            consequences.extend(self.settle(&session));
        }
        consequences
    }

    /// The neighbour has asked for a lane.
    pub(super) fn wanted(&mut self, neighbour: Neighbour, session: &str) -> Vec<Consequence> {
        self.lane(session).wanted_by = Some(neighbour);
        self.settle(session)
    }

    /// The neighbour has released a lane.
    pub(super) fn released(&mut self, neighbour: Neighbour, session: &str) -> Vec<Consequence> {
        let lane = self.lane(session);
        if lane.holder == Holder::There(neighbour) {
            lane.holder = Holder::Here;
            lane.asked = false;
        }
        self.settle(session)
    }

    const fn usual_holder(&self) -> Holder {
        if self.has_incumbent { Holder::There(Neighbour::Incumbent) } else { Holder::Here }
    }

    fn lane(&mut self, session: &str) -> &mut Lane {
        let holder = self.usual_holder();
        self.lanes.entry(session.to_owned()).or_insert_with(|| Lane {
            holder,
            running: false,
            waiting: VecDeque::new(),
            asked: false,
            wanted_by: None,
        })
    }

    fn settle(&mut self, session: &str) -> Vec<Consequence> {
        let mut consequences = Vec::new();
        self.lane(session).settle(session, &mut consequences);
        self.forget_if_idle(session);
        consequences
    }

    /// A lane that is as it would be if it were not known is not kept.
    fn forget_if_idle(&mut self, session: &str) {
        let usual = self.usual_holder();
        let is_usual = |lane: &Lane| {
            !lane.running
                && lane.waiting.is_empty()
                && !lane.asked
                && lane.wanted_by.is_none()
                && lane.holder == usual
        };
        if self.lanes.get(session).is_some_and(is_usual) {
            self.lanes.remove(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two generations and what they have said to one another and not heard yet.
    #[derive(Default)]
    struct Two {
        lanes: [Lanes; 2],
        /// To the incumbent, and to the successor.
        words: [VecDeque<(bool, String)>; 2],
        running: BTreeMap<String, usize>,
        granted: usize,
        entered: usize,
        linked: bool,
    }

    const NEIGHBOURS: [Neighbour; 2] = [Neighbour::Successor, Neighbour::Incumbent];

    impl Two {
        fn linked() -> Self {
            let mut two = Self { linked: true, ..Self::default() };
            two.lanes[0].linked(Neighbour::Successor);
            two.lanes[1].linked(Neighbour::Incumbent);
            two
        }

        fn follow(&mut self, side: usize, consequences: Vec<Consequence>) {
            for consequence in consequences {
                match consequence {
                    Consequence::Granted(_) => {
                        self.granted += 1;
                        let session = self.session_of_grant(side);
                        assert!(
                            self.running.insert(session.clone(), side).is_none(),
                            "two runs in {session}"
                        );
                    }
                    Consequence::Want(neighbour, session) => {
                        assert_eq!(neighbour, NEIGHBOURS[side]);
                        self.words[1 - side].push_back((true, session));
                    }
                    Consequence::Release(neighbour, session) => {
                        assert_eq!(neighbour, NEIGHBOURS[side]);
                        self.words[1 - side].push_back((false, session));
                    }
                }
            }
        }

        /// The lane that runs on this side and is not known to.
        fn session_of_grant(&self, side: usize) -> String {
            let running = self.lanes[side].lanes.iter().filter(|(_, lane)| lane.running);
            let mut fresh = running
                .map(|(session, _)| session.clone())
                .filter(|session| self.running.get(session) != Some(&side));
            fresh.next().expect("a grant runs")
        }

        fn enter(&mut self, side: usize, session: &str) {
            if let Some((_, consequences)) = self.lanes[side].enter(session) {
                self.entered += 1;
                self.follow(side, consequences);
            }
        }

        fn hear(&mut self, side: usize) {
            if let Some((wants, session)) = self.words[side].pop_front() {
                let lanes = &mut self.lanes[side];
                let consequences = if wants {
                    lanes.wanted(NEIGHBOURS[side], &session)
                } else {
                    lanes.released(NEIGHBOURS[side], &session)
                };
                self.follow(side, consequences);
            }
        }

        fn leave(&mut self, session: &str) {
            if let Some(side) = self.running.remove(session) {
                let consequences = self.lanes[side].leave(session);
                self.follow(side, consequences);
            }
        }

        /// The incumbent ends, with its runs.
        fn end_incumbent(&mut self) {
            while !self.words[1].is_empty() {
                self.hear(1);
            }
            self.running.retain(|_, side| *side == 1);
            let lost: usize = self.lanes[0].lanes.values().map(|lane| lane.waiting.len()).sum();
            self.entered -= lost;
            self.lanes[0] = Lanes::default();
            self.words = Default::default();
            self.linked = false;
            let consequences = self.lanes[1].unlinked(Neighbour::Incumbent);
            self.follow(1, consequences);
        }
    }

    #[test]
    fn without_a_neighbour_runs_of_a_session_follow_one_another() {
        let mut lanes = Lanes::default();
        let (first, granted) = lanes.enter("a").unwrap();
        assert_eq!(granted, [Consequence::Granted(first)]);
        let (second, waits) = lanes.enter("a").unwrap();
        assert_eq!(waits, []);
        let (other, granted) = lanes.enter("b").unwrap();
        assert_eq!(granted, [Consequence::Granted(other)]);
        assert_eq!(lanes.leave("a"), [Consequence::Granted(second)]);
        assert_eq!(lanes.leave("a"), []);
        assert_eq!(lanes.leave("b"), []);
        assert!(lanes.lanes.is_empty(), "idle lanes are kept: {lanes:?}");
    }

    #[test]
    fn only_so_many_wait_in_a_lane_and_one_that_gives_up_is_passed_over() {
        let mut lanes = Lanes::default();
        lanes.enter("a").unwrap();
        let waiting: Vec<_> = (0..MOST_WAITING).map(|_| lanes.enter("a").unwrap().0).collect();
        assert!(lanes.enter("a").is_none());
        lanes.give_up("a", waiting[0]);
        assert_eq!(lanes.leave("a"), [Consequence::Granted(waiting[1])]);
    }

    #[test]
    fn a_successor_runs_nothing_in_a_lane_before_the_incumbent_has_released_it() {
        let mut two = Two::linked();
        two.enter(0, "a");
        two.enter(1, "a");
        two.hear(0);
        assert_eq!((two.granted, two.running["a"]), (1, 0));
        two.leave("a");
        two.hear(1);
        assert_eq!((two.granted, two.running["a"]), (2, 1));
    }

    #[test]
    fn a_new_session_runs_where_it_was_made_and_the_incumbent_waits_for_it() {
        let mut two = Two::linked();
        let (_, consequences) = two.lanes[1].enter_new("a");
        two.entered += 1;
        two.follow(1, consequences);
        assert_eq!((two.granted, two.running["a"]), (1, 1), "it does not wait for the incumbent");
        // The incumbent has heard of the lane before anybody there can have heard of the session.
        two.hear(0);
        two.enter(0, "a");
        two.hear(1);
        two.hear(1);
        assert_eq!(two.granted, 1);
        two.leave("a");
        two.hear(0);
        assert_eq!((two.granted, two.running["a"]), (2, 0));
        let mut alone = Lanes::default();
        let (ticket, granted) = alone.enter_new("a");
        assert_eq!(granted, [Consequence::Granted(ticket)]);
        alone.leave("a");
        assert!(alone.lanes.is_empty(), "idle lanes are kept: {alone:?}");
    }

    #[test]
    fn when_the_incumbent_ends_its_successor_has_every_lane() {
        let mut two = Two::linked();
        two.enter(0, "a");
        two.enter(1, "a");
        two.enter(1, "b");
        two.end_incumbent();
        assert_eq!((two.granted, two.running.len()), (3, 2));
        assert!(two.running.values().all(|side| *side == 1));
    }

    #[test]
    fn when_the_successor_ends_the_incumbent_has_back_what_it_released() {
        let mut two = Two::linked();
        two.enter(1, "a");
        two.hear(0);
        two.enter(0, "a");
        let consequences = two.lanes[0].unlinked(Neighbour::Successor);
        assert!(matches!(consequences[..], [Consequence::Granted(_)]));
    }

    /// Every order in which things can happen, at random: never two runs in one lane, and in the end
    /// everybody has run.
    #[test]
    fn whatever_happens_a_lane_has_one_run_and_everybody_runs() {
        use proptest::test_runner::{Config, TestRunner};
        let mut runner = TestRunner::new(Config::with_cases(2000));
        runner
            .run(&proptest::collection::vec((0..6_u8, 0..2_usize, 0..3_usize), 0..120), |steps| {
                let mut two = Two::linked();
                for (what, side, session) in steps {
                    let session = ["a", "b", "c"][session];
                    match what {
                        0 | 1 if side == 1 || two.linked => two.enter(side, session),
                        2 | 3 => two.hear(side),
                        4 => two.leave(session),
                        5 if side == 0 && session == "c" && two.linked => two.end_incumbent(),
                        _ => {}
                    }
                }
                for _ in 0..2000 {
                    two.hear(0);
                    two.hear(1);
                    for session in ["a", "b", "c"] {
                        two.leave(session);
                    }
                }
                proptest::prop_assert!(two.granted >= two.entered, "somebody never ran");
                proptest::prop_assert!(two.lanes[1].lanes.values().all(|lane| !lane.running));
                Ok(())
            })
            .unwrap();
    }
}
