//! How runs end: what came of one, and why somebody ends it.
//!
//! **Invariants**
//! - Both are kept in the database and said over the migration link: a word of theirs keeps its meaning.

use serde::{Deserialize, Serialize};

/// How a run has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "text", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// With this answer.
    Finished(String),
    /// Somebody has ended it.
    Aborted,
    /// It waited in a lane that was cleared.
    LaneCleared,
    /// Without an answer, for this reason.
    Failed(String),
}

/// Why somebody ends a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ending {
    /// That was all they asked for.
    #[default]
    Aborted,
    /// Its session is to be reset or deleted: those that wait have waited for nothing.
    LaneCleared,
}
