//! Sessions: who talks with which agent, under which key.
//!
//! **Invariants**
//! - A label names at most one session of an agent.
//! - `session_id` is one life of a session: a reset begins another, and what an earlier one still wants to append
//!   is refused (`messages`).
//! - `updated_at_ms` never goes back, whatever the clock does.

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::{Map, Value};

use super::session_run::SessionRun;
use super::{Store, StoreFailed};

/// What is known of a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    /// Its name: `agent:main:main`.
    pub(crate) key: String,
    /// Its present life.
    pub(crate) session_id: String,
    /// Whose it is.
    pub(crate) agent_id: String,
    /// What people call it.
    pub(crate) label: Option<String>,
    /// The model that somebody chose for it.
    pub(crate) model: Option<String>,
    /// Whose model that is.
    pub(crate) model_provider: Option<String>,
    /// The session that made it.
    pub(crate) spawned_by: Option<String>,
    /// Whatever else was patched: `thinkingLevel` and its like.
    pub(crate) attributes: Map<String, Value>,
    /// How many messages it has.
    pub(crate) message_count: u64,
    /// Tokens read, in all its runs.
    pub(crate) input_tokens: u64,
    /// Tokens written, in all its runs.
    pub(crate) output_tokens: u64,
    /// Its latest run.
    pub(crate) latest_run: Option<SessionRun>,
    /// When it was made.
    pub(crate) created_at_ms: i64,
    /// When it was last used.
    pub(crate) updated_at_ms: i64,
}

impl Session {
    fn note(&mut self, run: SessionRun, (input_tokens, output_tokens): (u64, u64)) {
        self.latest_run = Some(run);
        self.input_tokens = self.input_tokens.saturating_add(input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(output_tokens);
    }
}

/// What a session begins with.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewSession {
    /// See [`Session::key`].
    pub(crate) key: String,
    /// See [`Session::session_id`].
    pub(crate) session_id: String,
    /// See [`Session::agent_id`].
    pub(crate) agent_id: String,
    /// See [`Session::label`].
    pub(crate) label: Option<String>,
    /// See [`Session::model`].
    pub(crate) model: Option<String>,
    /// See [`Session::model_provider`].
    pub(crate) model_provider: Option<String>,
    /// See [`Session::spawned_by`].
    pub(crate) spawned_by: Option<String>,
}

/// What is to change. The outer `None` leaves a field alone, the inner one empties it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionPatch {
    /// See [`Session::label`].
    pub(crate) label: Option<Option<String>>,
    /// See [`Session::model`].
    pub(crate) model: Option<Option<String>>,
    /// See [`Session::model_provider`].
    pub(crate) model_provider: Option<Option<String>>,
    /// See [`Session::spawned_by`].
    pub(crate) spawned_by: Option<Option<String>>,
    /// Merged into [`Session::attributes`]; `null` removes.
    pub(crate) attributes: Map<String, Value>,
}

