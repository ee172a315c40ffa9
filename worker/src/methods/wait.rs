//! `agent.wait`: how a run has ended, once it has, in whichever generation it runs.
//!
//! **Invariants**
//! - The end of a run is heard of, here and in the generation beside, and looked up then. Whatever is not heard is
//!   found all the same: the database is looked at now and then, ever more rarely.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Call, Knowledge, Refusal, agent, chat, outcome};
use crate::agents::{Ended, clock_ms};
use crate::shape::{Field, Shape};
use crate::state::store::idempotency::{Claim, IdempotencyKey};

/// How long it waits unless told otherwise.
const TIMEOUT_MS: u64 = 30_000;
/// The longest wait that is possible.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// At most so much lies between two looks at the database, unless more lies between the first two already.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) static PARAMS: Shape = Shape::Object(&[
    Field::required("runId", Shape::Text),
    Field::optional("timeoutMs", Shape::Integer { least: 0 }),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    run_id: String,
    timeout_ms: Option<u64>,
}

pub(super) async fn answer(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = wait(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

async fn wait(knowledge: &Knowledge, call: &Call) -> Result<Value, Refusal> {
    let Params { run_id, timeout_ms } = call.read()?;
    let limit = Duration::from_millis(timeout_ms.unwrap_or(TIMEOUT_MS)).min(LONGEST);
    let deadline = Instant::now() + limit;
    let mut pause = knowledge.wait_pause;
    let longest = pause.max(LONGEST_PAUSE);
    // Ahead of the first look: what ends after that is heard.
    let mut awaited = knowledge.runs.end_of(run_id);
    loop {
        if let Some(payload) = ended(knowledge, awaited.run()).await? {
            return Ok(payload);
        }
        // Whether a sign comes or the pause is over, it is looked at again.
        let next_look = timeout(pause, awaited.sign());
        if timeout_at(deadline, next_look).await.is_err() {
            return Ok(json!({"runId": awaited.run(), "status": "timeout"}));
        }
        pause = pause.saturating_mul(2).min(longest);
    }
}

async fn ended(knowledge: &Knowledge, run: &str) -> Result<Option<Value>, Refusal> {
    for scope in [agent::SCOPE, chat::SCOPE] {
        let key = IdempotencyKey { scope: scope.to_owned(), key: run.to_owned() };
        match knowledge.store.claimed_key(key, clock_ms()).await {
            Ok(Some(Claim::Done { result, .. })) => {
                let ended = Ended::read(&result).ok_or_else(outcome::unreadable)?;
                return Ok(Some(outcome::waited_for(run, &ended)));
            }
            Ok(Some(Claim::New | Claim::InFlight { .. }) | None) => {}
            Err(failed) => return Err(super::store_failed(&failed)),
        }
    }
    Ok(None)
}
