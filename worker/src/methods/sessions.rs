//! `sessions.list`, `.describe`, `.create`, `.send`, `.patch`, `.reset` and `.delete`.
//!
//! **Invariants**
//! - A session is reset or deleted once its runs have ended, in both generations; what one that could not be ended still
//!   says is refused by the store.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::chat::{Sending, Sent, harness};
use super::{Call, Knowledge, Refusal, now_ms, row, store_failed};
use crate::agents::fallback::{self, ModelRef};
use crate::agents::{DEFAULT_AGENT, Ending, SessionKey, clock_ms, new_session};
use crate::shape::{Field, Shape};
use crate::state::store::session_list::SessionFilter;
use crate::state::store::sessions::{ChangeFailed, CreateFailed, NewSession, SessionPatch};

pub(super) static LIST_PARAMS: Shape = Shape::Object(&[
    Field::optional("limit", Shape::Integer { least: 1 }),
    Field::optional("activeMinutes", Shape::Integer { least: 1 }),
    Field::optional("includeGlobal", Shape::Flag),
    Field::optional("includeUnknown", Shape::Flag),
    Field::optional("configuredAgentsOnly", Shape::Flag),
    Field::optional("includeDerivedTitles", Shape::Flag),
    Field::optional("includeLastMessage", Shape::Flag),
    Field::optional("label", Shape::Text),
    Field::optional("spawnedBy", Shape::Text),
    Field::optional("agentId", Shape::Text),
    Field::optional("search", Shape::AnyText),
]);

pub(super) static DESCRIBE_PARAMS: Shape = Shape::Object(&[
    Field::required("key", Shape::Text),
    Field::optional("includeDerivedTitles", Shape::Flag),
    Field::optional("includeLastMessage", Shape::Flag),
]);

pub(super) static CREATE_PARAMS: Shape = Shape::Object(&[
    Field::optional("key", Shape::Text),
    Field::optional("agentId", Shape::Text),
    Field::optional("label", Shape::Text),
    Field::optional("model", Shape::Text),
    Field::optional("parentSessionKey", Shape::Text),
    Field::optional("emitCommandHooks", Shape::Flag),
    Field::optional("task", Shape::AnyText),
    Field::optional("message", Shape::AnyText),
]);

pub(super) static SEND_PARAMS: Shape = Shape::Object(&[
    Field::required("key", Shape::Text),
    Field::required("message", Shape::AnyText),
    Field::optional("thinking", Shape::AnyText),
    Field::optional("attachments", Shape::List(&Shape::Anything)),
    Field::optional("timeoutMs", Shape::Integer { least: 0 }),
    Field::optional("idempotencyKey", Shape::Text),
]);

pub(super) static RESET_PARAMS: Shape = Shape::Object(&[
    Field::required("key", Shape::Text),
    Field::optional("reason", Shape::OneOf(&["new", "reset"])),
]);

