//! How long the front is gone while it becomes another image, and what it has resident after many of everything.

use std::time::Duration;

use holdfast_tests::rig::Front;
use serde_json::Value;
use tokio::time::sleep;

use crate::figures::{Durations, in_ms};
use crate::ledger::Promise;
use crate::report::{Goal, Report};
use crate::size::{GOAL, in_mb, settled};

/// How many re-execs.
const REEXECS: usize = 100;
/// How many takeovers between two of them.
const TAKEOVERS_EACH: usize = 10;
/// What an exec may take.
const LIMIT: Duration = Duration::from_millis(5);
/// How long an idle front is watched.
const WATCHED: Duration = Duration::from_secs(5);

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "reexec: the front becomes another image of itself",
        &format!(
            "{REEXECS} times `holdfast reexec`, with {TAKEOVERS_EACH} takeovers between two of them; --soak 20ms --standby. \
             From the exec to where the new image is ready, by the front's own account."
        ),
    );
    let front = Front::with(|s| s.flag("--soak", "20ms").switch("--standby")).await;
    let at_start = settled_with_standby(&front).await;
    let mut took = Vec::with_capacity(REEXECS);
    for _ in 0..REEXECS {
        let outcome = front.run(&["reexec", "--json"]).await;
        outcome.assert_code(0);
        let answer: Value = serde_json::from_str(&outcome.output).expect("it answers in JSON");
        let us = answer["elapsed_us"].as_u64().expect("it says how long it took");
        took.push(Duration::from_micros(us));
        for _ in 0..TAKEOVERS_EACH {
            front.takeover().await.assert_committed();
        }
    }
    let after = settled_with_standby(&front).await;
    let took: Durations = took.into_iter().collect();
    let worst = took.percentile(100);
    report.figure("exec → ready, median", &in_ms(took.percentile(50)));
    report.figure_with_goal(
        "exec → ready, worst",
        &in_ms(worst),
        Goal::new("< 5 ms", worst < LIMIT),
    );
    report.figure("after its start", &at_start.to_string());
    let all = REEXECS * TAKEOVERS_EACH;
    report.figure_with_goal(
        &format!("resident after {all} takeovers and {REEXECS} re-execs"),
        &in_mb(after.resident),
        Goal::new("< 4 MB", after.resident < GOAL),
    );
    report.figure("the same in full", &after.to_string());
    let before = (front.process().switches(), front.process().cpu_ticks());
    sleep(WATCHED).await;
    let now = (front.process().switches(), front.process().cpu_ticks());
    report.figure_with_goal(
        &format!("times it woke within {WATCHED:?} of nothing, and ticks of CPU"),
        &format!("{} and {}", now.0 - before.0, now.1 - before.1),
        Goal::new("0 and 0", now == before),
    );
    Promise::Kept
}

/// Its size once the next standby is there.
async fn settled_with_standby(front: &Front) -> crate::size::Size {
    front.until("a standby is ready", |status| status.standby().is_some()).await;
    // The two have to prove themselves before the front has nothing to wait for.
    front.until("both have proved themselves", |status| status.proven_program.is_some()).await;
    settled(front).await
}
