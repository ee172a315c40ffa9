//! The front's resident memory and descriptors, before and after takeovers.

use std::fmt;
use std::fs;
use std::time::Duration;

use holdfast_tests::rig::{Front, Process, Status};
use tokio::time::sleep;

use crate::ledger::Promise;
use crate::report::{Goal, Report};

/// How many takeovers.
const TAKEOVERS: usize = 100;
/// After how many of them the front has met every page of its program that it needs.
const WARM: usize = 10;
/// After how long a front rests that nobody asks anything.
const REST: Duration = Duration::from_secs(3);
/// The most it may have resident, in bytes.
pub(crate) const GOAL: u64 = 4_000_000;

/// How much of the machine a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// In bytes, as `/proc/PID/smaps_rollup` has it: `VmRSS` lags behind by some pages (proc(5)).
    pub(crate) resident: u64,
    /// The part of it that is no file's: heap, stack and what was written of data.
    anonymous: u64,
    descriptors: usize,
}

impl Size {
    pub(crate) fn of(process: Process) -> Self {
        let file = format!("/proc/{}/smaps_rollup", process.pid());
        let text = fs::read_to_string(file).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok())
                .map_or(0, |kibibytes| kibibytes * 1024)
        };
        let descriptors = process.descriptors().len();
        Self { resident: field("Rss:"), anonymous: field("Anonymous:"), descriptors }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} resident ({} of it anonymous), {} descriptors",
            in_mb(self.resident),
            in_mb(self.anonymous),
            self.descriptors
        )
    }
}

/// `3.94 MB`, of a million bytes each.
#[expect(clippy::cast_precision_loss, reason = "two digits of it are shown")]
pub(crate) fn in_mb(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "size: the front's memory and descriptors",
        &format!(
            "{TAKEOVERS} takeovers by `holdfast takeover`, which waits for each drain; --soak 20ms; \
             nobody else connects. Memory is Rss of smaps_rollup; 1 MB is a million bytes."
        ),
    );
    let front = Front::with(|s| s.flag("--soak", "20ms")).await;
    let at_start = settled(&front).await;
    report.figure("after its start", &at_start.to_string());
    let mut warm = at_start;
    for number in 1..=TAKEOVERS {
        front.takeover().await.assert_committed();
        if number == WARM {
            warm = settled(&front).await;
        }
    }
    let after = settled(&front).await;
    report.figure(&format!("after {WARM} takeovers"), &warm.to_string());
    report.figure(&format!("after {TAKEOVERS} takeovers"), &after.to_string());
    report.figure_with_goal(
        &format!("resident after {TAKEOVERS} takeovers"),
        &in_mb(after.resident),
        Goal::new("< 4 MB", after.resident < GOAL),
    );
    let grown = after.resident.saturating_sub(warm.resident);
    report.figure_with_goal(
        &format!("memory grown from the {WARM}th to the {TAKEOVERS}th"),
        &in_mb(grown),
        Goal::new("0", grown == 0),
    );
    let more = after.descriptors.saturating_sub(at_start.descriptors);
    report.figure_with_goal(
        &format!("descriptors more than before the first of {TAKEOVERS}"),
        &more.to_string(),
        Goal::new("0", more == 0),
    );
    Promise::Kept
}

/// Its size once nothing of a takeover is left, nor of the caller that asked whether something is.
pub(crate) async fn settled(front: &Front) -> Size {
    let alone = |status: &Status| status.takeover.is_none() && status.admitted_or_draining() == 1;
    front.until("one generation is left", alone).await;
    // A second after it was last asked it gives back what it does not use.
    sleep(REST).await;
    Size::of(front.process())
}
