//! What happens to a front, drawn from a seed before any of it happens.
//!
//! A new kind of step is one variant of [`Step`], a line where it is drawn, and what it does in `stage.rs`.
//!
//! **Invariants**
//! - A schedule is a function of its seed: nothing that happens changes what comes next.
//! - Each step says beforehand what it may cost ([`Price`]).

use std::fmt;
use std::time::Duration;

use super::dice::Dice;

/// How many steps a schedule has, least and most.
const STEPS: (u64, u64) = (4, 6);
/// How long after the request of a takeover something else happens at the latest, in ms.
const LATEST: u64 = 500;

/// One front's fate.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) order: Order,
    /// Whether a ready successor waits all the time.
    pub(super) standby: Standby,
    /// A fault of the front's own, as its environment has it.
    pub(super) fronts_fault: Option<Fault>,
    pub(super) steps: Vec<Step>,
}

/// `--takeover-order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    StartFirst,
    StopFirst,
}

/// `--standby`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standby {
    None,
    Waits,
}

/// One thing that is done to a front under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Takeover,
    /// So many requests at once.
    Takeovers(u64),
    /// A takeover by a program that fails at a point of its own code.
    FaultySuccessor(Fault),
    /// One by such a program, which is fine until the takeover after it.
    FaultyIncumbent(Fault),
    /// Something happens while nothing else does.
    AtRest(Disturbance),
    /// Something happens so long after a takeover was requested.
    Amid(Disturbance, Duration),
    /// `drain --now`, of whoever drains or serves, so long after a takeover was requested.
    DrainNow(Duration),
    /// Nobody accepts for a while, as the operator wishes.
    Pause,
    /// kill -9 of the front, another one in its place, and a takeover.
    LoseTheFront,
    /// The state's disk has no room for a while.
    FullDisk,
}

/// What happens to a process from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// kill -9 of the worker that serves.
    KillServing,
    /// kill -9 of the worker that was started last.
    KillNewest,
    /// Each worker stands still for a moment.
    StopWorkers,
    /// The front stands still for a moment.
    StopFront,
    /// The front becomes another image of itself, or refuses to.
    Reexec,
}

/// A fault as `handoff::fault` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    point: &'static str,
    act: &'static str,
    turn: u64,
}

/// What a step may cost the clients that live through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Price {
    /// Nothing at all: nobody notices.
    Nothing,
    /// Connections that cannot move end, politely or counted.
    ToldOrCounted,
    /// What the killed worker had in hand. Newcomers wait, and are served.
    WhatTheKilledHad,
}

impl Schedule {
    pub(super) fn drawn(seed: u64) -> Self {
        let mut dice = Dice::of(seed);
        let order = if dice.once_in(4) { Order::StopFirst } else { Order::StartFirst };
        let may_stand_by = order == Order::StartFirst && dice.once_in(4);
        let standby = if may_stand_by { Standby::Waits } else { Standby::None };
        let fronts_fault = dice.once_in(3).then(|| Fault::of_the_front(&mut dice));
        let count = STEPS.0 + dice.below(STEPS.1 - STEPS.0 + 1);
        let mut steps: Vec<Step> = (0..count).map(|_| Step::drawn(&mut dice, order)).collect();
        // A fault of the front's own is the next front's too, and would meet it as it starts.
        if fronts_fault.is_none() && dice.once_in(3) {
            let last = steps.len() - 1;
            steps[last] = Step::LoseTheFront;
        }
        Self { seed, order, standby, fronts_fault, steps }
    }
}

impl Step {
    fn drawn(dice: &mut Dice, order: Order) -> Self {
        let later = |dice: &mut Dice| Duration::from_millis(dice.below(LATEST));
        match dice.below(14) {
            0 | 1 => Self::Takeover,
            2 => Self::Takeovers(2 + dice.below(3)),
            3..=5 => Self::FaultySuccessor(Fault::of_a_successor(dice, order)),
            6 | 7 if order == Order::StartFirst => {
                Self::FaultyIncumbent(Fault::of_an_incumbent(dice))
            }
            6..=8 => {
                let disturbance = Disturbance::drawn(dice);
                Self::Amid(disturbance, later(dice))
            }
            9 => Self::AtRest(Disturbance::drawn(dice)),
            10 => Self::DrainNow(later(dice)),
            11 => Self::Pause,
            12 => Self::AtRest(Disturbance::Reexec),
            _ => Self::FullDisk,
        }
    }

    /// What it may cost at most.
    pub(super) fn price(self, order: Order) -> Price {
        let itself = match self {
            Self::Takeover | Self::Takeovers(_) | Self::Pause | Self::LoseTheFront => {
                Price::Nothing
            }
            Self::FaultySuccessor(fault) | Self::FaultyIncumbent(fault) => fault.price(),
            Self::AtRest(disturbance) | Self::Amid(disturbance, _) => disturbance.price(),
            Self::DrainNow(_) => Price::ToldOrCounted,
            // A worker that cannot write what it must is dropped, or drops what needs it.
            Self::FullDisk => Price::ToldOrCounted,
        };
        match (order, self) {
            // No connection moves to a worker that is not there yet.
            (Order::StopFirst, Self::Pause | Self::AtRest(_)) | (Order::StartFirst, _) => itself,
            (Order::StopFirst, _) => itself.max(Price::ToldOrCounted),
        }
    }
}

