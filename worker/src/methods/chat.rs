//! `chat.send` and `chat.abort`: a message for a session, whose answer is told by events.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::outcome::{self, Final};
use super::{Call, Knowledge, Refusal};
use crate::agents::harness::{Earlier, Harness, Turn};
use crate::agents::{Asked, Begun, Ending, SessionKey};
use crate::registry::Registry;
use crate::shape::{Field, Shape};
use crate::state::store::idempotency::IdempotencyKey;

/// What its idempotency keys are told apart by from those of other methods.
pub(super) const SCOPE: &str = "chat";

pub(super) static SEND_PARAMS: Shape = Shape::Object(&[
    Field::required("sessionKey", Shape::Text),
    Field::required("message", Shape::AnyText),
    Field::optional("thinking", Shape::AnyText),
    Field::optional("deliver", Shape::Flag),
    Field::optional("attachments", Shape::List(&Shape::Anything)),
    Field::optional("timeoutMs", Shape::Integer { least: 0 }),
    Field::required("idempotencyKey", Shape::Text),
]);

pub(super) static ABORT_PARAMS: Shape = Shape::Object(&[
    Field::required("sessionKey", Shape::Text),
    Field::optional("runId", Shape::Text),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Send {
    session_key: String,
    message: String,
    idempotency_key: String,
}

/// Answers as soon as the run has begun; a repeat begins nothing.
pub(super) async fn send(knowledge: Arc<Knowledge>, call: Call) {
    let message = match call.read() {
        Ok(Send { session_key, message, idempotency_key }) => {
            Sent { session: SessionKey::named(&session_key), message, run: idempotency_key }
        }
        Err(refusal) => return call.reply.refusal(&refusal),
    };
    match message.begin(&knowledge, &call.registry).await {
        Ok(Sending::Begun(payload)) => call.reply.payload(&payload),
        Ok(Sending::Done(done)) => done.answer(call.reply),
        Err(refusal) => call.reply.refusal(&refusal),
    }
}

/// A message for a session.
pub(super) struct Sent {
    pub(super) session: SessionKey,
    pub(super) message: String,
    /// The id of its run, by which a repeat is recognized.
    pub(super) run: String,
}

/// What became of sending it.
pub(super) enum Sending {
    /// Its answer is told by events.
    Begun(Value),
    /// It was answered before.
    Done(Final),
}

impl Sent {
    pub(super) async fn begin(
        self,
        knowledge: &Arc<Knowledge>,
        registry: &Registry,
    ) -> Result<Sending, Refusal> {
        let Self { session, message, run } = self;
        let asked = Asked {
            run: run.clone(),
            harness: harness(knowledge, registry, &session).await?,
            session: session.clone(),
            turn: turn(message)?,
            earlier: Earlier::default(),
            key: Some(IdempotencyKey { scope: SCOPE.to_owned(), key: run.clone() }),
        };
        let begun = knowledge.runs.begin(asked).await;
        let status = match begun.map_err(|failed| super::store_failed(&failed))? {
            Begun::Started(_) => "started",
            Begun::InFlight => "in_flight",
            Begun::Done(ended) => {
                return Ok(Sending::Done(Final::of_chat(&run, &session, ended.outcome)));
            }
            Begun::DoneUnreadably => return Err(outcome::unreadable()),
            Begun::LaneFull => return Err(lane_full()),
        };
        Ok(Sending::Begun(json!({"runId": run, "status": status})))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Abort {
    session_key: String,
    run_id: Option<String>,
}

/// Answers with the runs it has ended, once they have.
pub(super) async fn abort(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = match call.read::<Abort>() {
        Ok(Abort { session_key, run_id }) => {
            let session = SessionKey::named(&session_key);
            let runs = knowledge.runs.abort(&session, run_id.as_deref(), Ending::Aborted).await;
            Ok(json!({"ok": true, "aborted": !runs.is_empty(), "runIds": runs}))
        }
        Err(refusal) => Err(refusal),
    };
    call.reply.outcome(outcome);
}

/// What runs the agent of a session.
pub(super) async fn harness(
    knowledge: &Arc<Knowledge>,
    registry: &Registry,
    session: &SessionKey,
) -> Result<Harness, Refusal> {
    let agent = session.agent();
    knowledge
        .harness(registry, agent)
        .await
        .ok_or_else(|| Refusal::invalid(format!("unknown agent id \"{agent}\"")))
}

/// A message as a turn.
pub(super) fn turn(message: String) -> Result<Turn, Refusal> {
    if message.trim().is_empty() {
        return Err(Refusal::invalid("message or attachment required"));
    }
    Ok(Turn { message, word_delay: None })
}

pub(super) fn lane_full() -> Refusal {
    Refusal::unavailable("too many messages wait in this session; retry when one was answered")
}
