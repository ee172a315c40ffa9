//! The status document: everything the front knows about itself, as `holdfast status --json` prints it.
//!
//! **Invariants**
//! - A field that is there stays, with its type; one that comes has a default, for fronts that do not know it.
//!   `deploy/status.schema.json` describes them all.

use handoff::GenerationId;
use handoff::message::{Connections, OldestWork};
use serde::{Deserialize, Serialize};

use super::protocol::Outcome;

/// Everything the front knows about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The version of this document.
    pub(crate) schema: u32,
    pub(crate) front: FrontStatus,
    pub(crate) listeners: Vec<ListenerStatus>,
    pub(crate) generations: Vec<GenerationStatus>,
    pub(crate) takeover: Option<TakeoverStatus>,
    /// Whether one waits, for that one or for a drain.
    #[serde(default)]
    pub(crate) takeover_pending: bool,
    pub(crate) last_takeover: Option<LastTakeover>,
    pub(crate) last_failure: Option<LastFailure>,
    pub(crate) next_takeover: NextTakeover,
    pub(crate) respawn: Option<Respawn>,
    pub(crate) stopping: bool,
    pub(crate) takeovers: TakeoverCounts,
    #[serde(default)]
    pub(crate) reexecs: ReexecCounts,
    pub(crate) crashes: u64,
    /// Connections that had waited too long for somebody to accept, and were closed.
    #[serde(default)]
    pub(crate) turned_away: u64,
    /// The operator's pause, while it lasts.
    #[serde(default)]
    pub(crate) paused: Option<Paused>,
    /// With a standby: the pause before the next one's start, after one that failed.
    #[serde(default)]
    pub(crate) next_standby: Option<Respawn>,
    /// The last program that served well: what a crash loop of another one goes back to.
    #[serde(default)]
    pub(crate) proven_program: Option<String>,
    /// The program that crashed again and again, and was left for the previous one.
    #[serde(default)]
    pub(crate) left_program: Option<LeftProgram>,
    /// What happened lately, the oldest first: 50 at most.
    #[serde(default)]
    pub(crate) events: Vec<Happened>,
    /// The last takeovers, the oldest first, up to [`Self::last_takeover`]: 20 at most.
    #[serde(default)]
    pub(crate) recent_takeovers: Vec<LastTakeover>,
    /// Set when workers may attach themselves.
    #[serde(default)]
    pub(crate) attach: Option<AttachStatus>,
}

impl Status {
    /// Whether a worker accepts connections, whatever else it is about to do.
    pub(crate) fn somebody_accepts(&self) -> bool {
        let accepts = |state: &str| matches!(state, "serving" | "stopping" | "emptying");
        self.generations.iter().any(|generation| accepts(&generation.state))
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Happened {
    pub(crate) age_ms: u64,
    /// A word, such as `rolled-back`; later versions have others.
    pub(crate) kind: String,
    pub(crate) generation: Option<GenerationId>,
    pub(crate) sentence: String,
}

/// Where workers attach, and who waits there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttachStatus {
    pub(crate) path: String,
    /// Whether nobody serves until one comes.
    pub(crate) awaits_worker: bool,
    /// Those that wait for their turn, by what they say they are.
    pub(crate) waiting: Vec<String>,
}

/// How a generation came to the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum OriginStatus {
    /// The front has started it.
    Started,
    /// An earlier front had.
    Adopted,
    /// It came by itself: its pid is another namespace's.
    Attached { user: u32 },
}

/// A time in which nobody accepts, because the operator wants so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paused {
    pub(crate) generation: GenerationId,
    /// Until it ends by itself.
    pub(crate) remaining_ms: u64,
}

/// A program in a crash loop, and what was started instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftProgram {
    pub(crate) program: String,
    pub(crate) back_to: String,
    /// How it ended the last time.
    pub(crate) reason: String,
    pub(crate) age_ms: u64,
}

/// The front's own process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FrontStatus {
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) uptime_ms: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) descriptors: u64,
    /// `None` from a front of an earlier version.
    #[serde(default)]
    pub(crate) limits: Option<LimitsStatus>,
    /// Lines of the front's log that nobody read in time.
    #[serde(default)]
    pub(crate) log_lines_lost: u64,
    /// Where workers' output goes, if not where the front's own goes.
    #[serde(default)]
    pub(crate) log_file: Option<String>,
    /// Set for one that went on with the workers of an earlier front.
    #[serde(default)]
    pub(crate) recovered: Option<RecoveredStatus>,
}