/// Why a session was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateFailed {
    /// The label is taken.
    #[error("label already in use: {label}")]
    LabelInUse {
        /// The label.
        label: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

/// Why a session was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeFailed {
    /// There is none.
    #[error("session not found: {key}")]
    NoSession {
        /// The key.
        key: String,
    },
    /// The label is taken.
    #[error("label already in use: {label}")]
    LabelInUse {
        /// The label.
        label: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

enum Refused {
    NoSession,
    LabelInUse(String),
}

struct LabelInUse(String);

pub(super) const COLUMNS: &str = "key, session_id, agent_id, label, model, model_provider, spawned_by, attributes, \
     message_count, input_tokens, output_tokens, run_status, run_started_at_ms, run_ended_at_ms, \
     created_at_ms, updated_at_ms";

impl Store {
    /// The session with this key, made if there is none. Two processes that ask at once get the same one.
    ///
    /// # Errors
    /// [`CreateFailed`]
    pub(crate) async fn ensure_session(
        &self,
        new: NewSession,
        now_ms: i64,
    ) -> Result<Session, CreateFailed> {
        let work = move |connection: &Connection| match read_session(connection, &new.key)? {
            Some(found) => Ok(Ok(found)),
            None => insert(connection, &new, now_ms),
        };
        let made = self.write("create a session", work).await?;
        made.map_err(|LabelInUse(label)| CreateFailed::LabelInUse { label })
    }

    /// The session with this key.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn session(&self, key: &str) -> Result<Option<Session>, StoreFailed> {
        let key = key.to_owned();
        self.read("read a session", move |connection| read_session(connection, &key)).await
    }

    /// Changes a session.
    ///
    /// # Errors
    /// [`ChangeFailed`]
    pub(crate) async fn patch_session(
        &self,
        key: &str,
        patch: SessionPatch,
        now_ms: i64,
    ) -> Result<Session, ChangeFailed> {
        self.change("change a session", key, now_ms, move |session| {
            let SessionPatch { label, model, model_provider, spawned_by, attributes } = patch;
            session.label = label.unwrap_or_else(|| session.label.take());
            session.model = model.unwrap_or_else(|| session.model.take());
            session.model_provider =
                model_provider.unwrap_or_else(|| session.model_provider.take());
            session.spawned_by = spawned_by.unwrap_or_else(|| session.spawned_by.take());
            for (name, value) in attributes {
                if value.is_null() {
                    session.attributes.remove(&name);
                } else {
                    session.attributes.insert(name, value);
                }
            }
        })
        .await
    }

    /// Begins another life of a session: its messages and counts are forgotten; its label, model and attributes stay.
    ///
    /// # Errors
    /// [`ChangeFailed`]
    pub(crate) async fn reset_session(
        &self,
        key: &str,
        session_id: &str,
        now_ms: i64,
    ) -> Result<Session, ChangeFailed> {
        let id = session_id.to_owned();
        self.change("reset a session", key, now_ms, move |session| {
            session.session_id = id;
            session.message_count = 0;
            session.input_tokens = 0;
            session.output_tokens = 0;
            session.latest_run = None;
        })
        .await
    }

    /// Forgets a session and its messages. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn delete_session(&self, key: &str) -> Result<bool, StoreFailed> {
        let key = key.to_owned();
        let work = move |connection: &Connection| {
            let deleted =
                connection.prepare_cached("DELETE FROM sessions WHERE key = ?1")?.execute([key])?;
            Ok(Ok::<_, super::Never>(deleted > 0))
        };
        match self.write("delete a session", work).await? {
            Ok(deleted) => Ok(deleted),
            Err(never) => match never {},
        }
    }

    /// Reads, changes and writes back, as one.
    async fn change(
        &self,
        doing: &'static str,
        key: &str,
        now_ms: i64,
        edit: impl FnOnce(&mut Session) + Send + 'static,
    ) -> Result<Session, ChangeFailed> {
        let shown = key.to_owned();
        let key = shown.clone();
        let work = move |connection: &Connection| {
            let Some(mut session) = read_session(connection, &key)? else {
                return Ok(Err(Refused::NoSession));
            };
            let life = session.session_id.clone();
            edit(&mut session);
            if let Some(label) = taken(connection, &session.key, &session.agent_id, &session.label)?
            {
                return Ok(Err(Refused::LabelInUse(label)));
            }
            session.updated_at_ms = session.updated_at_ms.max(now_ms);
            update(connection, &session)?;
            if session.session_id != life {
                connection
                    .prepare_cached("DELETE FROM messages WHERE session_key = ?1")?
                    .execute([&session.key])?;
            }
            Ok(Ok(session))
        };
        self.write(doing, work).await?.map_err(|refused| match refused {
            Refused::LabelInUse(label) => ChangeFailed::LabelInUse { label },
            Refused::NoSession => ChangeFailed::NoSession { key: shown },
        })
    }
}

/// The life of the session with this key, made if there is none. Its label is not looked at.
pub(super) fn ensure(
    connection: &Connection,
    new: &NewSession,
    now_ms: i64,
) -> rusqlite::Result<Session> {
    match read_session(connection, &new.key)? {
        Some(found) => Ok(found),
        None => store(connection, new, now_ms),
    }
}

