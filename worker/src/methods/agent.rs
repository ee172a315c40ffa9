//! `agent`: one turn of an agent, answered twice: when it was accepted, and when it has ended. A repeat is answered
//! once, with what the first came to.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::chat::{harness, lane_full, turn};
use super::outcome::{self, Final};
use super::{Call, Knowledge, Refusal, now_ms};
use crate::agents::harness::Earlier;
use crate::agents::{Asked, Begun, DEFAULT_AGENT, SessionKey};
use crate::shape::{Field, Shape};
use crate::state::store::idempotency::IdempotencyKey;

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
    // The command line of 2026.4.26 always sends it; no run here has servers that would outlive it.
    Field::optional("cleanupBundleMcpOnRunEnd", Shape::Flag),
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

/// What its idempotency keys are told apart by from those of other methods.
pub(super) const SCOPE: &str = "agent";

pub(super) async fn answer(knowledge: Arc<Knowledge>, call: Call) {
    let (run, session, begun) = match begin(&knowledge, &call).await {
        Ok(begun) => begun,
        Err(refusal) => return call.reply.refusal(&refusal),
    };
    let ended = match begun {
        Begun::Started(ended) => ended,
        Begun::InFlight => {
            return call.reply.payload(&json!({"runId": run, "status": "in_flight"}));
        }
        Begun::Done(ended) => {
            return Final::of_agent(&run, &session, ended.outcome).answer(call.reply);
        }
        Begun::DoneUnreadably => return call.reply.refusal(&outcome::unreadable()),
        Begun::LaneFull => return call.reply.refusal(&lane_full()),
    };
    call.reply.interim(&json!({"runId": run, "status": "accepted", "acceptedAt": now_ms()}));
    // An error means that it ended in a panic: dropping the reply says that nothing is known.
    if let Ok(outcome) = ended.await {
        Final::of_agent(&run, &session, outcome).answer(call.reply);
    }
}

async fn begin(
    knowledge: &Arc<Knowledge>,
    call: &Call,
) -> Result<(String, SessionKey, Begun), Refusal> {
    let Params { message, agent_id, session_key, idempotency_key } = call.read()?;
    let session = match (session_key, agent_id) {
        (Some(name), _) => SessionKey::named(&name),
        (None, agent) => SessionKey::main_of(agent.as_deref().unwrap_or(DEFAULT_AGENT)),
    };
    let asked = Asked {
        run: idempotency_key.clone(),
        harness: harness(knowledge, &call.registry, &session).await?,
        session: session.clone(),
        turn: turn(message)?,
        earlier: Earlier::default(),
        key: Some(IdempotencyKey { scope: SCOPE.to_owned(), key: idempotency_key.clone() }),
    };
    let begun = knowledge.runs.begin(asked).await.map_err(|failed| super::store_failed(&failed))?;
    Ok((idempotency_key, session, begun))
}
