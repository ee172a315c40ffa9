//! Sessions as clients are shown them: in lists, in `health` and `status`, and as the entry that was changed.

use serde_json::{Value, json};

use super::Knowledge;
use crate::agents::fallback::{self, ModelRef};
use crate::agents::harness::{CONVERSATIONS, Harness};
use crate::state::store::session_run::RunStatus;
use crate::state::store::sessions::Session;

/// What sessions have attributes for that is none of their clients' business, or told elsewhere.
const OURS: [&str; 2] = [fallback::ATTRIBUTE, CONVERSATIONS];

/// In a list, and alone.
pub(super) fn whole(knowledge: &Knowledge, session: &Session) -> Value {
    let mut row = json!({
        "key": session.key,
        "kind": kind(&session.key),
        "updatedAt": session.updated_at_ms,
        "sessionId": session.session_id,
        "abortedLastRun": aborted(session),
        "inputTokens": session.input_tokens,
        "outputTokens": session.output_tokens,
        "totalTokens": session.input_tokens.saturating_add(session.output_tokens),
        "totalTokensFresh": true,
        "estimatedCostUsd": 0,
        "hasActiveRun": is_active(knowledge, session),
    });
    merge(&mut row, &model(&answers(knowledge, session)));
    merge(&mut row, &thinking());
    merge(&mut row, &attributes(session));
    if let Some(label) = &session.label {
        row["label"] = json!(label);
    }
    if let Some(spawned_by) = &session.spawned_by {
        row["spawnedBy"] = json!(spawned_by);
    }
    if let Some(run) = session.latest_run {
        row["status"] = json!(run.status.as_str());
        row["startedAt"] = json!(run.started_at_ms);
        if let Some(ended_at_ms) = run.ended_at_ms {
            row["endedAt"] = json!(ended_at_ms);
            row["runtimeMs"] = json!(ended_at_ms.saturating_sub(run.started_at_ms));
        }
    }
    row
}

/// As what was made or changed.
pub(super) fn entry(session: &Session) -> Value {
    let mut entry = json!({"sessionId": session.session_id, "updatedAt": session.updated_at_ms});
    merge(&mut entry, &attributes(session));
    let texts = [("label", &session.label), ("spawnedBy", &session.spawned_by)];
    for (name, text) in texts {
        if let Some(text) = text {
            entry[name] = json!(text);
        }
    }
    if let Some(chosen) = fallback::chosen(session) {
        let (provider, model) = chosen.shown();
        let chosen = json!({
            "providerOverride": provider, "modelOverride": model, "modelOverrideSource": "user",
        });
        merge(&mut entry, &chosen);
    }
    entry
}

/// What answers a session's turns unless it fails.
pub(super) fn answers(knowledge: &Knowledge, session: &Session) -> ModelRef {
    fallback::chosen(session).unwrap_or_else(|| answers_for(knowledge, &session.agent_id))
}

/// What answers those of an agent's sessions for which nobody has chosen a model. The registry knows; it knows nothing of
/// agents that are gone.
pub(super) fn answers_for(knowledge: &Knowledge, agent: &str) -> ModelRef {
    let known = knowledge.registry.load().harness(agent).and_then(Harness::model);
    known.unwrap_or_else(|| fallback::first(knowledge.config.load().settled.config(), agent))
}

/// What answers.
pub(super) fn model(model: &ModelRef) -> Value {
    let (provider, model) = model.shown();
    json!({
        "modelProvider": provider,
        "model": model,
        "agentRuntime": {"id": "auto", "source": "implicit"},
    })
}

fn attributes(session: &Session) -> Value {
    let mut attributes = session.attributes.clone();
    attributes.retain(|name, _| !OURS.contains(&name.as_str()));
    Value::Object(attributes)
}

/// In `health`.
pub(super) fn recent(session: &Session, now_ms: i64) -> Value {
    let age = now_ms.saturating_sub(session.updated_at_ms).max(0);
    json!({"key": session.key, "updatedAt": session.updated_at_ms, "age": age})
}

/// In `status`.
pub(super) fn in_status(knowledge: &Knowledge, session: &Session, now_ms: i64) -> Value {
    let mut row = recent(session, now_ms);
    let answers = answers(knowledge, session);
    let more = json!({
        "agentId": session.agent_id,
        "kind": kind(&session.key),
        "sessionId": session.session_id,
        "abortedLastRun": aborted(session),
        "inputTokens": session.input_tokens,
        "outputTokens": session.output_tokens,
        "totalTokens": session.input_tokens.saturating_add(session.output_tokens),
        "totalTokensFresh": true,
        "model": answers.shown().1,
        "flags": [format!("id:{}", session.session_id)],
    });
    merge(&mut row, &more);
    row
}

/// How much the agents may think: the one that comes with the worker does not.
pub(super) fn thinking() -> Value {
    json!({
        "thinkingLevels": [{"id": "off", "label": "off"}],
        "thinkingOptions": ["off"],
        "thinkingDefault": "off",
    })
}

fn kind(key: &str) -> &str {
    match key {
        "global" | "unknown" => key,
        _ => "direct",
    }
}

fn aborted(session: &Session) -> bool {
    session.latest_run.is_some_and(|run| run.status == RunStatus::Killed)
}

/// Whether somebody who lives is at it: a generation that died has not said how its run ended.
fn is_active(knowledge: &Knowledge, session: &Session) -> bool {
    let is_running = session.latest_run.is_some_and(|run| run.status == RunStatus::Running);
    knowledge.runs.any_of(&session.key) || (is_running && knowledge.store.others_are_alive())
}

/// Puts the fields of another object into this one.
pub(super) fn merge(into: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        into[name] = value.clone();
    }
}
