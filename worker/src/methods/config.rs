//! `config.get`, `config.set`, `config.apply`, `config.patch`, `config.schema` and `config.schema.lookup`: the configuration's file, for clients.
//!
//! **Invariants**
//! - No answer shows a secret, and no patch writes the placeholder of one.
//! - A change is for the text that the client has read; it holds before it is answered.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::reloading::refusal;
use super::{Call, Knowledge, Refusal};
use crate::shape::{Field, Shape};
use crate::state::config::{
    Base, EditRefused, Environment, KeyPath, TooSoon, Written, lookup, patched, replaced, schema,
    shown,
};

pub(super) static NO_PARAMS: Shape = Shape::Object(&[]);

pub(super) static SET_PARAMS: Shape =
    Shape::Object(&[Field::required("raw", Shape::Text), Field::optional("baseHash", Shape::Text)]);
/// Of `config.apply` and `config.patch`.
pub(super) static PATCH_PARAMS: Shape = Shape::Object(&[
    Field::required("raw", Shape::Text),
    Field::optional("baseHash", Shape::Text),
    // Who is told of the restart that is not needed here.
    Field::optional("sessionKey", Shape::AnyText),
    Field::optional("deliveryContext", Shape::Anything),
    Field::optional("note", Shape::AnyText),
    Field::optional("restartDelayMs", Shape::Integer { least: 0 }),
]);

pub(super) static LOOKUP_PARAMS: Shape = Shape::Object(&[Field::required("path", Shape::Text)]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    raw: String,
    base_hash: Option<String>,
}

#[derive(Deserialize)]
struct Lookup {
    path: String,
}

pub(super) async fn get(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = knowledge
        .apart(|knowledge| {
            knowledge.look_again();
            read(&knowledge.config_path, &knowledge.environment())
        })
        .await;
    call.reply.outcome(outcome.and_then(|outcome| outcome));
}

/// How a document is edited: with what a client sends as `raw`.
type Editing = fn(&Value, &str) -> Result<Value, EditRefused>;

pub(super) async fn set(knowledge: Arc<Knowledge>, call: Call) {
    change(knowledge, call, "config.set", replaced).await;
}

/// The same as [`set`]: what it changes holds at once here, and what only a fresh worker brings in is asked for.
pub(super) async fn apply(knowledge: Arc<Knowledge>, call: Call) {
    change(knowledge, call, "config.apply", replaced).await;
}

pub(super) async fn patch(knowledge: Arc<Knowledge>, call: Call) {
    change(knowledge, call, "config.patch", patched).await;
}

async fn change(knowledge: Arc<Knowledge>, call: Call, method: &'static str, editing: Editing) {
    let outcome = match call.read() {
        Ok(change) => {
            let client = call.client.clone();
            let made = move |knowledge: &Knowledge| {
                knowledge.take_write(&client, method)?;
                made(knowledge, &change, editing)
            };
            knowledge.apart(made).await
        }
        Err(refusal) => Err(refusal),
    };
    call.reply.outcome(outcome.and_then(|outcome| outcome));
}

pub(super) async fn whole_schema(call: Call) {
    call.reply.payload(&json!({"schema": schema(), "uiHints": {}, "version": super::VERSION}));
}

pub(super) async fn looked_up(call: Call) {
    let outcome = call.read().and_then(|Lookup { path }| {
        lookup(&key_path(&path)).ok_or_else(|| Refusal::invalid("config schema path not found"))
    });
    call.reply.outcome(outcome);
}

fn read(path: &Path, environment: &Environment) -> Result<Value, Refusal> {
    shown(path, environment)
        .map_err(|failed| Refusal::unavailable(handoff::chain(&failed).to_string()))
}

fn made(knowledge: &Knowledge, change: &Change, editing: Editing) -> Result<Value, Refusal> {
    let base = Base::Named(change.base_hash.as_deref());
    let edited = knowledge
        .edit(base, |document| editing(document, &change.raw))
        .map_err(|failed| refusal(&failed))?;
    let path = &knowledge.config_path;
    let shown = read(path, &knowledge.environment())?;
    let mut answer =
        json!({"ok": true, "path": path, "config": shown["config"], "hash": edited.hash});
    if edited.written == Written::No {
        answer["noop"] = json!(true);
    }
    Ok(answer)
}

impl Knowledge {
    /// Takes one write from a client's budget, which all methods share that change the gateway itself.
    pub(super) fn take_write(&self, client: &str, method: &str) -> Result<(), Refusal> {
        let taken = {
            let mut budget = self.config_writes.lock().unwrap_or_else(PoisonError::into_inner);
            budget.take(client, Instant::now())
        };
        taken.map_err(|too_soon| refused_for_now(method, too_soon))
    }
}

fn refused_for_now(method: &str, TooSoon { retry_after }: TooSoon) -> Refusal {
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    Refusal::unavailable(format!("rate limit exceeded for {method}; retry after {seconds}s"))
        .with_details(json!({
            "method": method,
            "limit": "3 per 60s",
            "retryAfterMs": handoff::message::millis(retry_after),
        }))
}

/// `agents.list[].id`, `agents.list[0].id` or `agents.list.0.id`, as a path.
fn key_path(text: &str) -> KeyPath {
    let mut path = KeyPath::whole();
    for part in text.split(['.', '[']).map(|part| part.trim_end_matches(']')) {
        path = match part.parse() {
            _ if part.is_empty() || part == "*" => path.index(0),
            Ok(index) => path.index(index),
            Err(_) => path.key(part),
        };
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_understood_as_people_write_it() {
        for (text, path) in [
            ("gateway.port", "gateway.port"),
            ("agents.list[].id", "agents.list[0].id"),
            ("agents.list[1].id", "agents.list[1].id"),
            ("agents.list.2.id", "agents.list[2].id"),
        ] {
            assert_eq!(key_path(text).to_string(), path);
        }
        assert!(lookup(&key_path("agents.list[].identity")).is_some());
    }
}
