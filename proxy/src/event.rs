//! The words between the policy (`generation.rs`) and the one task that acts (`front.rs`):
//! what can happen, and what is to be done about it.
//!
//! **Invariants**
//! - Nothing here holds a socket, a process or a clock; durations are only data.
//! - Every wait on another process is a [`Deadline`], and its passing is an [`Event`].

use std::fmt;
use std::time::Duration;

use handoff::message::{Drain, GenerationId};
use serde::{Deserialize, Serialize};

/// One of the programs the front was told to run; `front.rs` knows its path and arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ProgramId(pub(crate) u32);

impl ProgramId {
    /// Whatever attaches itself: the front cannot start it, and takes who comes.
    pub(crate) const ATTACHED: Self = Self(u32::MAX);
}

/// Who is next of those who wait at the attach socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Attaching {
    /// Nobody waits.
    #[default]
    Nobody,
    /// One that serves nobody yet: a successor.
    Fresh,
    /// One that serves and had lost its link.
    Returned(GenerationId),
    /// One that drains and had lost its link, and how long it still may.
    Drains(GenerationId, Duration),
}

/// The number of a takeover: how many had begun when it did.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct TakeoverNumber(pub(crate) u64);

/// Which comes first in a takeover.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize,
)]
pub(crate) enum TakeoverOrder {
    /// The successor serves before the incumbent stops accepting.
    #[default]
    StartFirst,
    /// The incumbent is gone before the successor starts: for programs that allow one instance.
    StopFirst,
}

/// Whether a ready successor waits beside the one that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum WithStandby {
    /// The next generation is started when it is needed.
    #[default]
    No,
    /// One is kept, for the moment in which the one that serves crashes.
    Yes,
}

/// What the operator decided: the order and the deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Rules {
    pub(crate) order: TakeoverOrder,
    pub(crate) ready_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) stop_timeout: Duration,
    pub(crate) soak: Duration,
    /// How long newcomers may wait while nobody accepts (`stop-first`).
    pub(crate) hold_timeout: Duration,
    #[serde(default)]
    pub(crate) standby: WithStandby,
}

/// How long a worker may take to begin or stop accepting once told: it is one `epoll_ctl(2)` away.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after its own deadline a draining worker may still be there.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// How long a worker that said goodbye, or was killed, may take to be gone.
pub(crate) const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker that closed its link may take to exit, which is what usually closes it.
pub(crate) const LINK_GRACE: Duration = Duration::from_secs(1);
/// A worker that serves, or stands by, for shorter than this counts as having failed *again*.
pub(crate) const SHORT_LIFE: Duration = Duration::from_secs(10);
/// So many short lives in a row are a crash loop: the program that served well before is started again.
pub(crate) const CRASH_LOOP: u32 = 3;
/// The longest pause an operator may ask for.
pub(crate) const LONGEST_PAUSE_OF_ACCEPTING: Duration = Duration::from_hours(1);
/// The pause before the second restart in a row; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between restarts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long to wait before starting a worker after this many short lives in a row.
pub(crate) fn respawn_pause(short_lives: u32) -> Duration {
    match short_lives {
        0 | 1 => Duration::ZERO,
        n => FIRST_PAUSE.saturating_mul(1 << (n - 2).min(16)).min(LONGEST_PAUSE),
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A worker says it could serve.
    Ready(GenerationId),
    /// A worker says it accepts.
    Accepting(GenerationId),
    /// A worker says it accepts no more.
    Stopped(GenerationId),
    /// A worker says everything of its has ended.
    Drained(GenerationId),
    /// A worker says it could not serve.
    Failing(GenerationId, Vec<String>),
    /// A worker takes at least so long from now to be ready, or drained.
    Extend(GenerationId, Duration),
    /// A worker cannot be worked with.
    Unfit(GenerationId, Failure),
    /// A worker closed its link.
    LinkEnded(GenerationId),
    /// A worker's process is gone and reaped.
    Exited { generation: GenerationId, exit: Exit },
    /// Somebody waits at the attach socket, or nobody any more.
    Attaching(Attaching),
    /// A deadline that was set has passed.
    Passed(Deadline),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start this program as this generation.
    Spawn { generation: GenerationId, program: ProgramId },
    /// Go on with the one that waits at the attach socket and is this generation already.
    TakeBack(GenerationId),
    /// Tell a worker something.
    Tell(GenerationId, Order),
    /// Give the two an end each of a link of their own, over which connections move.
    Introduce { incumbent: GenerationId, successor: GenerationId },
    /// End a worker's process group at once.
    Kill(GenerationId),
    /// Set the listeners' backlog again, which the new worker's own `listen` may have changed.
    RestoreBacklog,
    /// Accept whoever waits and whoever comes, in order to close: nobody will serve them in time.
    TurnAway,
    /// Do so no more: somebody accepts.
    TurnNobodyAway,
    /// Close every listening socket: nobody accepts any more.
    CloseListeners,
    /// Feed [`Event::Passed`] after this long, replacing an earlier one of the same name.
    SetDeadline(Deadline, Duration),
    /// Have a deadline that is set pass after this long at the earliest.
    ExtendDeadline(Deadline, Duration),
    /// Forget a deadline.
    ClearDeadline(Deadline),
    /// Let the operator know.
    Note(Note),
    /// Everything has ended: end what was adopted, then exit.
    Leave,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Admit,
    StopAccepting,
    Drain(Drain),
    Lease { epoch: u64 },
    Reaped { generation: GenerationId },
}

/// A wait on somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Deadline {
    /// The worker is to be ready.
    Ready(GenerationId),
    /// The worker is to accept.
    Accepting(GenerationId),
    /// The worker is to accept no more.
    Stopped(GenerationId),
    /// The worker is to be drained.
    Drained(GenerationId),
    /// The worker's process is to be gone.
    Exited(GenerationId),
    /// The successor has served long enough to be trusted.
    Soaked,
    /// The pause before the next start is over.
    Respawn,
    /// The worker has served, or stood by, for [`SHORT_LIFE`].
    Proven(GenerationId),
    /// The pause before the next standby's start is over.
    Standby,
    /// The operator's pause is over.
    Resume,
    /// Somebody is to accept again (`stop-first`).
    Held,
    /// Everything is to have ended.
    Stop,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By SIGKILL of the kernel, which had no memory left for it.
    OutOfMemory,
    /// Somebody else was its parent, and only they were told.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::OutOfMemory => f.write_str("was ended by SIGKILL (out of memory)"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(number) {
                Ok(signal) => write!(f, "was ended by {signal}"),
                Err(_) => write!(f, "was ended by signal {number}"),
            },
            Self::Unknown => f.write_str("ended, and nobody can say how"),
        }
    }
}