impl Disturbance {
    fn drawn(dice: &mut Dice) -> Self {
        dice.one_of(&[
            Self::KillServing,
            Self::KillNewest,
            Self::StopWorkers,
            Self::StopFront,
            Self::Reexec,
        ])
    }

    const fn price(self) -> Price {
        match self {
            Self::KillServing | Self::KillNewest => Price::WhatTheKilledHad,
            Self::StopWorkers | Self::StopFront | Self::Reexec => Price::Nothing,
        }
    }
}

impl Fault {
    fn of_the_front(dice: &mut Dice) -> Self {
        let point = dice.one_of(&[
            "front.spawned",
            "front.hello-sent",
            "front.admit-sent",
            "front.accepting-received",
            "front.stop-sent",
            "front.stopped-received",
            "front.introduced",
            "front.drain-sent",
            "front.lease-sent",
            "front.drained-received",
            "front.reexec-frozen",
            "image.begun",
            "image.state-read",
            "image.ready",
        ]);
        if point.starts_with("image.") {
            // An image counts its own turns, and is there once.
            let act = dice.one_of(&["stop", "delay:300", "panic", "segfault"]);
            return Self { point, act, turn: 1 };
        }
        // Not before the stage is set: that takes a worker and a standby.
        Self { point, act: dice.one_of(&["stop", "delay:300"]), turn: 3 + dice.below(3) }
    }

    fn of_a_successor(dice: &mut Dice, order: Order) -> Self {
        const EARLY: &[&str] = &["worker.hello-received", "worker.ready-said", "worker.admitted"];
        const MOVING: &[&str] = &[
            "target.offer-received",
            "target.prepared-sent",
            "target.commit-received",
            "target.resumed",
            "target.started-sent",
        ];
        if order == Order::StopFirst || dice.once_in(3) {
            let act = dice.one_of(&["kill", "stop", "delay:200"]);
            Self { point: dice.one_of(EARLY), act, turn: 1 }
        } else {
            Self::amid_a_move(dice, MOVING, "target.offer-received")
        }
    }

    fn of_an_incumbent(dice: &mut Dice) -> Self {
        const LATE: &[&str] = &["worker.stop-received", "worker.drain-received", "worker.leaving"];
        const MOVING: &[&str] = &[
            "source.asked",
            "source.frozen",
            "source.offer-sent",
            "source.prepared-received",
            "source.commit-sent",
            "source.started-received",
        ];
        if dice.once_in(3) {
            let act = dice.one_of(&["kill", "stop", "delay:200"]);
            Self { point: dice.one_of(LATE), act, turn: 1 }
        } else {
            Self::amid_a_move(dice, MOVING, "source.asked")
        }
    }

    /// One at a step of a move; only `at_a_loss` is where a worker may be out of descriptors.
    fn amid_a_move(dice: &mut Dice, points: &[&'static str], at_a_loss: &'static str) -> Self {
        let act = dice.one_of(&["kill", "stop", "delay:200", "drop-link", "garbage", "emfile"]);
        let point = if act == "emfile" { at_a_loss } else { dice.one_of(points) };
        Self { point, act, turn: 1 + dice.below(2) }
    }

    /// Whether an image of the front with this fault is given up for the one before.
    pub(super) fn breaks_images(self) -> bool {
        self.point.starts_with("image.") && ["panic", "segfault"].contains(&self.act)
    }

    fn price(self) -> Price {
        let early =
            self.turn == 1 && ["worker.hello-received", "worker.ready-said"].contains(&self.point);
        match self.act {
            // Nobody was its client yet.
            "kill" if early => Price::Nothing,
            "kill" => Price::WhatTheKilledHad,
            "drop-link" | "garbage" => Price::ToldOrCounted,
            // What cannot be handed over stays, and is told at the end of the drain.
            "emfile" if self.point.starts_with("source.") => Price::ToldOrCounted,
            _ => Price::Nothing,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}@{}", self.point, self.act, self.turn)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FaultySuccessor(fault) => write!(f, "FaultySuccessor({fault})"),
            Self::FaultyIncumbent(fault) => write!(f, "FaultyIncumbent({fault})"),
            _ => write!(f, "{self:?}"),
        }
    }
}

#[test]
fn a_schedule_is_a_function_of_its_seed() {
    for seed in 0..200 {
        let (one, other) = (Schedule::drawn(seed), Schedule::drawn(seed));
        assert_eq!((one.order, one.standby), (other.order, other.standby));
        assert_eq!(one.fronts_fault, other.fronts_fault);
        assert_eq!(one.steps, other.steps);
    }
}
