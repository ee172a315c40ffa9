//! How the latest run of a session stands.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

/// The latest run of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionRun {
    /// How it stands.
    pub(crate) status: RunStatus,
    /// When it began.
    pub(crate) started_at_ms: i64,
    /// When it ended, if it has.
    pub(crate) ended_at_ms: Option<i64>,
}

/// How a run stands, in the words of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunStatus {
    /// Not at its end. Its generation may have died since.
    Running,
    /// It answered.
    Done,
    /// It did not.
    Failed,
    /// Somebody ended it.
    Killed,
    /// It took too long.
    TimedOut,
}

impl RunStatus {
    const ALL: [Self; 5] = [Self::Running, Self::Done, Self::Failed, Self::Killed, Self::TimedOut];

    /// On the wire and in the database.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::TimedOut => "timeout",
        }
    }
}

impl ToSql for RunStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for RunStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| FromSqlError::Other(format!("no run has the status {word}").into()))
    }
}