/// Why a generation did not come to serve, or was not trusted to go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Failure {
    #[error("could not be started: {reason}")]
    NotStarted { reason: String },
    #[error("{exit} {during}{}", because(failing))]
    Exited { exit: Exit, during: During, failing: Vec<String> },
    #[error("was not ready within {limit:?}{}", because(failing))]
    NotReady { limit: Duration, failing: Vec<String> },
    #[error("refused: {reason}")]
    Refused { reason: String },
    #[error("broke the protocol: {reason}")]
    BrokeProtocol { reason: String },
    #[error(
        "may open {free} more descriptors, and {needed} are needed to take everything over; raise its limit (ulimit -n)"
    )]
    TooFewDescriptors { free: u64, needed: u64 },
    #[error("did not begin to accept within {STEP_TIMEOUT:?}")]
    NotAccepting,
    #[error("closed its link {during}")]
    LinkEnded { during: During },
    #[error("reported that it cannot serve: {}", failing.join(", "))]
    Failing { failing: Vec<String> },
}

fn because(failing: &[String]) -> String {
    if failing.is_empty() { String::new() } else { format!(" (failing: {})", failing.join(", ")) }
}

/// In which part of its life a generation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum During {
    Start,
    Admission,
    Soak,
    Standby,
    Service,
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "before it was ready",
            Self::Admission => "after it was ready, before it accepted",
            Self::Soak => "while it was watched, before the takeover was committed",
            Self::Standby => "while it stood by",
            Self::Service => "while it served",
        })
    }
}

/// A takeover that is not begun, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TakeoverDenied {
    #[error("the front is stopping")]
    Stopping,
    #[error("another takeover is waiting already, with another program; ask again when it is done")]
    AnotherProgramPending,
    #[error("the front is paused; resume it first (holdfast resume)")]
    Paused,
    #[error(
        "this front starts no workers itself, it takes those that attach: start the new worker beside the one that \
         serves, with --attach and the front's socket, and it takes over (a new image: deploy/container/update)"
    )]
    OnlyAttached,
}

