//! Turns: what a run leaves in its session, at its begin and at its end, each written as one.
//!
//! ```text
//! begin_turn ─► the session is there, the message is in it, its latest run is `running`
//! end_turn   ─► the answer is in it, its latest run has ended, and what came of it is kept for who asks again
//! ```
//!
//! **Invariants**
//! - Whoever is told what came of a run finds its answer in the history.
//! - A turn that is begun again, since its first generation died, does not repeat its message.

use rusqlite::{Connection, OptionalExtension as _};

use super::idempotency::{self, IdempotencyKey};
use super::messages::{self, AppendFailed, NewMessage};
use super::session_run::{RunStatus, SessionRun};
use super::sessions::{self, NewSession, Session};
use super::{Store, StoreFailed};

/// A turn that begins.
#[derive(Clone, Debug)]
pub(crate) struct NewTurn {
    /// Its session, made if there is none.
    pub(crate) session: NewSession,
    /// What the user said.
    pub(crate) message: NewMessage,
    /// When.
    pub(crate) at_ms: i64,
}

/// A turn that has ended.
#[derive(Clone, Debug)]
pub(crate) struct EndedTurn {
    /// Its session.
    pub(crate) key: String,
    /// The life of the session that it began in.
    pub(crate) life: String,
    /// What was answered, maybe not to its end.
    pub(crate) answer: Option<NewMessage>,
    /// How it went.
    pub(crate) run: SessionRun,
    /// Tokens read and written.
    pub(crate) tokens: (u64, u64),
    /// What is kept for who asks again.
    pub(crate) kept: Option<KeptResult>,
    /// When.
    pub(crate) at_ms: i64,
}

/// A result that is kept for who asks again.
#[derive(Clone, Debug)]
pub(crate) struct KeptResult {
    /// Under this key.
    pub(crate) key: IdempotencyKey,
    /// Of this run.
    pub(crate) run_id: String,
    /// As JSON.
    pub(crate) result: String,
    /// Until then.
    pub(crate) expires_at_ms: i64,
}

impl Store {
    /// Writes down that a turn begins, and says in which session, as it was before.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn begin_turn(&self, turn: NewTurn) -> Result<Session, StoreFailed> {
        let work =
            move |connection: &Connection| begin(connection, &turn).map(Ok::<_, super::Never>);
        match self.write("begin a turn", work).await? {
            Ok(session) => Ok(session),
            Err(never) => match never {},
        }
    }

    /// Writes down how a turn has ended, all or nothing.
    ///
    /// # Errors
    /// [`AppendFailed`]: also when the session was reset or deleted meanwhile.
    pub(crate) async fn end_turn(&self, turn: EndedTurn) -> Result<(), AppendFailed> {
        let key = turn.key.clone();
        let work = move |connection: &Connection| end(connection, &turn);
        self.write("end a turn", work).await?.map_err(|refused| refused.into_failed(key))
    }
}

fn begin(connection: &Connection, turn: &NewTurn) -> rusqlite::Result<Session> {
    let NewTurn { session, message, at_ms } = turn;
    let found = sessions::ensure(connection, session, *at_ms)?;
    if !is_latest(connection, &session.key, message)? {
        let said = std::slice::from_ref(message);
        // It refuses nothing: the session is there, in this life.
        let _ = messages::append(connection, &session.key, &found.session_id, said, *at_ms)?;
    }
    let run = SessionRun { status: RunStatus::Running, started_at_ms: *at_ms, ended_at_ms: None };
    sessions::note_run(connection, &session.key, run, (0, 0), *at_ms)?;
    Ok(found)
}

/// Whether the latest message of the session is this one.
fn is_latest(connection: &Connection, key: &str, message: &NewMessage) -> rusqlite::Result<bool> {
    let latest: Option<NewMessage> = connection
        .prepare_cached(
            "SELECT role, content, run_id FROM messages WHERE session_key = ?1 \
             ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([key], |row| {
            Ok(NewMessage { role: row.get(0)?, content: row.get(1)?, run_id: row.get(2)? })
        })
        .optional()?;
    Ok(message.run_id.is_some() && latest.as_ref() == Some(message))
}

