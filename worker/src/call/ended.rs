//! How an attempt ends without an answer, and what that means.
//!
//! | ended by | means |
//! | --- | --- |
//! | refused or reset, or silent before it was connected | a restart |
//! | close 1012 or 1013; 1000 before it was connected; 429 or 503 instead of an upgrade | a restart |
//! | `UNAVAILABLE`, `retryable`, `startup-sidecars` | that it starts |
//! | any other refusal, close, or silence | that it is over |

use std::io;
use std::time::Duration;

use serde::Deserialize;
use tokio_tungstenite::tungstenite;

use super::policy::Meaning;

/// What a gateway waits for that answers `UNAVAILABLE` while it starts.
const SIDECARS: &str = "startup-sidecars";
/// How long it is given when it does not say.
const RETRY_AFTER_MS: u64 = 500;

/// What an attempt waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// TCP, or the Unix socket.
    Connection,
    /// The HTTP answer to the upgrade.
    Upgrade,
    /// The challenge.
    Challenge,
    /// The answer to `connect`.
    Hello,
    /// The answer to the request.
    Answer,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "a connection",
            Self::Upgrade => "an upgrade",
            Self::Challenge => "a challenge",
            Self::Hello => "an answer to connect",
            Self::Answer => "an answer",
        }
    }
}

/// What a gateway says when it refuses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reason {
    pub(super) code: String,
    pub(super) message: String,
    details: Option<serde_json::Value>,
    #[serde(default)]
    retryable: bool,
    retry_after_ms: Option<u64>,
}

/// How an attempt ended without an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The connection could not be made, or broke.
    #[error("{} did not come", stage.name())]
    Broken {
        /// What was waited for.
        stage: Stage,
        /// What the kernel said.
        source: io::Error,
    },
    /// It was closed without a word.
    #[error("the connection was closed before {} came", stage.name())]
    Cut {
        /// What was waited for.
        stage: Stage,
    },
    /// It was closed with a code.
    #[error("the gateway closed with {code} before {} came{}{reason}", stage.name(), if reason.is_empty() { "" } else { ": " })]
    Closed {
        /// What was waited for.
        stage: Stage,
        /// The close code.
        code: u16,
        /// What was said with it.
        reason: String,
    },
    /// Nothing came in time.
    #[error("{} did not come in time", stage.name())]
    Silent {
        /// What was waited for.
        stage: Stage,
    },
    /// Another HTTP status than 101.
    #[error("the upgrade was answered {status}")]
    NoUpgrade {
        /// It.
        status: u16,
    },
    /// The gateway does not let this client in.
    #[error("the gateway refused to connect: {}: {}", reason.code, reason.message)]
    NotConnected {
        /// Why.
        reason: Box<Reason>,
    },
    /// The gateway does not do what it was asked.
    #[error("{}: {}", reason.code, reason.message)]
    Refused {
        /// Why.
        reason: Box<Reason>,
    },
    /// It is no gateway, or none that this client understands.
    #[error("instead of {} came what is no frame of a gateway", stage.name())]
    Strange {
        /// What was waited for.
        stage: Stage,
    },
}

/// What the user is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The gateway said no.
    Refusal,
    /// It said nothing.
    NoAnswer,
}

impl Ended {
    /// What is to be made of an error of the WebSocket.
    pub(super) fn of(error: tungstenite::Error, stage: Stage) -> Self {
        use tungstenite::error::ProtocolError;
        match error {
            tungstenite::Error::Io(source) => Self::Broken { stage, source },
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(
                ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
            ) => Self::Cut { stage },
            tungstenite::Error::Http(response) => {
                Self::NoUpgrade { status: response.status().as_u16() }
            }
            // Whatever else there is, it is not what a gateway sends.
            _ => Self::Strange { stage },
        }
    }

    /// What it means for another attempt.
    pub(super) fn means(&self) -> Meaning {
        match self {
            Self::Broken { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut => Meaning::Restart,
                _ => Meaning::Over,
            },
            Self::Cut { .. } => Meaning::Restart,
            Self::Closed { stage, code, .. } => match (code, stage) {
                (1012 | 1013, _) => Meaning::Restart,
                (1000, Stage::Answer) => Meaning::Over,
                (1000, _) => Meaning::Restart,
                (_, _) => Meaning::Over,
            },
            Self::Silent { stage: Stage::Answer } => Meaning::Over,
            Self::Silent { .. } => Meaning::Restart,
            Self::NoUpgrade { status: 429 | 503 } => Meaning::Restart,
            Self::NotConnected { reason } if reason.is_of_start() => Meaning::Starting(
                Duration::from_millis(reason.retry_after_ms.unwrap_or(RETRY_AFTER_MS)),
            ),
            Self::NoUpgrade { .. }
            | Self::NotConnected { .. }
            | Self::Refused { .. }
            | Self::Strange { .. } => Meaning::Over,
        }
    }