/// A pause that is not begun, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PauseDenied {
    #[error("the front is stopping")]
    Stopping,
    #[error("a takeover is running; ask again when it is over")]
    TakeoverRuns,
    #[error("a takeover is waiting for a drain; ask again when it is over")]
    TakeoverWaits,
    #[error("no worker serves")]
    NobodyServes,
    #[error("a pause lasts {LONGEST_PAUSE_OF_ACCEPTING:?} at most, and {asked:?} were asked for")]
    TooLong { asked: Duration },
    #[error("{generation} stops accepting only when it drains, so it cannot be paused")]
    OnlyByDraining { generation: GenerationId },
}

/// A pause that is not ended, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResumeDenied {
    #[error("the front is not paused")]
    NotPaused,
}

/// What becomes of a worker's wish to be replaced by a fresh one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    /// By this takeover.
    Takeover(TakeoverNumber),
    /// Only a standby is replaced.
    Standby,
    /// By a takeover when the pause is over.
    OnceResumed,
    /// It does not serve.
    Nothing,
}

/// Why a pause is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PauseEnd {
    /// It was asked for.
    Asked,
    /// Its time had passed.
    Expired,
    /// The worker that was paused is gone, or going.
    WorkerGone,
    /// The front stops.
    Stopping,
}

/// A drain that cannot be cut short, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DrainDenied {
    #[error("there is no {generation}")]
    Unknown { generation: GenerationId },
    #[error("{generation} is not draining; it is {state}")]
    NotDraining { generation: GenerationId, state: &'static str },
}

/// What the operator may want to know: the story of a takeover, and of what went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A takeover was asked for and waits for this generation's drain.
    Waits { takeover: TakeoverNumber, draining: GenerationId },
    /// A takeover has begun.
    Began { takeover: TakeoverNumber, incumbent: Option<GenerationId> },
    /// The incumbent finishes its work before the successor is started (`stop-first`).
    Emptying(GenerationId),
    /// A generation's process was started: the front says so itself.
    Started(GenerationId),
    /// It is ready.
    Ready(GenerationId),
    /// It accepts.
    Accepting(GenerationId),
    /// Only the successor accepts.
    Switched { successor: GenerationId },
    /// The incumbent did not confirm that it stopped accepting.
    Unconfirmed(GenerationId),
    /// The successor is trusted; the writer lease is its.
    Committed { takeover: TakeoverNumber, successor: GenerationId },
    /// The successor is gone; the incumbent, or its program, serves.
    RolledBack { takeover: TakeoverNumber, successor: Option<GenerationId>, failure: Failure },
    /// A generation serves that no takeover was needed for.
    Serving(GenerationId),
    /// A generation that was to serve at once does not.
    NotServing { generation: GenerationId, failure: Failure },
    /// A serving generation is gone.
    Crashed { generation: GenerationId, exit: Exit },
    /// Nobody serves until a worker attaches itself.
    AwaitsWorker,
    /// The attached worker is gone and nobody waits in its place: the front starts its own program again.
    StartsOwn,
    /// A worker that had lost its link is here again, and serves or drains on.
    Returned(GenerationId),
    /// A worker will be started after this long.
    Pausing(Duration),
    /// A crash loop: the program that served well before is started again.
    WentBack { from: ProgramId, to: ProgramId },
    /// A standby is ready, and waits.
    StandsBy(GenerationId),
    /// The one that served is gone, and its standby is to serve.
    StandbyCalled(GenerationId),
    /// A standby is not what it should be.
    StandbyFailed { generation: GenerationId, failure: Failure },
    /// A standby is ended, because a fresh successor comes, or the front stops.
    StandbyEnded(GenerationId),
    /// The next standby will be started after this long.
    StandbyWaits(Duration),
    /// The operator wants that nobody accepts, for so long.
    PauseBegan { generation: GenerationId, timeout: Duration },
    /// Nobody accepts.
    Paused(GenerationId),
    /// The operator's pause is over; a worker that lives accepts again soon.
    PauseEnded { generation: GenerationId, why: PauseEnd },
    /// It accepts again.
    Resumed(GenerationId),
    /// Nobody accepts from here on (`stop-first`).
    HoldBegan,
    /// Newcomers have waited for so long; they are turned away from here on.
    HeldTooLong(Duration),
    /// Somebody may accept again.
    HoldEnded,
    /// A draining generation overran its deadline and was killed.
    Overran(GenerationId),
    /// A generation that had been told to go is gone.
    Gone { generation: GenerationId, exit: Exit },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_before_a_restart_is_nothing_then_doubles_to_a_minute() {
        let seconds: Vec<_> = (0..=10).map(|n| respawn_pause(n).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(respawn_pause(u32::MAX), LONGEST_PAUSE);
    }
}
