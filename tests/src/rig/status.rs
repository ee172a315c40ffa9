//! What `holdfast status --json` says, as values.

use handoff::{Connections, GenerationId};
use serde::Deserialize;

use super::process::Process;

/// The version of the status this rig reads.
const SCHEMA: u32 = 1;

/// The state of a front and its generations at one moment.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the words of the status itself")]
pub struct Status {
    pub schema: u32,
    pub front: FrontStatus,
    pub listeners: Vec<Listener>,
    pub generations: Vec<Generation>,
    pub takeover: Option<TakeoverStatus>,
    pub last_takeover: Option<LastTakeover>,
    pub last_failure: Option<LastFailure>,
    pub next_takeover: NextTakeover,
    pub respawn: Option<Respawn>,
    pub stopping: bool,
    pub takeovers: Counts,
    #[serde(default)]
    pub reexecs: Reexecs,
    pub crashes: u64,
    #[serde(default)]
    pub turned_away: u64,
    pub paused: Option<Paused>,
    pub next_standby: Option<Respawn>,
    pub proven_program: Option<String>,
    pub left_program: Option<LeftProgram>,
    pub attach: Option<Attach>,
}

/// Where workers attach, and who waits there.
#[derive(Clone, Debug, Deserialize)]
pub struct Attach {
    /// Nobody serves until one comes.
    pub awaits_worker: bool,
    /// Those that wait for their turn.
    pub waiting: Vec<String>,
}

/// The pause that the operator asked for.
#[derive(Clone, Debug, Deserialize)]
pub struct Paused {
    pub generation: GenerationId,
    pub remaining_ms: u64,
}

/// A program in a crash loop, and what was started instead.
#[derive(Clone, Debug, Deserialize)]
pub struct LeftProgram {
    pub program: String,
    pub back_to: String,
    pub reason: String,
}

/// How often the front became another image, and how often it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Reexecs {
    /// It became another.
    pub done: u64,
    /// It could not.
    pub failed: u64,
}

/// The front itself.
#[derive(Clone, Debug, Deserialize)]
pub struct FrontStatus {
    pub pid: i32,
    pub version: String,
    pub uptime_ms: u64,
    pub resident_bytes: u64,
    pub descriptors: u64,
    pub limits: Limits,
    pub log_lines_lost: u64,
    #[serde(default)]
    pub recovered: Option<Recovered>,
}

/// The workers of an earlier front that it went on with.
#[derive(Clone, Debug, Deserialize)]
pub struct Recovered {
    pub generations: Vec<GenerationId>,
}

/// What the front and its workers may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Limits {
    pub descriptors: u64,
    pub descriptors_at_start: u64,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields are the words of the status itself")]
pub struct Listener {
    pub address: String,
    pub shard: u32,
    pub inode: u64,
}

/// One generation.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the words of the status itself")]
pub struct Generation {
    pub generation: GenerationId,
    pub state: State,
    pub pid: i32,
    pub age_ms: u64,
    pub program: String,
    pub lease: bool,
    pub connections: Option<Connections>,
    pub in_flight: Option<u64>,
    pub oldest: Option<Oldest>,
    pub resident_bytes: Option<u64>,
}

/// Where a generation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are the words of the status itself")]
pub enum State {
    Starting,
    Ready,
    Standby,
    Admitting,
    Serving,
    Stopping,
    Stopped,
    Emptying,
    Draining,
    Ending,
}

/// The work that has been in flight longest.
#[derive(Clone, Debug, Deserialize)]
pub struct Oldest {
    pub what: String,
    pub age_ms: u64,
}

/// The takeover that runs now.
#[derive(Clone, Debug, Deserialize)]
pub struct TakeoverStatus {
    pub step: String,
    pub successor: Option<GenerationId>,
    pub pending: bool,
}

/// How the last takeover ended.
#[derive(Clone, Debug, Deserialize)]
pub struct LastTakeover {
    pub successor: Option<GenerationId>,
    pub incumbent: Option<GenerationId>,
    pub outcome: String,
    pub reason: Option<String>,
    pub phases: Phases,
}

/// When a takeover reached what, since its request.
#[derive(Clone, Debug, Deserialize)]
pub struct Phases {
    pub ready_ms: Option<u64>,
    pub accepting_ms: Option<u64>,
    pub switched_ms: Option<u64>,
    pub committed_ms: Option<u64>,
    pub drained_ms: Option<u64>,
}

/// The last thing that went wrong.
#[derive(Clone, Debug, Deserialize)]
pub struct LastFailure {
    pub generation: Option<GenerationId>,
    pub reason: String,
    pub age_ms: u64,
}

/// When the next takeover can start.
#[derive(Clone, Debug, Deserialize)]
pub struct NextTakeover {
    pub possible: String,
    pub generation: Option<GenerationId>,
    pub within_ms: Option<u64>,
}

/// The start of a worker that is waited for after a crash.
#[derive(Clone, Debug, Deserialize)]
pub struct Respawn {
    pub in_ms: u64,
}

/// How many takeovers ended which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Counts {
    pub committed: u64,
    pub rolled_back: u64,
}

impl Status {
    pub(super) fn read(json: &str) -> Self {
        let status: Self = serde_json::from_str(json)
            .unwrap_or_else(|error| panic!("could not read this status: {error}\n{json}"));
        assert_eq!(status.schema, SCHEMA, "this rig reads another status");
        status
    }

    /// The generation with this id, while it is listed.
    #[must_use]
    pub fn generation(&self, id: GenerationId) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.generation == id)
    }

    /// The generations in this state.
    #[must_use]
    pub fn in_state(&self, state: State) -> Vec<&Generation> {
        self.generations.iter().filter(|generation| generation.state == state).collect()
    }

    /// The generation that serves, while exactly one does.
    #[must_use]
    pub fn serving(&self) -> Option<&Generation> {
        match self.in_state(State::Serving)[..] {
            [generation] => Some(generation),
            _ => None,
        }
    }

    /// The generation that stands by.
    #[must_use]
    pub fn standby(&self) -> Option<&Generation> {
        self.in_state(State::Standby).first().copied()
    }

    /// The generations of an earlier front that this one went on with.
    #[must_use]
    pub fn recovered(&self) -> &[GenerationId] {
        self.front.recovered.as_ref().map_or(&[], |recovered| &recovered.generations)
    }

    /// How many generations are admitted or draining.
    #[must_use]
    pub fn admitted_or_draining(&self) -> usize {
        self.generations.iter().filter(|g| g.state.is_admitted_or_draining()).count()
    }

    /// Why the last thing failed that did; empty when nothing has.
    #[must_use]
    pub fn failure(&self) -> &str {
        self.last_failure.as_ref().map_or("", |failure| &failure.reason)
    }

    /// The inodes of the listening sockets, sorted.
    #[must_use]
    pub fn inodes(&self) -> Vec<u64> {
        let mut inodes: Vec<_> = self.listeners.iter().map(|listener| listener.inode).collect();
        inodes.sort_unstable();
        inodes
    }

    /// Whether one generation serves and no other is there.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.takeover.is_none() && self.generations.len() == 1 && self.serving().is_some()
    }
}

impl State {
    /// Whether a generation in it accepts, has accepted, or finishes what it accepted.
    #[must_use]
    pub const fn is_admitted_or_draining(self) -> bool {
        !matches!(self, Self::Starting | Self::Ready | Self::Standby | Self::Ending)
    }
}

impl Generation {
    /// The process of this generation, while there is one.
    #[must_use]
    pub fn worker(&self) -> Option<Process> {
        Process::find(self.pid)
    }
}
