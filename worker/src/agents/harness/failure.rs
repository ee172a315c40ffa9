//! Why a run has failed: a typed reason for whoever decides what to try next, and a line for whoever reads it.
//!
//! **Invariants**
//! - A line is one line, bounded, and has no secret in it that was named when it was made.
//! - The words are the other side's or ours about what happened; none of them advises anything.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest line, in characters.
const LONGEST: usize = 240;
/// The longest line that is made of others, in characters.
const LONGEST_SUM: usize = 4096;
/// What stands for a secret.
const HIDDEN: &str = "[redacted]";
/// A secret that is shorter would be found in every other word.
const SHORTEST_SECRET: usize = 4;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
    /// It took longer than it may.
    Timeout,
    /// Nothing came.
    NoOutput,
    /// The key is not accepted, or not for this.
    Auth,
    /// The other side says that it is not paid.
    Billing,
    /// Too many requests.
    RateLimit,
    /// The other side has too much to do.
    Overloaded,
    /// Nothing is registered that could run it.
    HarnessMissing,
    /// The conversation is longer than the model can read.
    ContextOverflow,
    /// This gateway's configuration or files do not allow it.
    Config,
    /// Anything else.
    Unknown,
}

impl Reason {
    /// Each of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::Timeout,
        Self::NoOutput,
        Self::Auth,
        Self::Billing,
        Self::RateLimit,
        Self::Overloaded,
        Self::HarnessMissing,
        Self::ContextOverflow,
        Self::Config,
        Self::Unknown,
    ];

    /// Its name in logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NoOutput => "no-output",
            Self::Auth => "auth",
            Self::Billing => "billing",
            Self::RateLimit => "rate-limit",
            Self::Overloaded => "overloaded",
            Self::HarnessMissing => "harness-missing",
            Self::ContextOverflow => "context-overflow",
            Self::Config => "config",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it is this gateway that could not ask, rather than the model that did not answer.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Config | Self::HarnessMissing)
    }
}

/// Why a run has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The kind of it.
    pub(crate) reason: Reason,
    /// The status that the other side answered with.
    pub(crate) status: Option<u16>,
    /// What happened, in one line.
    pub(crate) detail: String,
    /// When the other side wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that is told in these words.
    pub(crate) fn new(reason: Reason, words: &str) -> Self {
        Self { reason, status: None, detail: line(words, LONGEST), retry_after: None }
    }

    /// One that is told in words that may have these secrets in them.
    pub(crate) fn hiding(reason: Reason, words: &str, secrets: &[String]) -> Self {
        Self::new(reason, &redacted(words, secrets))
    }

    /// One that sums up others, whose lines are in these words.
    pub(crate) fn summing_up(reason: Reason, words: &str) -> Self {
        Self { detail: line(words, LONGEST_SUM), ..Self::new(reason, "") }
    }
}

/// `401 invalid key`
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status} {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

/// The words without these secrets, and without what looks like a key.
fn redacted(words: &str, secrets: &[String]) -> String {
    let mut shown = words.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
        shown = shown.replace(secret, HIDDEN);
    }
    let ends = |c: char| c.is_whitespace() || "\"'`,;:()".contains(c);
    let mut told = String::new();
    for word in shown.split_inclusive(ends) {
        let bare = word.trim_end_matches(ends);
        if bare.starts_with("sk-") && bare.len() > 12 {
            told.push_str(HIDDEN);
            told.push_str(&word[bare.len()..]);
        } else {
            told.push_str(word);
        }
    }
    told
}

/// The words in one line of at most so many characters.
fn line(words: &str, longest: usize) -> String {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let mut line = String::new();
    let mut length = 0;
    for word in words.split(blank).filter(|word| !word.is_empty()) {
        let space = usize::from(!line.is_empty());
        let room = longest.saturating_sub(length + space);
        let characters = word.chars().count();
        if space == 1 && room > 0 {
            line.push(' ');
        }
        if characters > room {
            line.extend(word.chars().take(room));
            line.push('…');
            return line;
        }
        line.push_str(word);
        length += space + characters;
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_told_with_its_status_in_one_line() {
        let failure =
            Failure { status: Some(401), ..Failure::new(Reason::Auth, " invalid\r\n key\0") };
        assert_eq!(failure.to_string(), "401 invalid key");
        assert_eq!(
            Failure::new(Reason::NoOutput, "no output for 180 s").to_string(),
            "no output for 180 s"
        );
        let long = Failure::new(Reason::Unknown, &"word ".repeat(100)).detail;
        assert_eq!(
            (long.chars().count() <= LONGEST + 1, long.ends_with('…')),
            (true, true),
            "{long}"
        );
    }

    #[test]
    fn a_name_is_what_is_written_for_others_to_read() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
    }

    #[test]
    fn keys_are_not_told_whether_they_were_named_or_look_like_one() {
        let secrets = ["hunter2-key".to_owned(), "x".to_owned()];
        for (words, told) in [
            ("bad key: hunter2-key!", "bad key: [redacted]!"),
            ("hunter2-keyhunter2-key", "[redacted][redacted]"),
            ("key sk-abcdefghijklmnop is wrong", "key [redacted] is wrong"),
            ("key \"sk-abcdefghijklmnop\", no", "key \"[redacted]\", no"),
            ("sk-short x", "sk-short x"),
        ] {
            assert_eq!(Failure::hiding(Reason::Auth, words, &secrets).detail, told, "{words}");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_said_it_is_one_line_without_the_key(
            before in "\\PC{0,40}", after in "(\\PC|\n|\r|\t){0,400}", key in "[a-zA-Z0-9_-]{8,40}",
        ) {
            let words = format!("{before}{key}{after}");
            let failure = Failure::hiding(Reason::Unknown, &words, std::slice::from_ref(&key));
            prop_assert!(!failure.detail.contains(&key));
            prop_assert!(!failure.detail.chars().any(char::is_control));
            prop_assert!(failure.detail.chars().count() <= LONGEST + 1);
        }
    }
}
