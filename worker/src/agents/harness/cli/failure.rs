//! Why a CLI agent gave no answer, before it is told as a [`Failure`].
//!
//! **Invariants**
//! - What keeps a program from being started is this gateway's, and not the program's failure.
//! - What a program says of its failure is told in its words; what they mean is guessed, and billing never.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::super::{Failure, Reason};
use super::child::Status;
use super::codec::LineTooLong;
use super::scratch::ScratchFailed;

/// So much of its standard error is told, in bytes.
const STDERR_TOLD: usize = 180;

/// Why a CLI agent gave no answer. What it says is shown to people.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliFailure {
    /// It was silent for too long.
    #[error("no output for {} s", limit.as_secs())]
    NoOutput {
        /// How long it could be.
        limit: Duration,
    },
    /// It took too long.
    #[error("no end within {} s", limit.as_secs())]
    Timeout {
        /// How long it could take.
        limit: Duration,
    },
    /// It wrote a line without end.
    #[error("it was ended")]
    LineTooLong {
        /// How long one may be.
        #[source]
        source: LineTooLong,
    },
    /// It wrote too much.
    #[error("it was ended after more than {most} {unit} of output")]
    TooMuch {
        /// What was allowed.
        most: usize,
        /// Of what.
        unit: &'static str,
    },
    /// It ended before it was done.
    #[error("it {status} before it had answered{}", after_colon(stderr))]
    Ended {
        /// How.
        status: Status,
        /// The last that it said of it.
        stderr: String,
    },
    /// It says that it will not answer.
    #[error("{said}")]
    Refused {
        /// What it says.
        said: String,
    },
    /// Its program is not there.
    #[error("there is no program {command}")]
    Missing {
        /// What it was to be.
        command: String,
    },
    /// It could not be started.
    #[error("could not start {command}")]
    Start {
        /// What it was to be.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It has nowhere to work.
    #[error("could not make the workspace {}", path.display())]
    Workspace {
        /// Where it would be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It has no directory to be started with.
    #[error("it could not be given a directory")]
    Scratch {
        /// Why not.
        source: ScratchFailed,
    },
    /// All that may live are at work.
    #[error("all {most} sessions that may live are at work")]
    TooMany {
        /// How many may be.
        most: usize,
    },
    /// The session has a turn already.
    #[error("its session has turns enough already")]
    Busy,
    /// Whoever ran it is no more: the worker is ending.
    #[error("it was closed before it had answered")]
    Closed,
}

/// The end of what it has complained of: that is where programs say why they end.
fn after_colon(stderr: &str) -> String {
    let from = stderr.ceil_char_boundary(stderr.len().saturating_sub(STDERR_TOLD));
    match (&stderr[from..], from) {
        ("", _) => String::new(),
        (end, 0) => format!(": {end}"),
        (end, _) => format!(": …{end}"),
    }
}

impl CliFailure {
    /// What kind it is.
    fn reason(&self) -> Reason {
        match self {
            Self::NoOutput { .. } => Reason::NoOutput,
            Self::Timeout { .. } => Reason::Timeout,
            Self::Refused { said } => reason_said(said),
            Self::Ended { stderr, .. } => reason_said(stderr),
            Self::Missing { .. } => Reason::HarnessMissing,
            Self::Start { .. }
            | Self::Workspace { .. }
            | Self::Scratch { .. }
            | Self::TooMany { .. } => Reason::Config,
            Self::LineTooLong { .. } | Self::TooMuch { .. } | Self::Busy | Self::Closed => {
                Reason::Unknown
            }
        }
    }

    /// As it is told, without these secrets.
    pub(super) fn told(&self, secrets: &[String]) -> Failure {
        Failure::hiding(self.reason(), &handoff::chain(self).to_string(), secrets)
    }
}

/// What programs mean by what they say. They say it to people: words are all there is.
fn reason_said(said: &str) -> Reason {
    let said = said.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["credit balance", "billing", "payment required", "insufficient_quota"]) {
        Reason::Billing
    } else if says(&["prompt is too long", "context window", "context_length", "maximum context"]) {
        Reason::ContextOverflow
    } else if says(&["overloaded", "error: 529", "error: 503"]) {
        Reason::Overloaded
    } else if says(&["rate limit", "rate_limit", "usage limit", "too many requests", "error: 429"])
    {
        Reason::RateLimit
    } else if says(&[
        "/login",
        "not logged in",
        "invalid api key",
        "authentication",
        "unauthorized",
        "oauth token",
        "error: 401",
        "error: 403",
    ]) {
        Reason::Auth
    } else {
        Reason::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_told_apart_and_billing_only_when_it_is_said() {
        for (said, reason) in [
            ("Credit balance is too low", Reason::Billing),
            ("API Error: 529 Overloaded", Reason::Overloaded),
            ("Claude AI usage limit reached|1700000000", Reason::RateLimit),
            ("Invalid API key · Please run /login", Reason::Auth),
            ("Prompt is too long", Reason::ContextOverflow),
            ("killed 429 bytes, then 402 more", Reason::Unknown),
            ("", Reason::Unknown),
        ] {
            assert_eq!(CliFailure::Refused { said: said.to_owned() }.reason(), reason, "{said}");
        }
    }

    #[test]
    fn it_says_what_failed_and_why() {
        let ended = |status, stderr: &str| CliFailure::Ended { status, stderr: stderr.to_owned() };
        for (failure, told) in [
            (CliFailure::NoOutput { limit: Duration::from_secs(180) }, "no output for 180 s"),
            (
                ended(Status::Exited(3), "no disk for hunter2"),
                "it exited with 3 before it had answered: no disk for [redacted]",
            ),
            (ended(Status::Unknown, ""), "it ended before it had answered"),
            (
                CliFailure::LineTooLong { source: LineTooLong { most: 9 } },
                "it was ended: a line of its output had more than 9 bytes",
            ),
        ] {
            assert_eq!(failure.told(&["hunter2".to_owned()]).to_string(), told);
        }
    }
}