pub(super) static DELETE_PARAMS: Shape = Shape::Object(&[
    Field::required("key", Shape::Text),
    Field::optional("deleteTranscript", Shape::Flag),
    Field::optional("emitLifecycleHooks", Shape::Flag),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    limit: Option<u64>,
    active_minutes: Option<i64>,
    #[serde(default)]
    include_global: bool,
    #[serde(default)]
    include_unknown: bool,
    label: Option<String>,
    spawned_by: Option<String>,
    agent_id: Option<String>,
    search: Option<String>,
}

pub(super) async fn list(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = show_list(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

async fn show_list(knowledge: &Arc<Knowledge>, call: &Call) -> Result<Value, Refusal> {
    let List {
        limit,
        active_minutes,
        include_global,
        include_unknown,
        label,
        spawned_by,
        agent_id,
        search,
    } = call.read()?;
    let since = |minutes: i64| clock_ms().saturating_sub(minutes.saturating_mul(60_000));
    let path = knowledge.sessions_path(agent_id.as_deref().unwrap_or(DEFAULT_AGENT));
    let filter = SessionFilter {
        agent_id,
        label,
        spawned_by,
        search: search.filter(|search| !search.trim().is_empty()),
        active_since_ms: active_minutes.map(since),
        include_global,
        include_unknown,
        limit: limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
    };
    let page = knowledge.store.sessions(filter).await.map_err(|error| store_failed(&error))?;
    let count = u64::try_from(page.sessions.len()).unwrap_or(u64::MAX);
    let rows: Vec<Value> =
        page.sessions.iter().map(|session| row::whole(knowledge, session)).collect();
    let answers = row::answers_for(knowledge, DEFAULT_AGENT);
    let (provider, model) = answers.shown();
    let mut defaults = json!({"modelProvider": provider, "model": model, "contextTokens": null});
    row::merge(&mut defaults, &row::thinking());
    Ok(json!({
        "ts": now_ms(), "path": path, "count": count, "totalCount": page.total,
        "limitApplied": page.limit, "hasMore": count < page.total,
        "defaults": defaults, "sessions": rows,
    }))
}

/// What all those are called with that are about one session.
#[derive(Deserialize)]
struct One {
    key: String,
}

pub(super) async fn describe(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = async {
        let One { key } = call.read()?;
        let found = knowledge.store.session(SessionKey::named(&key).as_str()).await;
        let found = found.map_err(|error| store_failed(&error))?;
        let shown = found.map(|session| row::whole(&knowledge, &session));
        Ok::<_, Refusal>(json!({"session": shown}))
    }
    .await;
    call.reply.outcome(outcome);
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    key: Option<String>,
    agent_id: Option<String>,
    label: Option<String>,
    model: Option<String>,
    parent_session_key: Option<String>,
    task: Option<String>,
    message: Option<String>,
}

pub(super) async fn create(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = make(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

/// Makes a session, or gives the one of this key the label and model that were named, and sends its first message.
async fn make(knowledge: &Arc<Knowledge>, call: &Call) -> Result<Value, Refusal> {
    let Create { key, agent_id, label, model, parent_session_key, task, message } = call.read()?;
    let session = match (&key, &agent_id) {
        (Some(key), _) => SessionKey::named(key),
        (None, agent) => {
            let agent = agent.as_deref().unwrap_or(DEFAULT_AGENT);
            SessionKey::named(&format!("agent:{agent}:dashboard:{}", uuid::Uuid::new_v4()))
        }
    };
    let agent = session.agent();
    if let Some(wanted) = agent_id.filter(|wanted| wanted != agent) {
        return Err(Refusal::invalid(format!(
            "sessions.create key agent ({agent}) does not match agentId ({wanted})"
        )));
    }
    harness(knowledge, &call.registry, &session).await?;
    let spawned_by = match parent_session_key {
        Some(parent) => Some(
            existing(knowledge, &parent)
                .await?
                .ok_or_else(|| Refusal::invalid(format!("unknown parent session: {parent}")))?,
        ),
        None => None,
    };
    let new = NewSession { label: label.clone(), ..new_session(&session) };
    let mut patch = SessionPatch {
        label: label.map(Some),
        spawned_by: spawned_by.map(Some),
        ..SessionPatch::default()
    };
    if let Some(model) = model {
        choose(knowledge, &session, Some(&model), &mut patch)?;
    }
    let made = knowledge.store.ensure_session(new, clock_ms()).await;
    made.map_err(|failed| create_refusal(&failed))?;
    let made = knowledge.store.patch_session(session.as_str(), patch, clock_ms()).await;
    let made = made.map_err(|failed| change_refusal(&failed))?;
    knowledge.runs.overview().refresh(&knowledge.store).await;
    let mut payload = json!({
        "ok": true, "key": made.key, "sessionId": made.session_id, "entry": row::entry(&made),
        "runStarted": false,
    });
    let first = task.into_iter().chain(message).find(|text| !text.trim().is_empty());
    if let Some(message) = first {
        let sent = Sent { session, message, run: uuid::Uuid::new_v4().to_string() };
        match sent.begin(knowledge, &call.registry).await {
            Ok(Sending::Begun(begun)) => {
                row::merge(&mut payload, &begun);
                payload["runStarted"] = json!(true);
                payload["messageSeq"] = json!(made.message_count + 1);
            }
            Ok(Sending::Done(_)) => {}
            Err(refusal) => payload["runError"] = json!(refusal),
        }
    }
    Ok(payload)
}

/// The whole key of a session that is there.
async fn existing(knowledge: &Arc<Knowledge>, name: &str) -> Result<Option<String>, Refusal> {
    let found = knowledge.store.session(SessionKey::named(name).as_str()).await;
    Ok(found.map_err(|error| store_failed(&error))?.map(|session| session.key))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SendTo {
    key: String,
    message: String,
    idempotency_key: Option<String>,
}

/// As `chat.send`, to a session that is there.
pub(super) async fn send(knowledge: Arc<Knowledge>, call: Call) {
    match begin_send(&knowledge, &call).await {
        Ok(Sending::Begun(payload)) => call.reply.payload(&payload),
        Ok(Sending::Done(done)) => done.answer(call.reply),
        Err(refusal) => call.reply.refusal(&refusal),
    }
}

async fn begin_send(knowledge: &Arc<Knowledge>, call: &Call) -> Result<Sending, Refusal> {
    let SendTo { key, message, idempotency_key } = call.read()?;
    let session = SessionKey::named(&key);
    let found = knowledge.store.session(session.as_str()).await;
    let Some(found) = found.map_err(|error| store_failed(&error))? else {
        return Err(Refusal::invalid(format!("session not found: {key}")));
    };
    let run = idempotency_key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let mut sending = Sent { session, message, run }.begin(knowledge, &call.registry).await?;
    if let Sending::Begun(payload) = &mut sending
        && payload["status"] == "started"
    {
        payload["messageSeq"] = json!(found.message_count + 1);
    }
    Ok(sending)
}

pub(super) async fn reset(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = begin_anew(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

async fn begin_anew(knowledge: &Arc<Knowledge>, call: &Call) -> Result<Value, Refusal> {
    let One { key } = call.read()?;
    let session = SessionKey::named(&key);
    harness(knowledge, &call.registry, &session).await?;
    knowledge.runs.abort(&session, None, Ending::LaneCleared).await;
    let new = new_session(&session);
    let life = new.session_id.clone();
    let made = knowledge.store.ensure_session(new, clock_ms()).await;
    made.map_err(|failed| create_refusal(&failed))?;
    let reset = knowledge.store.reset_session(session.as_str(), &life, clock_ms()).await;
    let reset = reset.map_err(|failed| change_refusal(&failed))?;
    knowledge.runs.overview().refresh(&knowledge.store).await;
    let mut entry = row::entry(&reset);
    let fresh = json!({
        "systemSent": false, "abortedLastRun": false, "compactionCount": 0,
        "inputTokens": 0, "outputTokens": 0, "totalTokens": 0, "totalTokensFresh": true,
    });
    row::merge(&mut entry, &fresh);
    Ok(json!({"ok": true, "key": reset.key, "entry": entry}))
}

pub(super) async fn delete(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = forget(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

async fn forget(knowledge: &Arc<Knowledge>, call: &Call) -> Result<Value, Refusal> {
    let One { key } = call.read()?;
    let session = SessionKey::named(&key);
    if session == SessionKey::main_of(DEFAULT_AGENT) {
        let key = session.as_str();
        return Err(Refusal::invalid(format!("Cannot delete the main session ({key}).")));
    }
    knowledge.runs.abort(&session, None, Ending::LaneCleared).await;
    let deleted = knowledge.store.delete_session(session.as_str()).await;
    let deleted = deleted.map_err(|error| store_failed(&error))?;
    knowledge.runs.overview().refresh(&knowledge.store).await;
    Ok(json!({"ok": true, "key": session.as_str(), "deleted": deleted, "archived": []}))
}

pub(super) async fn patch(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = change(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

async fn change(knowledge: &Arc<Knowledge>, call: &Call) -> Result<Value, Refusal> {
    let One { key } = call.read()?;
    let session = SessionKey::named(&key);
    harness(knowledge, &call.registry, &session).await?;
    let mut patch = changes(call.params.as_object().cloned().unwrap_or_default())?;
    if let Some(model) = call.params.get("model") {
        choose(knowledge, &session, model.as_str(), &mut patch)?;
    }
    let made = knowledge.store.ensure_session(new_session(&session), clock_ms()).await;
    made.map_err(|failed| create_refusal(&failed))?;
    let changed = knowledge.store.patch_session(session.as_str(), patch, clock_ms()).await;
    let changed = changed.map_err(|failed| change_refusal(&failed))?;
    knowledge.runs.overview().refresh(&knowledge.store).await;
    Ok(json!({
        "ok": true,
        "path": knowledge.sessions_path(session.agent()),
        "key": changed.key,
        "entry": row::entry(&changed),
        "resolved": row::model(&row::answers(knowledge, &changed)),
    }))
}

/// Has a session's turns answered by this model, or by its agent's.
fn choose(
    knowledge: &Knowledge,
    session: &SessionKey,
    model: Option<&str>,
    patch: &mut SessionPatch,
) -> Result<(), Refusal> {
    let config = knowledge.config.load();
    let chosen = model
        .map(|name| fallback::choose(name, session.agent(), config.settled.config()))
        .transpose()
        .map_err(|refused| Refusal::invalid(refused.to_string()))?
        .flatten();
    let shown = chosen.as_ref().map(ModelRef::shown).unzip();
    patch.model_provider = Some(shown.0.map(str::to_owned));
    patch.model = Some(shown.1.map(str::to_owned));
    Ok(())
}

/// What of a session can be patched, and what it can be beside `null`.
pub(super) static PATCH_PARAMS: Shape = Shape::Object(&[
    Field::required("key", Shape::Text),
    Field::optional("label", Shape::Anything),
    Field::optional("model", Shape::Anything),
    Field::optional("spawnedBy", Shape::Anything),
    Field::optional("fastMode", Shape::Anything),
    Field::optional("spawnDepth", Shape::Anything),
    Field::optional("thinkingLevel", Shape::Anything),
    Field::optional("verboseLevel", Shape::Anything),
    Field::optional("traceLevel", Shape::Anything),
    Field::optional("reasoningLevel", Shape::Anything),
    Field::optional("responseUsage", Shape::Anything),
    Field::optional("elevatedLevel", Shape::Anything),
    Field::optional("execHost", Shape::Anything),
    Field::optional("execSecurity", Shape::Anything),
    Field::optional("execAsk", Shape::Anything),
    Field::optional("execNode", Shape::Anything),
    Field::optional("spawnedWorkspaceDir", Shape::Anything),
    Field::optional("subagentRole", Shape::Anything),
    Field::optional("subagentControlScope", Shape::Anything),
    Field::optional("sendPolicy", Shape::Anything),
    Field::optional("groupActivation", Shape::Anything),
]);

/// Of parameters whose names are known. What is `null` is emptied.
fn changes(params: Map<String, Value>) -> Result<SessionPatch, Refusal> {
    static FLAG: Shape = Shape::Flag;
    static DEPTH: Shape = Shape::Integer { least: 0 };
    static TEXT: Shape = Shape::Text;
    let mut patch = SessionPatch::default();
    for (name, value) in params.into_iter().filter(|(name, _)| name != "key") {
        let shape = match name.as_str() {
            "fastMode" => &FLAG,
            "spawnDepth" => &DEPTH,
            _ => &TEXT,
        };
        if !value.is_null() {
            shape.check(&value).map_err(|wrong| {
                Refusal::invalid(format!("invalid sessions.patch params: at /{name}: {wrong}"))
            })?;
        }
        let text = || value.as_str().map(str::to_owned);
        match name.as_str() {
            "label" => patch.label = Some(text()),
            // What it comes to depends on the configuration.
            "model" => {}
            "spawnedBy" => patch.spawned_by = Some(text()),
            _ => {
                patch.attributes.insert(name, value);
            }
        }
    }
    Ok(patch)
}

fn create_refusal(failed: &CreateFailed) -> Refusal {
    match failed {
        CreateFailed::LabelInUse { .. } => Refusal::invalid(failed.to_string()),
        CreateFailed::Store(failed) => store_failed(failed),
    }
}

fn change_refusal(failed: &ChangeFailed) -> Refusal {
    match failed {
        ChangeFailed::NoSession { .. } | ChangeFailed::LabelInUse { .. } => {
            Refusal::invalid(failed.to_string())
        }
        ChangeFailed::Store(failed) => store_failed(failed),
    }
}
