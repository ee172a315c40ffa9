//! The words on the control socket.
//!
//! Requests and answers are JSON, one a line. A reader ignores fields it does not know; a later
//! version adds fields and events, and raises [`VERSION`] only when an old one would be
//! misunderstood.

use handoff::message::{Connections, GenerationId, OldestWork};
use serde::{Deserialize, Serialize};

use super::document::Status;
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

#[cfg(test)]
mod tests {
    use super::super::document::NextTakeover;
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