/// The workers of an earlier front that this one went on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecoveredStatus {
    pub(crate) generations: Vec<GenerationId>,
    pub(crate) age_ms: u64,
}

/// How much the front, and each of its workers, may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitsStatus {
    /// The limit in force, in descriptors.
    pub(crate) descriptors: u64,
    /// The one the front was started with.
    pub(crate) descriptors_at_start: u64,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerStatus {
    pub(crate) address: String,
    pub(crate) shard: u32,
    pub(crate) inode: u64,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GenerationStatus {
    pub(crate) generation: GenerationId,
    pub(crate) state: String,
    /// 0 for one that has attached itself.
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) origin: Option<OriginStatus>,
    pub(crate) age_ms: u64,
    pub(crate) program: String,
    pub(crate) lease: bool,
    /// What it says it fails at.
    pub(crate) failing: Vec<String>,
    /// `None` when it did not answer in time.
    pub(crate) connections: Option<Connections>,
    pub(crate) in_flight: Option<u64>,
    pub(crate) oldest: Option<OldestWork>,
    /// The memory of its process and of all it has started; `None` when nobody can tell.
    #[serde(default)]
    pub(crate) resident_bytes: Option<u64>,
    /// Of one that drains: until it is ended, if it has not finished.
    #[serde(default)]
    pub(crate) drains_within_ms: Option<u64>,
}

/// The takeover that is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TakeoverStatus {
    pub(crate) step: String,
    pub(crate) incumbent: Option<GenerationId>,
    pub(crate) successor: Option<GenerationId>,
    /// Whether another one waits for it.
    pub(crate) pending: bool,
    #[serde(default)]
    pub(crate) number: u64,
    /// Since it began.
    #[serde(default)]
    pub(crate) age_ms: u64,
    #[serde(default)]
    pub(crate) phases: Phases,
}

/// The takeover that ended last, or was committed and still drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastTakeover {
    #[serde(default)]
    pub(crate) number: u64,
    /// Since it began.
    #[serde(default)]
    pub(crate) age_ms: u64,
    pub(crate) successor: Option<GenerationId>,
    pub(crate) incumbent: Option<GenerationId>,
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<String>,
    pub(crate) phases: Phases,
    #[serde(default)]
    pub(crate) moved: Option<Connections>,
    /// Sessions that the successor goes on with; no connections.
    #[serde(default)]
    pub(crate) sessions: Option<u64>,
    pub(crate) finished: Option<Connections>,
    pub(crate) closed: Option<Connections>,
    pub(crate) cut: Option<Connections>,
    /// Of one that was rolled back: what had moved to the successor, and ended with it.
    #[serde(default)]
    pub(crate) lost: Option<Connections>,
    /// With `stop-first`: how long newcomers waited at most, in ms.
    #[serde(default)]
    pub(crate) held_ms: Option<u64>,
    /// With `stop-first`: connections that had waited too long, and were closed.
    #[serde(default)]
    pub(crate) turned_away: u64,
}

/// When each phase was reached, in ms since the takeover began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Phases {
    pub(crate) started_ms: Option<u64>,
    pub(crate) ready_ms: Option<u64>,
    pub(crate) accepting_ms: Option<u64>,
    pub(crate) switched_ms: Option<u64>,
    pub(crate) committed_ms: Option<u64>,
    pub(crate) drained_ms: Option<u64>,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastFailure {
    pub(crate) generation: Option<GenerationId>,
    pub(crate) reason: String,
    pub(crate) age_ms: u64,
}

/// When the next takeover can begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "possible", rename_all = "kebab-case")]
pub(crate) enum NextTakeover {
    /// At once.
    Now,
    /// When this generation is drained, at the latest after so long.
    After { generation: GenerationId, within_ms: u64 },
    /// When the running one is over.
    AfterThisOne,
    /// When the front is resumed.
    AfterPause,
    /// Never: the front stops.
    Never,
}

/// The pause before the next start of a worker that keeps failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Respawn {
    pub(crate) in_ms: u64,
}

/// How takeovers ended since the front started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TakeoverCounts {
    pub(crate) committed: u64,
    pub(crate) rolled_back: u64,
}

/// How often the front became another image of itself since it was started, and how often it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReexecCounts {
    pub(crate) done: u64,
    pub(crate) failed: u64,
}
