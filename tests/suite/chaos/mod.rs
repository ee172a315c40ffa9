//! Fronts under load to which anything may happen at any moment, in an order that nobody has thought of.
//!
//! ```text
//! seed ─► schedule.rs: steps and their prices ─► stage.rs: done to a front ─► invariants.rs: still true?
//!                                                audience.rs: clients all the while ─► was it the price?
//! ```
//!
//! `HOLDFAST_CHAOS_SEED=7` runs the schedule of that seed alone; `HOLDFAST_CHAOS_SCHEDULES=5000` runs so many
//! of them, of seeds that are new each time. A failure says its seed and what had been done.
//!
//! **Invariants**
//! - No clock decides: a step ends when what it waits for is there, and fails when it never comes.
//! - A step that may cost something ends its clients' account, and the next one begins with fresh clients;
//!   where nothing is lost they live on through all of them.

mod audience;
mod dice;
mod invariants;
mod schedule;
mod stage;

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;

use audience::{Audience, Toll};
use dice::Dice;
use invariants::Baseline;
use schedule::{Price, Schedule, Step};
use stage::{Stage, wake_the_stopped};

/// Runs the schedule of this seed, and no other.
const SEED_VARIABLE: &str = "HOLDFAST_CHAOS_SEED";
/// Says how many schedules are run.
const SCHEDULES_VARIABLE: &str = "HOLDFAST_CHAOS_SCHEDULES";
/// How many, unless told.
const SCHEDULES: u64 = 60;
/// How many tests share them.
const LANES: u64 = 4;
/// How many of each test's run side by side: most of each is waiting.
const ABREAST: usize = 4;
/// Of fewer schedules than that it may be that none meets a fault.
const FEW: u64 = 10;
/// One step in so many has a slow request under way.
const SLOW: u64 = 5;

/// Tells of a schedule that has failed.
struct Story<'a> {
    schedule: &'a Schedule,
    begun: Vec<Step>,
}

impl Drop for Story<'_> {
    #[expect(clippy::print_stderr, reason = "the test harness shows stderr of a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Schedule { seed, order, standby, fronts_fault, .. } = self.schedule;
            eprintln!("--- failed; again with {SEED_VARIABLE}={seed} ---");
            eprintln!("{order:?}, standby {standby:?}, the front's own fault {fronts_fault:?}");
            eprintln!("steps, the last unfinished:");
            self.begun.iter().for_each(|step| eprintln!("  {step}"));
        }
    }
}

/// Lives through a schedule, and says how many faults were met.
async fn keeps_its_promises(schedule: &Schedule) -> usize {
    let mut story = Story { schedule, begun: Vec::new() };
    let mut dice = Dice::of(schedule.seed);
    let mut stage = Stage::set(schedule).await;
    let mut baseline = Baseline::of(&stage).await;
    let mut audience = Audience::of(&stage.front).await;
    for &step in &schedule.steps {
        story.begun.push(step);
        if dice.once_in(SLOW) && step != Step::FullDisk {
            audience.send_slow();
        }
        if step == Step::LoseTheFront {
            let toll = stage.lose_the_front(schedule).await;
            audience = carries_on(&stage, schedule, step, toll, audience).await;
            // What a front has open that goes on with another's workers is its own affair.
            baseline = baseline.of_the_same_sockets(Baseline::of(&stage).await);
            continue;
        }
        let lived_through = async {
            let (toll, audience) = if step == Step::FullDisk {
                // A turn of a conversation is not kept then, so it is not made.
                audience.leaves(Price::Nothing, schedule.order, Toll::default()).await;
                let toll = stage.perform(step).await;
                (toll, Audience::of(&stage.front).await)
            } else {
                (stage.perform(step).await, audience)
            };
            carries_on(&stage, schedule, step, toll, audience).await
        };
        audience = tokio::select! {
            audience = lived_through => audience,
            () = baseline.holds_all_the_time(&stage.front) => unreachable!("it looks for ever"),
            () = wake_the_stopped(stage.front.log()) => unreachable!("it waits for ever"),
        };
        baseline.holds_at_rest(&stage).await;
    }
    audience.leaves(Price::Nothing, schedule.order, Toll::default()).await;
    baseline.holds_at_rest(&stage).await;
    baseline.holds_in_the_kernel(&stage.front);
    stage.front.log().lines_with("fault met: ")
}

/// Everybody is served after a step. Where it may have cost something that is settled, and others come.
async fn carries_on(
    stage: &Stage,
    schedule: &Schedule,
    step: Step,
    toll: Toll,
    audience: Audience,
) -> Audience {
    audience.is_served().await;
    let price = step.price(schedule.order);
    if price == Price::Nothing || step == Step::FullDisk {
        return audience;
    }
    audience.leaves(price, schedule.order, toll).await;
    Audience::of(&stage.front).await
}

/// One test's share of the schedules.
#[expect(clippy::print_stderr, reason = "the test harness keeps it for whoever asks")]
async fn lane(number: u64) {
    if let Some(seed) = told(SEED_VARIABLE) {
        if number == 0 {
            let schedule = Schedule::drawn(seed);
            eprintln!("{schedule:#?}");
            keeps_its_promises(&schedule).await;
        }
        return;
    }
    let count = told(SCHEDULES_VARIABLE).unwrap_or(SCHEDULES).div_ceil(LANES);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let mut seeds = Dice::of(u64::try_from(now.as_nanos()).unwrap_or(0) ^ number);
    let (mut running, mut met) = (JoinSet::new(), 0);
    for _ in 0..count {
        if running.len() == ABREAST {
            met += kept(&mut running).await;
        }
        // Short enough to be typed.
        let schedule = Schedule::drawn(seeds.below(1_000_000));
        eprintln!("{SEED_VARIABLE}={}", schedule.seed);
        // A task each: what one of them panics of is not the others'.
        running.spawn_local(async move { keeps_its_promises(&schedule).await });
    }
    while !running.is_empty() {
        met += kept(&mut running).await;
    }
    assert!(met > 0 || count < FEW, "{count} schedules, and no fault was met");
}

/// How many faults the next of them has met that ends.
async fn kept(running: &mut JoinSet<usize>) -> usize {
    match running.join_next().await {
        Some(Ok(met)) => met,
        Some(Err(error)) => {
            // Those beside it have done nothing wrong, and say nothing.
            running.shutdown().await;
            std::panic::resume_unwind(error.into_panic())
        }
        None => 0,
    }
}

fn told(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().expect("it is a number"))
}

macro_rules! lanes {
    ($($name:ident: $number:literal;)+) => {
        $(mod $name {
            #[tokio::test]
            async fn whatever_happens_to_a_front_it_keeps_its_promises() {
                tokio::task::LocalSet::new().run_until(super::lane($number)).await;
            }
        })+
    };
}

lanes! {
    first: 0;
    second: 1;
    third: 2;
    fourth: 3;
}
