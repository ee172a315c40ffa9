//! What was said in a session, in order.
//!
//! **Invariants**
//! - `seq` grows by one with each message and is never used twice, also by two processes that append at once, and
//!   also across a reset.
//! - A message belongs to the life of the session in which its run began; when that is over it is refused.

use rusqlite::{Connection, OptionalExtension as _};

use super::{Store, StoreFailed};

/// A message to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewMessage {
    /// `user`, `assistant`, `tool` …
    pub(crate) role: String,
    /// Its content, as JSON.
    pub(crate) content: String,
    /// The run that it belongs to.
    pub(crate) run_id: Option<String>,
}

/// A message as it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its place in the session.
    pub(crate) seq: i64,
    /// `user`, `assistant`, `tool` …
    pub(crate) role: String,
    /// Its content, as JSON.
    pub(crate) content: String,
    /// The run that it belongs to.
    pub(crate) run_id: Option<String>,
    /// When.
    pub(crate) at_ms: i64,
}

/// Which part of the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryWindow {
    /// At most so many messages, the latest ones.
    pub(crate) limit: u32,
    /// At most so many bytes of content; the latest message is always among them.
    pub(crate) max_bytes: usize,
    /// Only messages before this one.
    pub(crate) before_seq: Option<i64>,
}

/// Why messages were not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendFailed {
    /// There is no such session any more.
    #[error("session not found: {key}")]
    NoSession {
        /// The key.
        key: String,
    },
    /// It was reset since.
    #[error("session {key} was reset since this run began")]
    Superseded {
        /// The key.
        key: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

pub(super) enum Refused {
    NoSession,
    Superseded,
}

impl Refused {
    pub(super) fn into_failed(self, key: String) -> AppendFailed {
        match self {
            Self::NoSession => AppendFailed::NoSession { key },
            Self::Superseded => AppendFailed::Superseded { key },
        }
    }
}

impl Store {
    /// The latest messages of a session, in the order they were said.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn history(
        &self,
        key: &str,
        window: HistoryWindow,
    ) -> Result<Vec<Message>, StoreFailed> {
        let key = key.to_owned();
        self.read("read the history", move |connection| history(connection, &key, window)).await
    }
}

pub(super) fn append(
    connection: &Connection,
    key: &str,
    life: &str,
    messages: &[NewMessage],
    now_ms: i64,
) -> rusqlite::Result<Result<i64, Refused>> {
    let found: Option<(String, i64)> = connection
        .prepare_cached("SELECT session_id, last_seq FROM sessions WHERE key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let mut seq = match found {
        None => return Ok(Err(Refused::NoSession)),
        Some((current, _)) if current != life => return Ok(Err(Refused::Superseded)),
        Some((_, last_seq)) => last_seq,
    };
    let mut insert = connection.prepare_cached(
        "INSERT INTO messages (session_key, seq, session_id, role, content, run_id, at_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for message in messages {
        seq += 1;
        let NewMessage { role, content, run_id } = message;
        insert.execute((key, seq, life, role, content, run_id, now_ms))?;
    }
    connection
        .prepare_cached(
            "UPDATE sessions SET message_count = message_count + ?2 - last_seq, last_seq = ?2, \
                 updated_at_ms = max(updated_at_ms, ?3) WHERE key = ?1",
        )?
        .execute((key, seq, now_ms))?;
    Ok(Ok(seq))
}

fn history(
    connection: &Connection,
    key: &str,
    window: HistoryWindow,
) -> rusqlite::Result<Vec<Message>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, role, content, run_id, at_ms FROM messages \
         WHERE session_key = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
    )?;
    let before = window.before_seq.unwrap_or(i64::MAX);
    let rows = statement.query_map((key, before, window.limit), |row| {
        Ok(Message {
            seq: row.get(0)?,
            role: row.get(1)?,
            content: row.get(2)?,
            run_id: row.get(3)?,
            at_ms: row.get(4)?,
        })
    })?;
    let (mut latest, mut bytes) = (Vec::new(), 0_usize);
    for message in rows {
        let message = message?;
        bytes = bytes.saturating_add(message.content.len());
        if bytes > window.max_bytes && !latest.is_empty() {
            break;
        }
        latest.push(message);
    }
    latest.reverse();
    Ok(latest)
}
