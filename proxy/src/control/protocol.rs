//! The words on the control socket.
//!
//! Requests and answers are JSON, one a line. A reader ignores fields it does not know; a later
//! version adds fields and events, and raises [`VERSION`] only when an old one would be
//! misunderstood.

use handoff::message::{Connections, GenerationId, OldestWork};
use serde::{Deserialize, Serialize};

use crate::tally::Tally;

/// The version of these words.
pub(crate) const VERSION: u32 = 1;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) version: u32,
    pub(crate) command: Command,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Everything the front knows; answered by [`Answer::Status`].
    Status,
    /// What is counted for the metrics alone; answered by [`Answer::Metrics`].
    Metrics,
    /// Replace the worker; answered by a stream that ends with [`Answer::Done`], or after
    /// [`Answer::Requested`] when not `wait`.
    Takeover(TakeoverRequest),
    /// Cut a drain short; answered by [`Answer::Accepted`].
    Drain { generation: GenerationId },
    /// Follow a takeover that was asked for before: answered as [`Self::Takeover`] is, from where it has come to.
    Follow { takeover: u64 },
    /// Become another image of the front, the binary it was started from unless another one is named; answered by
    /// [`Answer::Renewed`].
    Reexec {
        #[serde(default)]
        binary: Option<String>,
    },
    /// Have nobody accept, for so long at most; answered by [`Answer::Accepted`] when nobody does.
    Pause { timeout_ms: u64 },
    /// End a pause; answered by [`Answer::Accepted`] when somebody accepts.
    Resume,
    /// Stop the front; answered by [`Answer::Accepted`], then the end of the stream.
    Stop { now: bool },
}

/// Which takeover is asked for.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TakeoverRequest {
    /// Whether to answer until the takeover is over.
    #[serde(default)]
    pub(crate) wait: bool,
    /// Another program, from this takeover on.
    #[serde(default)]
    pub(crate) program: Option<String>,
    /// Other arguments, from this takeover on.
    #[serde(default)]
    pub(crate) arguments: Option<Vec<String>>,
    /// What the environment has beyond the front's, from this takeover on.
    #[serde(default)]
    pub(crate) environment: Option<Vec<(String, String)>>,
}

/// Arguments and environment may hold secrets.
impl std::fmt::Debug for TakeoverRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TakeoverRequest").field("program", &self.program).finish_non_exhaustive()
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The takeover is on its way, or the next one will be.
    Requested { takeover: u64 },
    /// It begins when this generation is drained, at the latest after so long.
    Waiting { r#for: GenerationId, within_ms: u64 },
    /// The incumbent finishes its work first (`stop-first`).
    Emptying { generation: GenerationId },
    /// The successor was started.
    Started { successor: GenerationId },
    /// It is ready.
    Ready { successor: GenerationId, elapsed_ms: u64 },
    /// It accepts.
    Accepting { successor: GenerationId, elapsed_ms: u64 },
    /// Only it accepts.
    Switched { successor: GenerationId, elapsed_ms: u64 },
    /// It is trusted; nothing is rolled back from here. The incumbent, if it lives, drains.
    Committed { successor: GenerationId, incumbent: Option<GenerationId>, elapsed_ms: u64 },
    /// What the incumbent still works on.
    Draining {
        generation: GenerationId,
        connections: Connections,
        in_flight: u64,
        oldest: Option<OldestWork>,
    },
    /// Somebody accepts again (`stop-first`): how long nobody did, and how many waited too long for it.
    Held { elapsed_ms: u64, turned_away: u64 },
    /// The incumbent is gone.
    Drained {
        generation: GenerationId,
        #[serde(default)]
        moved: Connections,
        /// Sessions that the successor goes on with; no connections.
        #[serde(default)]
        sessions: u64,
        finished: Connections,
        closed: Connections,
        cut: Connections,
        elapsed_ms: u64,
    },
    /// The successor is gone, and why; who served before serves. `lost` had moved to it already.
    RolledBack {
        successor: Option<GenerationId>,
        reason: String,
        #[serde(default)]
        lost: Connections,
    },
    /// The takeover is over. `cut` counts connections the drain's deadline cut.
    Done { outcome: Outcome, cut: u64, reason: Option<String> },
    /// The front is another image, so long after the one before let go.
    Renewed { version: String, elapsed_us: u64 },
    /// What was asked is done or under way.
    Accepted,
    /// The answer to [`Command::Status`].
    Status(Box<Status>),
    /// The answer to [`Command::Metrics`].
    Metrics(Box<Tally>),
    /// What was asked is not done, and why.
    Refused { reason: String },
    /// Something that only a later version knows: passed over.
    #[serde(other, skip_serializing)]
    Later,
}

/// How a takeover ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Committed,
    RolledBack,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_this_version_is_read_by_the_next_and_the_other_way_round() {
        let line = r#"{"version":1,"command":{"type":"takeover","wait":true,"colour":"green"}}"#;
        let request: Request = serde_json::from_str(line).unwrap();
        let wanted = TakeoverRequest { wait: true, ..TakeoverRequest::default() };
        assert_eq!(request.command, Command::Takeover(wanted));
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }

    #[test]
    fn an_event_of_a_later_version_is_told_from_nonsense() {
        let later = serde_json::from_str(r#"{"event":"levitating","height":3}"#);
        assert_eq!(later.ok(), Some(Answer::Later));
        assert!(serde_json::from_str::<Answer>(r#"{"happening":"levitating"}"#).is_err());
        assert!(serde_json::from_str::<Answer>(r#"{"event":"requested"}"#).is_err());
    }

    #[test]
    fn a_pause_and_its_end_are_written_as_ever() {
        for (command, line) in [
            (Command::Pause { timeout_ms: 60_000 }, r#"{"type":"pause","timeout_ms":60000}"#),
            (Command::Resume, r#"{"type":"resume"}"#),
        ] {
            assert_eq!(serde_json::to_string(&command).unwrap(), line);
            assert_eq!(serde_json::from_str::<Command>(line).unwrap(), command);
        }
    }

    #[test]
    fn the_environment_of_a_request_is_never_printed() {
        let request = TakeoverRequest {
            environment: Some(vec![("A".into(), "secret".into())]),
            arguments: Some(vec!["secret".into()]),
            ..TakeoverRequest::default()
        };
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn a_line_of_an_answer_says_which_event_it_is() {
        let line = serde_json::to_string(&Answer::Requested { takeover: 3 }).unwrap();
        assert_eq!(line, r#"{"event":"requested","takeover":3}"#);
        let next = NextTakeover::After { generation: GenerationId::new(1), within_ms: 5 };
        let line = serde_json::to_string(&next).unwrap();
        assert_eq!(line, r#"{"possible":"after","generation":"g1","within_ms":5}"#);
    }
}