fn end(
    connection: &Connection,
    turn: &EndedTurn,
) -> rusqlite::Result<Result<(), messages::Refused>> {
    let EndedTurn { key, life, answer, run, tokens, kept, at_ms } = turn;
    if let Err(refused) = messages::append(connection, key, life, answer.as_slice(), *at_ms)? {
        return Ok(Err(refused));
    }
    sessions::note_run(connection, key, *run, *tokens, *at_ms)?;
    if let Some(KeptResult { key, run_id, result, expires_at_ms }) = kept {
        // A claim that is not this run's any more was lost to somebody who found its generation dead.
        idempotency::keep(connection, key, run_id, result, *expires_at_ms)?;
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::super::idempotency::Claim;
    use super::super::messages::HistoryWindow;
    use super::super::shared::Shared;
    use super::*;

    const ALL: HistoryWindow = HistoryWindow { limit: 10, max_bytes: 1 << 20, before_seq: None };

    fn begun(run: &str, at_ms: i64) -> NewTurn {
        NewTurn {
            session: NewSession {
                key: "k".to_owned(),
                session_id: format!("life-{run}"),
                agent_id: "main".to_owned(),
                ..NewSession::default()
            },
            message: said("user", run),
            at_ms,
        }
    }

    fn said(role: &str, run: &str) -> NewMessage {
        NewMessage {
            role: role.to_owned(),
            content: format!("\"{run}\""),
            run_id: Some(run.to_owned()),
        }
    }

    fn key() -> IdempotencyKey {
        IdempotencyKey { scope: "chat".to_owned(), key: "r".to_owned() }
    }

    fn ended(life: &str, run: &str) -> EndedTurn {
        EndedTurn {
            key: "k".to_owned(),
            life: life.to_owned(),
            answer: Some(said("assistant", run)),
            run: SessionRun { status: RunStatus::Done, started_at_ms: 1, ended_at_ms: Some(2) },
            tokens: (3, 4),
            kept: Some(KeptResult {
                key: key(),
                run_id: run.to_owned(),
                result: "1".to_owned(),
                expires_at_ms: 100,
            }),
            at_ms: 2,
        }
    }

    #[tokio::test]
    async fn a_turn_leaves_its_message_then_its_answer_and_what_came_of_it() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        store.claim_key(key(), "r", 0, 100).await.unwrap();
        let life = store.begin_turn(begun("r", 1)).await.unwrap().session_id;
        let running = store.session("k").await.unwrap().unwrap();
        assert_eq!(running.latest_run.unwrap().status, RunStatus::Running);
        store.end_turn(ended(&life, "r")).await.unwrap();
        let session = store.session("k").await.unwrap().unwrap();
        assert_eq!((session.message_count, session.output_tokens), (2, 4));
        assert_eq!(session.latest_run.unwrap().status, RunStatus::Done);
        let history = store.history("k", ALL).await.unwrap();
        let roles: Vec<&str> = history.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant"]);
        let done = Claim::Done { run_id: "r".to_owned(), result: "1".to_owned() };
        assert_eq!(store.claim_key(key(), "r", 3, 100).await.unwrap(), done);
        assert_eq!(store.claimed_key(key(), 3).await.unwrap(), Some(done));
        assert_eq!(store.claimed_key(key(), 100).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_turn_that_ends_after_a_reset_leaves_nothing() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        let life = store.begin_turn(begun("r", 1)).await.unwrap().session_id;
        store.reset_session("k", "another", 2).await.unwrap();
        let late = store.end_turn(ended(&life, "r")).await.unwrap_err();
        assert!(matches!(late, AppendFailed::Superseded { .. }));
        assert!(store.history("k", ALL).await.unwrap().is_empty());
        assert_eq!(store.session("k").await.unwrap().unwrap().latest_run, None);
    }

    #[tokio::test]
    async fn a_turn_that_is_begun_again_does_not_repeat_its_message() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        store.begin_turn(begun("r", 1)).await.unwrap();
        store.begin_turn(begun("r", 2)).await.unwrap();
        store.begin_turn(begun("s", 3)).await.unwrap();
        let history = store.history("k", ALL).await.unwrap();
        let runs: Vec<&str> = history.iter().filter_map(|m| m.run_id.as_deref()).collect();
        assert_eq!(runs, ["r", "s"]);
    }
}