    /// What the user is told of it.
    pub(super) const fn verdict(&self) -> Verdict {
        match self {
            Self::NotConnected { .. } | Self::Refused { .. } => Verdict::Refusal,
            // Against the rules, in these words; what was asked afterwards may have been done.
            Self::Closed { stage: Stage::Challenge | Stage::Hello, code: 1002 | 1008, .. } => {
                Verdict::Refusal
            }
            Self::Broken { .. }
            | Self::Cut { .. }
            | Self::Closed { .. }
            | Self::Silent { .. }
            | Self::NoUpgrade { .. }
            | Self::Strange { .. } => Verdict::NoAnswer,
        }
    }
}

impl Reason {
    fn is_of_start(&self) -> bool {
        let details = self.details.as_ref();
        let waits_for = details.and_then(|details| details.get("reason")?.as_str());
        self.code == "UNAVAILABLE" && self.retryable && waits_for == Some(SIDECARS)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STAGES: [Stage; 5] =
        [Stage::Connection, Stage::Upgrade, Stage::Challenge, Stage::Hello, Stage::Answer];

    fn closed(stage: Stage, code: u16) -> Ended {
        Ended::Closed { stage, code, reason: String::new() }
    }

    fn not_connected(reason: serde_json::Value) -> Ended {
        Ended::NotConnected { reason: serde_json::from_value(reason).unwrap() }
    }

    #[test]
    fn closes_of_a_restart_are_known_at_each_stage_and_1000_only_before_it_is_connected() {
        for stage in STAGES {
            assert_eq!(closed(stage, 1012).means(), Meaning::Restart);
            assert_eq!(closed(stage, 1013).means(), Meaning::Restart);
            assert_eq!(Ended::Cut { stage }.means(), Meaning::Restart);
            for code in [1001, 1002, 1008, 1009, 1011, 4001] {
                assert_eq!(closed(stage, code).means(), Meaning::Over, "{code}");
            }
            let before = stage != Stage::Answer;
            let expected = if before { Meaning::Restart } else { Meaning::Over };
            assert_eq!(closed(stage, 1000).means(), expected, "{stage:?}");
            assert_eq!(Ended::Silent { stage }.means(), expected, "{stage:?}");
        }
    }

    #[test]
    fn a_connection_that_is_refused_or_reset_is_a_restart_and_one_without_a_way_is_not() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, Meaning::Restart),
            (io::ErrorKind::ConnectionReset, Meaning::Restart),
            (io::ErrorKind::TimedOut, Meaning::Restart),
            (io::ErrorKind::HostUnreachable, Meaning::Over),
            (io::ErrorKind::NotFound, Meaning::Over),
            (io::ErrorKind::PermissionDenied, Meaning::Over),
        ] {
            let ended = Ended::Broken { stage: Stage::Connection, source: kind.into() };
            assert_eq!(ended.means(), expected, "{kind}");
        }
        for (status, expected) in
            [(429, Meaning::Restart), (503, Meaning::Restart), (404, Meaning::Over)]
        {
            assert_eq!(Ended::NoUpgrade { status }.means(), expected, "{status}");
        }
    }

    #[test]
    fn only_the_refusal_of_a_gateway_that_starts_is_no_last_word() {
        let starting = json!({
            "code": "UNAVAILABLE", "message": "m", "retryable": true, "retryAfterMs": 700,
            "details": {"reason": "startup-sidecars"},
        });
        let means = not_connected(starting.clone()).means();
        assert_eq!(means, Meaning::Starting(Duration::from_millis(700)));
        for (key, value) in [
            ("code", json!("INVALID_REQUEST")),
            ("retryable", json!(false)),
            ("details", json!({"reason": "other"})),
            ("details", json!(null)),
        ] {
            let mut other = starting.clone();
            other[key] = value;
            assert_eq!(not_connected(other).means(), Meaning::Over, "{key}");
        }
        let refused = Ended::Refused { reason: serde_json::from_value(starting).unwrap() };
        assert_eq!(refused.means(), Meaning::Over, "a method's refusal is its answer");
    }

    #[test]
    fn a_close_against_the_rules_is_a_refusal_until_something_was_asked() {
        assert_eq!(closed(Stage::Hello, 1008).verdict(), Verdict::Refusal);
        assert_eq!(closed(Stage::Answer, 1008).verdict(), Verdict::NoAnswer);
        assert_eq!(closed(Stage::Hello, 1012).verdict(), Verdict::NoAnswer);
    }
}
