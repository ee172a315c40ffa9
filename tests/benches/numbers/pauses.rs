//! How long a connection stands still while it moves, as its client sees it.
//!
//! ```text
//! call ──► answer, 1 ms, call ──► answer, 1 ms, call ─────────── … ──────► answer
//!                           incumbent │  frozen, crosses, thaws │ successor
//!                                     └──────── pause ──────────┘
//!                       └──────────────── between two answers ─────────────┘
//!                                       └── waited for an answer ──────────┘
//! ```
//!
//! Client and workers share the cores, and 10,000 clients that call all the time would measure only
//! themselves. So a sample calls, and of the sample only those that are about to move: connections
//! move in the order in which they were accepted, and how far that has come is the number of
//! descriptors that the successor holds (the size of `/proc/PID/fd`, since Linux 6.2). Each calls from
//! well before its move until well after it.
//!
//! The pause lies between the two figures that are taken. *Between two answers* is never less than
//! it and has the client's own millisecond in it; *waited* misses what of the pause had passed before
//! the call.

use std::fs;
use std::time::{Duration, Instant};

use holdfast_tests::rig::Process;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fleet::Member;

/// Between an answer and the next call.
const PACE: Duration = Duration::from_millis(1);
/// How many connections before its own turn one begins to call.
const AHEAD: usize = 768;
/// How many may be frozen and not in the successor's hands yet: one that begins to call later than that
/// before its turn has perhaps begun too late. A wave is asked while two are on their way.
const FROZEN: usize = 3 * 16;
/// How many connections after its own turn one ends.
const BEHIND: usize = 512;

/// What one client saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    /// The longest time from one answer to the next.
    pub(crate) between: Duration,
    /// The longest time from a call to its answer.
    pub(crate) waited: Duration,
}

/// A sample of clients, each calling when it is about to move.
pub(crate) struct Sample {
    frontier: watch::Sender<usize>,
    calling: JoinSet<(Member, Option<Pause>)>,
}

impl Sample {
    /// Those whose turn comes first begin at once.
    pub(crate) fn of(members: Vec<Member>) -> Self {
        let frontier = watch::Sender::new(0);
        let mut calling = JoinSet::new();
        for mut member in members {
            let mut frontier = frontier.subscribe();
            calling.spawn(async move {
                let pause = call_around_turn(&mut member, &mut frontier).await;
                (member, pause)
            });
        }
        Self { frontier, calling }
    }

    /// So many have moved.
    pub(crate) fn reaches(&self, frontier: usize) {
        self.frontier.send_replace(frontier);
    }

    /// All have moved: the members, and the pause of each that was not late.
    pub(crate) async fn end(self) -> (Vec<Member>, Vec<Pause>) {
        self.frontier.send_replace(usize::MAX);
        let (members, pauses): (Vec<_>, Vec<_>) = self.calling.join_all().await.into_iter().unzip();
        (members, pauses.into_iter().flatten().collect())
    }
}

async fn call_around_turn(
    member: &mut Member,
    frontier: &mut watch::Receiver<usize>,
) -> Option<Pause> {
    let number = member.number;
    // An error means that nobody measures any more.
    let began_at = *frontier.wait_for(|at| at + AHEAD >= number || *at == usize::MAX).await.ok()?;
    if began_at > 0 && began_at.saturating_add(FROZEN) > number {
        return None;
    }
    let mut pause = Pause::default();
    let mut answered_at: Option<Instant> = None;
    while *frontier.borrow() < number + BEHIND {
        let called_at = Instant::now();
        member.call().await;
        if !member.is_well() {
            return None;
        }
        let now = Instant::now();
        pause.waited = pause.waited.max(now - called_at);
        pause.between = pause.between.max(answered_at.map_or(Duration::ZERO, |then| now - then));
        answered_at = Some(now);
        sleep(PACE).await;
    }
    Some(pause)
}

/// How many descriptors a process holds; 0 before Linux 6.2.
pub(crate) fn descriptors(process: Process) -> usize {
    let size = fs::metadata(format!("/proc/{}/fd", process.pid())).map_or(0, |fd| fd.len());
    usize::try_from(size).unwrap_or(usize::MAX)
}
