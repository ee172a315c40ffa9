//! The worker's resident memory with many WebSockets that have connected and say nothing.

use holdfast_tests::rig::{Front, Process};

use crate::figures::grouped;
use crate::fleet::Fleet;
use crate::ledger::Promise;
use crate::report::{Goal, Report};
use crate::scale::Scale;
use crate::size::{Size, in_mb};

/// How many clients.
const CLIENTS: usize = 10_000;
/// The most that the worker may have resident with so many, in bytes.
const GOAL: u64 = 80_000_000;

pub(crate) async fn measure(report: &Report, scale: Scale) -> Promise {
    let clients = scale.connections(CLIENTS);
    let count = grouped(clients as u64);
    report.heading(
        &format!("idle-websockets: the worker's memory with {count} of them"),
        &format!(
            "{count} authenticated WebSockets that say nothing; then one takeover, --soak 20ms, \
             which moves them. Memory is Rss of smaps_rollup; 1 MB is a million bytes."
        ),
    );
    let front = Front::with(|s| s.flag("--soak", "20ms")).await;
    let incumbent = serving(&front).await;
    let before = Size::of(incumbent);
    let mut fleet = Fleet::connect(&front.address(), clients, 0).await;
    let with = Size::of(incumbent);
    front.takeover().await.assert_committed();
    let moved = Size::of(serving(&front).await);
    // Whether those were all there that were counted.
    fleet.call_each().await;
    let lost = fleet.faults(report);
    report.figure("worker without any", &before.to_string());
    report.figure(&format!("worker with {count}"), &with.to_string());
    report.figure("    for each", &for_each(with, before, clients));
    report.figure(&format!("successor to which {count} have moved"), &moved.to_string());
    report.figure_with_goal(
        &format!("resident with {count} idle WebSockets"),
        &in_mb(with.resident),
        Goal::new("< 80 MB at 10,000", with.resident < GOAL),
    );
    report.figure_with_goal("connections lost", &lost.to_string(), Goal::new("0", lost == 0));
    Promise::kept_if(lost == 0)
}

async fn serving(front: &Front) -> Process {
    front.serving().await.worker().expect("who serves is there")
}

#[expect(clippy::cast_precision_loss, reason = "a tenth of a KiB is shown")]
fn for_each(with: Size, before: Size, clients: usize) -> String {
    let grown = with.resident.saturating_sub(before.resident);
    format!("{:.1} KiB", grown as f64 / 1024.0 / clients as f64)
}