/// Notes how the latest run of a session stands. One that is gone has no runs.
pub(super) fn note_run(
    connection: &Connection,
    key: &str,
    run: SessionRun,
    tokens: (u64, u64),
    now_ms: i64,
) -> rusqlite::Result<()> {
    let Some(mut session) = read_session(connection, key)? else { return Ok(()) };
    session.note(run, tokens);
    session.updated_at_ms = session.updated_at_ms.max(now_ms);
    update(connection, &session)
}

fn insert(
    connection: &Connection,
    new: &NewSession,
    now_ms: i64,
) -> rusqlite::Result<Result<Session, LabelInUse>> {
    if let Some(label) = taken(connection, &new.key, &new.agent_id, &new.label)? {
        return Ok(Err(LabelInUse(label)));
    }
    store(connection, new, now_ms).map(Ok)
}

fn store(connection: &Connection, new: &NewSession, now_ms: i64) -> rusqlite::Result<Session> {
    let sql = format!(
        "INSERT INTO sessions (key, session_id, agent_id, label, model, model_provider, spawned_by, \
             created_at_ms, updated_at_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) RETURNING {COLUMNS}"
    );
    let NewSession { key, session_id, agent_id, label, model, model_provider, spawned_by } = new;
    connection.prepare_cached(&sql)?.query_row(
        (key, session_id, agent_id, label, model, model_provider, spawned_by, now_ms),
        from_row,
    )
}

/// The label, if another session of the agent has it.
fn taken(
    connection: &Connection,
    key: &str,
    agent_id: &str,
    label: &Option<String>,
) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT label FROM sessions WHERE agent_id = ?1 AND label = ?2 AND key <> ?3",
        )?
        .query_row((agent_id, label, key), |row| row.get(0))
        .optional()
}

fn read_session(connection: &Connection, key: &str) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE key = ?1"))?
        .query_row([key], from_row)
        .optional()
}

fn update(connection: &Connection, session: &Session) -> rusqlite::Result<()> {
    let run = session.latest_run;
    connection
        .prepare_cached(
            "UPDATE sessions SET session_id = ?2, label = ?3, model = ?4, model_provider = ?5, spawned_by = ?6, \
                 attributes = ?7, message_count = ?8, input_tokens = ?9, output_tokens = ?10, \
                 run_status = ?11, run_started_at_ms = ?12, run_ended_at_ms = ?13, updated_at_ms = ?14 \
             WHERE key = ?1",
        )?
        .execute((
            &session.key,
            &session.session_id,
            &session.label,
            &session.model,
            &session.model_provider,
            &session.spawned_by,
            Value::Object(session.attributes.clone()).to_string(),
            signed(session.message_count),
            signed(session.input_tokens),
            signed(session.output_tokens),
            run.map(|run| run.status),
            run.map(|run| run.started_at_ms),
            run.and_then(|run| run.ended_at_ms),
            session.updated_at_ms,
        ))
        .map(drop)
}

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Session> {
    let attributes: String = row.get(7)?;
    let run = match (row.get(11)?, row.get(12)?) {
        (Some(status), Some(started_at_ms)) => {
            Some(SessionRun { status, started_at_ms, ended_at_ms: row.get(13)? })
        }
        _ => None,
    };
    Ok(Session {
        key: row.get(0)?,
        session_id: row.get(1)?,
        agent_id: row.get(2)?,
        label: row.get(3)?,
        model: row.get(4)?,
        model_provider: row.get(5)?,
        spawned_by: row.get(6)?,
        // What is no object (nobody writes such a thing) counts as none, rather than hiding the session.
        attributes: serde_json::from_str(&attributes).unwrap_or_default(),
        message_count: unsigned(row.get(8)?),
        input_tokens: unsigned(row.get(9)?),
        output_tokens: unsigned(row.get(10)?),
        latest_run: run,
        created_at_ms: row.get(14)?,
        updated_at_ms: row.get(15)?,
    })
}

/// SQLite's integers have a sign; counts have none.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
