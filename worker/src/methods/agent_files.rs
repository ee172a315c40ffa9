//! `agents.files.list`, `.get` and `.set`: what an agent is told by, in its workspace.
//!
//! **Invariants**
//! - Nothing outside of the workspace is read or written; see `state::workspace`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::unusable;
use super::{Call, Knowledge, Refusal};
use crate::shape::{Field, Shape};
use crate::state::config::{agent_id, workspace};
use crate::state::workspace::{Entry, NAMES, Workspace};

pub(super) static LIST_PARAMS: Shape = Shape::Object(&[Field::required("agentId", Shape::Text)]);

pub(super) static GET_PARAMS: Shape =
    Shape::Object(&[Field::required("agentId", Shape::Text), Field::required("name", Shape::Text)]);

pub(super) static SET_PARAMS: Shape = Shape::Object(&[
    Field::required("agentId", Shape::Text),
    Field::required("name", Shape::Text),
    Field::required("content", Shape::AnyText),
]);

/// Whose file, which one, and what it is to say.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    agent_id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    content: String,
}

/// What is done with a workspace, for an agent of this id.
type Work = fn(&str, &Workspace, &Params) -> Result<Value, Refusal>;

pub(super) async fn list(knowledge: Arc<Knowledge>, call: Call) {
    in_workspace(knowledge, call, |agent, workspace, _| {
        let files = NAMES.map(|name| described(workspace, name, workspace.entry(name)));
        Ok(json!({"agentId": agent, "workspace": workspace.path(), "files": files}))
    })
    .await;
}

pub(super) async fn get(knowledge: Arc<Knowledge>, call: Call) {
    in_workspace(knowledge, call, |agent, workspace, Params { name, .. }| {
        let read = workspace.read(name).map_err(|refused| unusable(&refused))?;
        let mut file = described(workspace, name, read.as_ref().map(|(entry, _)| *entry));
        if let Some((_, content)) = read {
            file["content"] = content.into();
        }
        Ok(json!({"agentId": agent, "workspace": workspace.path(), "file": file}))
    })
    .await;
}

pub(super) async fn set(knowledge: Arc<Knowledge>, call: Call) {
    in_workspace(knowledge, call, |agent, workspace, Params { name, content, .. }| {
        let written = match workspace.write(name, content) {
            Ok(entry) => entry,
            Err(refused) => return Err(unusable(&refused)),
        };
        let mut file = described(workspace, name, Some(written));
        file["content"] = content.as_str().into();
        Ok(json!({"ok": true, "agentId": agent, "workspace": workspace.path(), "file": file}))
    })
    .await;
}

/// Answers with what `work` makes of the agent's workspace.
async fn in_workspace(knowledge: Arc<Knowledge>, call: Call, work: Work) {
    let outcome = match call.read::<Params>() {
        Ok(params) => knowledge.apart(move |knowledge| done(knowledge, &params, work)).await,
        Err(refusal) => Err(refusal),
    };
    call.reply.outcome(outcome.and_then(|outcome| outcome));
}

fn done(knowledge: &Knowledge, params: &Params, work: Work) -> Result<Value, Refusal> {
    let id = agent_id(&params.agent_id);
    let known = || knowledge.registry.load().agents().contains(&id);
    if !known() {
        // Another generation may have made it just now.
        knowledge.look_again();
        if !known() {
            return Err(Refusal::invalid("unknown agent id"));
        }
    }
    let config = knowledge.config.load_full();
    let path = workspace::of(config.settled.config(), &id, &knowledge.state_dir);
    let workspace = Workspace::open(&path).map_err(|refused| unusable(&refused))?;
    work(&id, &workspace, params)
}

fn described(workspace: &Workspace, name: &str, entry: Option<Entry>) -> Value {
    let path = workspace.file(name);
    match entry {
        Some(Entry { size, updated_at_ms }) => json!({
            "name": name, "path": path, "missing": false, "size": size,
            "updatedAtMs": updated_at_ms,
        }),
        None => json!({"name": name, "path": path, "missing": true}),
    }
}
