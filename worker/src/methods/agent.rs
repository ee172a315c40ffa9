//! `agent`: one turn of an agent, answered twice: when it was accepted, and when it has ended.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::chat::{harness, lane_full, turn};
use super::{Call, Knowledge, Refusal, now_ms};
use crate::agents::{Asked, Begun, DEFAULT_AGENT, Outcome, SessionKey};
use crate::shape::{Field, Shape};

pub(super) static PARAMS: Shape = Shape::Object(&[
    Field::required("message", Shape::Text),
    Field::optional("agentId", Shape::Text),
    Field::optional("sessionKey", Shape::Text),
    Field::optional("sessionId", Shape::Text),
    Field::optional("thinking", Shape::AnyText),
    Field::optional("deliver", Shape::Flag),
    Field::optional("timeout", Shape::Integer { least: 0 }),
    Field::optional("lane", Shape::AnyText),
    Field::optional("label", Shape::AnyText),
    Field::required("idempotencyKey", Shape::Text),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    message: String,
    agent_id: Option<String>,
    session_key: Option<String>,
    idempotency_key: String,
}

pub(super) async fn answer(knowledge: Arc<Knowledge>, call: Call) {
    let (run, begun) = match begin(&knowledge, &call) {
        Ok(begun) => begun,
        Err(refusal) => return call.reply.refusal(&refusal),
    };
    let ended = match begun {
        Begun::Started(ended) => ended,
        Begun::InFlight => {
            return call.reply.payload(&json!({"runId": run, "status": "in_flight"}));
        }
        Begun::LaneFull => return call.reply.refusal(&lane_full()),
    };
    call.reply.interim(&json!({"runId": run, "status": "accepted", "acceptedAt": now_ms()}));
    match ended.await {
        Ok(Outcome::Finished(text)) => call.reply.payload(&json!({
            "runId": run, "status": "ok", "summary": "completed",
            "result": {"payloads": [{"text": text, "mediaUrl": null}], "meta": {"aborted": false}},
        })),
        Ok(Outcome::Aborted) => call.reply.payload(&json!({
            "runId": run, "status": "aborted", "summary": "aborted", "stopReason": "rpc",
        })),
        Ok(Outcome::Failed(reason)) => {
            let payload = json!({"runId": run, "status": "error", "summary": reason});
            call.reply.failure(&payload, &Refusal::unavailable(reason));
        }
        // It ended in a panic: dropping the reply says that nothing is known.
        Err(_) => {}
    }
}

fn begin(knowledge: &Knowledge, call: &Call) -> Result<(String, Begun), Refusal> {
    let Params { message, agent_id, session_key, idempotency_key } = call.read()?;
    let session = match (session_key, agent_id) {
        (Some(name), _) => SessionKey::named(&name),
        (None, agent) => SessionKey::main_of(agent.as_deref().unwrap_or(DEFAULT_AGENT)),
    };
    let asked = Asked {
        run: idempotency_key.clone(),
        harness: harness(&call.registry, &session)?,
        session,
        turn: turn(message)?,
    };
    Ok((idempotency_key, knowledge.runs.begin(asked)))
}
