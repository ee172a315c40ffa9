//! `chat.send` and `chat.abort`: a message for a session, whose answer is told by events.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Knowledge, Refusal};
use crate::agents::harness::{Harness, Turn};
use crate::agents::{Asked, Begun, SessionKey};
use crate::registry::Registry;
use crate::shape::{Field, Shape};

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
    let outcome = begin(&knowledge, &call);
    call.reply.outcome(outcome);
}

fn begin(knowledge: &Knowledge, call: &Call) -> Result<Value, Refusal> {
    let Send { session_key, message, idempotency_key } = call.read()?;
    let session = SessionKey::named(&session_key);
    let asked = Asked {
        run: idempotency_key.clone(),
        harness: harness(&call.registry, &session)?,
        session,
        turn: turn(message)?,
    };
    let status = match knowledge.runs.begin(asked) {
        // Its end is told by events.
        Begun::Started(_) => "started",
        Begun::InFlight => "in_flight",
        Begun::LaneFull => return Err(lane_full()),
    };
    Ok(json!({"runId": idempotency_key, "status": status}))
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
            let runs = knowledge.runs.abort(&session, run_id.as_deref()).await;
            Ok(json!({"ok": true, "aborted": !runs.is_empty(), "runIds": runs}))
        }
        Err(refusal) => Err(refusal),
    };
    call.reply.outcome(outcome);
}

/// What runs the agent of a session.
pub(super) fn harness(registry: &Registry, session: &SessionKey) -> Result<Harness, Refusal> {
    let agent = session.agent();
    registry
        .harness(agent)
        .cloned()
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
