//! What a run leaves in the store: its message, its answer, how it went, and what is answered to a repeat.
//!
//! **Invariants**
//! - A run that was ended or has failed leaves what it had said by then.
//! - A claim that the store could not settle is given back, so that a repeat may try again.

use std::error::Error;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::warn;

use super::ending::Outcome;
use super::fallback::{self, ModelRef};
use super::harness::Usage;
use super::session::SessionKey;
use crate::methods::now_ms;
use crate::state::store::Store;
use crate::state::store::idempotency::IdempotencyKey;
use crate::state::store::messages::NewMessage;
use crate::state::store::said::Speaker;
use crate::state::store::session_run::{RunStatus, SessionRun};
use crate::state::store::sessions::{NewSession, Session};
use crate::state::store::turns::{EndedTurn, KeptResult, NewTurn};

/// How long a result is kept for who asks again, in ms.
const KEPT_MS: i64 = 60 * 60 * 1000;

/// What is kept of a run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ended {
    /// How.
    pub(crate) outcome: Outcome,
    /// When it began to be worked on.
    pub(crate) started_at_ms: i64,
    /// When it had ended.
    pub(crate) ended_at_ms: i64,
}

impl Ended {
    /// Reads what was kept; `None` when a newer worker has kept it in words that are not known here.
    pub(crate) fn read(kept: &str) -> Option<Self> {
        serde_json::from_str(kept).ok()
    }
}

/// Of a run that waits.
#[derive(Debug)]
pub(super) struct Transcript {
    store: Store,
    run: String,
    session: SessionKey,
    key: Option<IdempotencyKey>,
}

/// Of a run that goes on.
#[derive(Debug)]
pub(super) struct Opened {
    transcript: Transcript,
    /// The session as the run found it.
    found: Session,
    started_at_ms: i64,
    words_read: u64,
}

impl Transcript {
    pub(super) const fn new(
        store: Store,
        run: String,
        session: SessionKey,
        key: Option<IdempotencyKey>,
    ) -> Self {
        Self { store, run, session, key }
    }

    /// Writes the message down; or the run has failed.
    pub(super) async fn open(self, message: &str) -> Result<Opened, Outcome> {
        let at_ms = clock_ms();
        let turn = NewTurn {
            session: new_session(&self.session),
            message: self.message("user", message),
            at_ms,
        };
        match self.store.begin_turn(turn).await {
            Ok(found) => {
                let words_read = words(message);
                Ok(Opened { transcript: self, found, started_at_ms: at_ms, words_read })
            }
            Err(failed) => {
                self.release().await;
                Err(Outcome::Failed(handoff::chain(&failed)))
            }
        }
    }

    /// It has ended before anything was written down.
    pub(super) async fn never_opened(self, outcome: &Outcome) {
        let now = clock_ms();
        if let Some(KeptResult { key, run_id, result, expires_at_ms }) =
            self.kept(outcome, (now, now))
            && let Err(failed) = self.store.finish_key(key, &run_id, result, expires_at_ms).await
        {
            warn!(error = &failed as &dyn Error, "what came of a run is not kept");
            self.release().await;
        }
    }

    fn kept(
        &self,
        outcome: &Outcome,
        (started_at_ms, ended_at_ms): (i64, i64),
    ) -> Option<KeptResult> {
        let ended = Ended { outcome: outcome.clone(), started_at_ms, ended_at_ms };
        self.key.clone().map(|key| KeptResult {
            key,
            run_id: self.run.clone(),
            result: crate::frames::written(&ended),
            expires_at_ms: ended_at_ms.saturating_add(KEPT_MS),
        })
    }

    fn message(&self, role: &str, text: &str) -> NewMessage {
        message(&self.run, role, text)
    }

    async fn release(self) {
        if let Some(key) = self.key
            && let Err(failed) = self.store.release_key(key, &self.run).await
        {
            warn!(
                error = &failed as &dyn Error,
                "an idempotency key is held until this worker ends"
            );
        }
    }
}

impl Opened {
    /// The model that somebody has chosen for the session.
    pub(super) fn chosen(&self) -> Option<ModelRef> {
        fallback::chosen(&self.found)
    }

    /// The session as the run found it.
    pub(super) const fn found(&self) -> &Session {
        &self.found
    }

    /// Whose words what is said from now on are.
    pub(super) fn speaker(&self) -> Speaker {
        Speaker {
            run: self.transcript.run.clone(),
            session: self.transcript.session.as_str().to_owned(),
            life: self.found.session_id.clone(),
            started_at_ms: self.started_at_ms,
        }
    }

    /// Writes down what was said and how it went; or the run has failed after all.
    pub(super) async fn close(
        self,
        outcome: &Outcome,
        text: &str,
        usage: Option<Usage>,
    ) -> Result<(), Outcome> {
        let Self { transcript, found, started_at_ms, words_read } = self;
        let now = clock_ms();
        let status = match outcome {
            Outcome::Finished(_) => RunStatus::Done,
            Outcome::Aborted | Outcome::LaneCleared => RunStatus::Killed,
            Outcome::Failed(_) => RunStatus::Failed,
        };
        let turn = EndedTurn {
            key: transcript.session.as_str().to_owned(),
            life: found.session_id,
            answer: (!text.is_empty()).then(|| transcript.message("assistant", text)),
            run: SessionRun { status, started_at_ms, ended_at_ms: Some(now) },
            tokens: usage.map_or_else(
                || (words_read, words(text)),
                |usage| (usage.prompt, usage.completion),
            ),
            kept: transcript.kept(outcome, (started_at_ms, now)),
            at_ms: now,
        };
        match transcript.store.end_turn(turn).await {
            Ok(()) => Ok(()),
            Err(failed) => {
                let outcome = Outcome::Failed(handoff::chain(&failed));
                transcript.never_opened(&outcome).await;
                Err(outcome)
            }
        }
    }
}

/// A message of a run's, as the history has it.
pub(super) fn message(run: &str, role: &str, text: &str) -> NewMessage {
    NewMessage {
        role: role.to_owned(),
        content: json!([{"type": "text", "text": text}]).to_string(),
        run_id: Some(run.to_owned()),
    }
}

/// What a session begins with that nobody made before it was used.
pub(crate) fn new_session(session: &SessionKey) -> NewSession {
    NewSession {
        key: session.as_str().to_owned(),
        session_id: uuid::Uuid::new_v4().to_string(),
        agent_id: session.agent().to_owned(),
        ..NewSession::default()
    }
}

/// The wall clock as the store keeps it.
pub(crate) fn clock_ms() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}

/// The tokens of one who does not count them are words.
fn words(text: &str) -> u64 {
    u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_words_of_a_newer_worker_are_not_guessed_at() {
        for outcome in [
            Outcome::Finished("a".to_owned()),
            Outcome::Aborted,
            Outcome::LaneCleared,
            Outcome::Failed("no idea".to_owned()),
        ] {
            let ended = Ended { outcome, started_at_ms: 1, ended_at_ms: 2 };
            assert_eq!(Ended::read(&crate::frames::written(&ended)), Some(ended));
        }
        let newer = r#"{"outcome":{"type":"danced"},"startedAtMs":1,"endedAtMs":2}"#;
        assert_eq!(Ended::read(newer), None);
        let with_more = r#"{"outcome":{"type":"aborted"},"startedAtMs":1,"endedAtMs":2,"x":1}"#;
        assert!(Ended::read(with_more).is_some());
    }
}
