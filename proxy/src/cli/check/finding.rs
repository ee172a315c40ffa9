//! One thing that was looked at, and what came of it.

use serde::Serialize;

use crate::colour::{Colour, Tone};

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Grade {
    Ok,
    /// It works, and somebody may notice.
    Warning,
    /// The front could not be started, or would never serve.
    Error,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Subject {
    Program,
    Rights,
    Control,
    Listen,
    State,
    LogFile,
    Token,
    Limits,
    Times,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    pub(super) subject: Subject,
    pub(super) says: String,
    /// What to do about it; `None` if it is fine.
    pub(super) advice: Option<String>,
}

impl Grade {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Warning => Tone::Changing,
            Self::Error => Tone::Bad,
        }
    }
}

impl Subject {
    const fn word(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Rights => "rights",
            Self::Control => "control",
            Self::Listen => "listen",
            Self::State => "state",
            Self::LogFile => "log file",
            Self::Token => "token",
            Self::Limits => "limits",
            Self::Times => "times",
        }
    }
}

impl Finding {
    pub(super) fn ok(subject: Subject, says: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, subject, says: says.into(), advice: None }
    }

    pub(super) fn warning(
        subject: Subject,
        says: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { grade: Grade::Warning, subject, says: says.into(), advice: Some(advice.into()) }
    }

    pub(super) fn error(
        subject: Subject,
        says: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { grade: Grade::Error, subject, says: says.into(), advice: Some(advice.into()) }
    }

    /// `warning: times: what it is; what to do`.
    pub(super) fn line(&self, colour: Colour) -> String {
        let grade = colour.paint(self.grade.tone(), self.grade.word());
        let advice = self.advice.as_ref().map_or_else(String::new, |advice| format!("; {advice}"));
        format!("{grade}: {}: {}{advice}", self.subject.word(), self.says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_grade_alone_is_coloured() {
        let finding = Finding::warning(Subject::Times, "it is long", "shorten it");
        assert_eq!(finding.line(Colour::None), "warning: times: it is long; shorten it");
        let painted = finding.line(Colour::Some);
        assert_eq!(painted, "\x1b[33mwarning\x1b[0m: times: it is long; shorten it");
        assert_eq!(Finding::ok(Subject::Rights, "fine").line(Colour::None), "ok: rights: fine");
    }

    #[test]
    fn programs_read_grade_subject_words_and_advice() {
        let json = serde_json::to_value(Finding::error(Subject::LogFile, "a", "b")).unwrap();
        let expected = serde_json::json!(
            {"grade": "error", "subject": "log-file", "says": "a", "advice": "b"}
        );
        assert_eq!(json, expected);
    }
}
