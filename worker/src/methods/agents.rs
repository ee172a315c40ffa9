//! `agents.list`, `agents.create`, `agents.update` and `agents.delete`: who answers, written where OpenClaw's own
//! tools look for it.
//!
//! ```text
//! refused? ─┬─► workspace, IDENTITY.md, sessions ─┬─► it takes openclaw.json's place ─► it holds ─► answer
//!           └─► agents.list, written beside ──────┘
//! ```
//!
//! **Invariants**
//! - What is answered holds already: the next call may name the agent, in whichever generation.
//! - The entry in the file comes last: an agent that is listed has all that it needs.
//! - None of these asks for a takeover.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use serde::Deserialize;
use serde_json::{Value, json};

use super::reloading::refusal;
use super::{Call, Knowledge, Refusal, now_ms};
use crate::shape::{Field, Shape};
use crate::state::config::{
    AgentChange, AgentIdentity, Base, EditFailed, RosterRefused, agent_id, with_agent,
    with_changed_agent, without_agent, workspace,
};
use crate::state::durable::{self, Made};
use crate::state::workspace::{FileRefused, IDENTITY, Workspace};

/// The longest id, which is a directory's name as well.
const LONGEST_ID: usize = 64;

pub(super) static LIST_PARAMS: Shape = Shape::Object(&[]);

pub(super) static CREATE_PARAMS: Shape = Shape::Object(&[
    Field::required("name", Shape::Text),
    Field::required("workspace", Shape::Text),
    Field::optional("model", Shape::Text),
    Field::optional("emoji", Shape::AnyText),
    Field::optional("avatar", Shape::AnyText),
]);

pub(super) static UPDATE_PARAMS: Shape = Shape::Object(&[
    Field::required("agentId", Shape::Text),
    Field::optional("name", Shape::Text),
    Field::optional("workspace", Shape::Text),
    Field::optional("model", Shape::Text),
    Field::optional("emoji", Shape::AnyText),
    Field::optional("avatar", Shape::AnyText),
]);

pub(super) static DELETE_PARAMS: Shape = Shape::Object(&[
    Field::required("agentId", Shape::Text),
    Field::optional("deleteFiles", Shape::Flag),
]);

/// What an agent is to be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    agent_id: Option<String>,
    name: Option<String>,
    workspace: Option<String>,
    model: Option<String>,
    emoji: Option<String>,
    avatar: Option<String>,
}

impl Wanted {
    /// What of it goes into the entry, and the workspace if it names one.
    fn change(&self) -> Result<(AgentChange, Option<PathBuf>), Refusal> {
        let line = |text: &Option<String>| {
            let words: Vec<_> = text.as_deref()?.split_whitespace().collect();
            (!words.is_empty()).then(|| words.join(" "))
        };
        let workspace = self.workspace.as_deref().map(workspace::resolved).transpose();
        let workspace = workspace
            .map_err(|error| Refusal::invalid(format!("workspace cannot be used: {error}")))?;
        let change = AgentChange {
            name: line(&self.name),
            workspace: workspace.as_ref().map(|path| path.to_string_lossy().into_owned()),
            agent_dir: None,
            model: self.model.clone(),
            identity: AgentIdentity {
                name: line(&self.name),
                theme: None,
                emoji: line(&self.emoji),
                avatar: line(&self.avatar),
            },
        };
        Ok((change, workspace))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delete {
    agent_id: String,
    delete_files: Option<bool>,
}

pub(super) async fn list(knowledge: Arc<Knowledge>, call: Call) {
    let listed = knowledge.apart(|knowledge| {
        knowledge.look_again();
        listed(knowledge)
    });
    let outcome = listed.await;
    call.reply.outcome(outcome);
}

pub(super) async fn create(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = match call.read() {
        Ok(wanted) => knowledge.apart(move |knowledge| created(knowledge, &wanted)).await,
        Err(refusal) => Err(refusal),
    };
    call.reply.outcome(outcome.and_then(|outcome| outcome));
}

pub(super) async fn update(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = match call.read() {
        Ok(wanted) => knowledge.apart(move |knowledge| updated(knowledge, &wanted)).await,
        Err(refusal) => Err(refusal),
    };
    call.reply.outcome(outcome.and_then(|outcome| outcome));
}

pub(super) async fn delete(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = match call.read() {
        Ok(delete) => knowledge.apart(move |knowledge| deleted(knowledge, &delete)).await,
        Err(refusal) => Err(refusal),
    };
    call.reply.outcome(outcome.and_then(|outcome| outcome));
}

fn listed(knowledge: &Knowledge) -> Value {
    let (registry, config) = (knowledge.registry.load(), knowledge.config.load());
    let config = config.settled.config();
    // Of several of one id, the first one.
    let list = config.agents.list.iter().rev();
    let listed: BTreeMap<_, _> = list.map(|agent| (agent_id(&agent.id), agent)).collect();
    let shown = |id: &String| {
        let entry = listed.get(id).copied();
        let mut shown = json!({
            "id": id,
            "workspace": workspace::of(config, id, &knowledge.state_dir),
            "agentRuntime": {"id": "echo", "source": "implicit"},
        });
        if let Some(name) = entry.and_then(|entry| entry.name.as_ref()) {
            shown["name"] = json!(name);
        }
        if let Some(identity) = entry.and_then(|entry| entry.identity.as_ref()) {
            shown["identity"] = json!(identity);
        }
        let own = entry.and_then(|entry| entry.model.as_ref());
        if let Some(model) = own.or(config.agents.defaults.model.as_ref()) {
            shown["model"] = json!({"primary": model.primary});
            if !model.fallbacks.is_empty() {
                shown["model"]["fallbacks"] = json!(model.fallbacks);
            }
        }
        shown
    };
    json!({
        "defaultId": registry.default_agent(),
        "mainKey": config.session.main_key,
        "scope": config.session.scope,
        "agents": registry.agents().iter().map(shown).collect::<Vec<_>>(),
    })
}

fn created(knowledge: &Knowledge, wanted: &Wanted) -> Result<Value, Refusal> {
    let (mut change, path) = wanted.change()?;
    let (Some(name), Some(path)) = (change.name.clone(), path) else {
        return Err(Refusal::invalid("name and workspace must not be blank"));
    };
    let id = agent_id(&name);
    if id.len() > LONGEST_ID {
        let message = format!("the id of an agent is at most {LONGEST_ID} characters long");
        return Err(Refusal::invalid(message));
    }
    let own = knowledge.state_dir.join("agents").join(&id);
    change.agent_dir = Some(own.join("agent").to_string_lossy().into_owned());
    knowledge.look_again();
    // Whoever is refused leaves nothing behind; the edit itself asks again.
    with_agent(&knowledge.config.load().parsed, &id, &change).map_err(words)?;
    let not_kept = |path: &Path, source| NotMade::Directory { path: path.to_owned(), source };
    // Not waited for: there is nothing in it, and who misses it after a power cut makes it again.
    let _made = durable::make_directory(&own.join("sessions"), 0o700)
        .map_err(|source| not_kept(&own, source).refusal())?;
    let (workspace, made) = Workspace::make(&path).map_err(|refused| unusable(&refused))?;
    // Both wait for the disk more than once; beside one another they wait hardly longer.
    std::thread::scope(|scope| {
        let furnished = std::thread::Builder::new()
            .name("furnish".to_owned())
            .spawn_scoped(scope, || furnish(&workspace, &change))
            .map_err(|source| NotMade::Thread { source }.refusal())?;
        let ready = || {
            made.sync().map_err(|source| not_kept(&path, source))?;
            joined(furnished).map_err(|source| NotMade::Workspace { source })
        };
        let listed =
            |document: &Value| with_agent(document, &id, &change).map_err(NotMade::unlisted);
        match knowledge.edit_once_ready(Base::Any, listed, ready) {
            Ok(_) => Ok(()),
            Err(EditFailed::Refused { source }) => Err(source.refusal()),
            Err(failed) => Err(refusal(&failed)),
        }
    })?;
    let mut answer = json!({"ok": true, "agentId": id, "name": name, "workspace": path});
    if let Some(model) = &wanted.model {
        answer["model"] = json!(model);
    }
    Ok(answer)
}

fn updated(knowledge: &Knowledge, wanted: &Wanted) -> Result<Value, Refusal> {
    let (change, path) = wanted.change()?;
    let id = agent_id(wanted.agent_id.as_deref().unwrap_or_default());
    knowledge.look_again();
    let config = knowledge.config.load_full();
    with_changed_agent(&config.parsed, &id, &change).map_err(words)?;
    if path.is_some() || change.identity != AgentIdentity::default() {
        let path = path
            .unwrap_or_else(|| workspace::of(config.settled.config(), &id, &knowledge.state_dir));
        let (workspace, made) = Workspace::make(&path).map_err(|refused| unusable(&refused))?;
        furnish(&workspace, &change).map_err(|refused| unusable(&refused))?;
        made.sync().map_err(|error| not_made(&path, &error))?;
    }
    knowledge
        .edit(Base::Any, |document| with_changed_agent(document, &id, &change))
        .map_err(|failed| refusal(&failed))?;
    Ok(json!({"ok": true, "agentId": id}))
}

fn deleted(knowledge: &Knowledge, delete: &Delete) -> Result<Value, Refusal> {
    let id = agent_id(&delete.agent_id);
    let bindings = |document: &Value| document["bindings"].as_array().map_or(0, Vec::len);
    let mut removed = 0;
    knowledge
        .edit(Base::Any, |document| {
            let left = without_agent(document, &id)?;
            removed = bindings(document) - bindings(&left);
            Ok::<_, RosterRefused>(left)
        })
        .map_err(|failed| refusal(&failed))?;
    if delete.delete_files.unwrap_or(true) {
        // The workspace is its user's, and may be anybody's home: it stays.
        let own = knowledge.state_dir.join("agents").join(&id);
        let trash = knowledge.state_dir.join("trash");
        let kept = trash.join(format!("{id}-{}", now_ms()));
        let trash = durable::make_directory(&trash, 0o700).and_then(Made::sync);
        match trash.and_then(|()| std::fs::rename(&own, kept)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, agent = id, "its directory stays");
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(json!({"ok": true, "agentId": id, "removedBindings": removed}))
}

/// Why an agent was not made.
#[derive(Debug, thiserror::Error)]
enum NotMade {
    /// The list does not take it.
    #[error("could not list it")]
    Unlisted {
        /// Why.
        source: RosterRefused,
    },
    /// Its workspace cannot be used.
    #[error("could not furnish its workspace")]
    Workspace {
        /// Why.
        source: FileRefused,
    },
    /// There is no place for its state.
    #[error("could not make {}", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There are too many threads.
    #[error("could not start a thread")]
    Thread {
        /// What the kernel said.
        source: io::Error,
    },
}

impl NotMade {
    const fn unlisted(source: RosterRefused) -> Self {
        Self::Unlisted { source }
    }

    /// As clients are told.
    fn refusal(self) -> Refusal {
        match self {
            Self::Unlisted { source } => words(source),
            Self::Workspace { source } => unusable(&source),
            Self::Directory { path, source } => not_made(&path, &source),
            Self::Thread { .. } => Refusal::unavailable(handoff::chain(&self).to_string()),
        }
    }
}

/// What a thread answers; its panic is this one's.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Writes into a workspace who its agent is; other lines of the file stay.
fn furnish(workspace: &Workspace, change: &AgentChange) -> Result<(), FileRefused> {
    let before = workspace.read(IDENTITY)?;
    let before = before.map(|(_, text)| text);
    let AgentIdentity { name, emoji, avatar, .. } = &change.identity;
    let text = identity(before.as_deref(), &[("Name", name), ("Emoji", emoji), ("Avatar", avatar)]);
    if before.as_deref() != Some(&text) {
        workspace.write(IDENTITY, &text)?;
    }
    Ok(())
}

/// A text that says who an agent is, with these fields.
fn identity(before: Option<&str>, fields: &[(&str, &Option<String>)]) -> String {
    let mut text = before.unwrap_or("# IDENTITY.md - Agent Identity\n\n").to_owned();
    for (label, value) in fields {
        let Some(value) = value else { continue };
        let starts = [format!("- {label}:"), format!("- **{label}:**")];
        let is_it = |line: &&str| starts.iter().any(|start| line.starts_with(start));
        let line = format!("- {label}: {value}");
        match text.lines().find(is_it) {
            Some(old) => text = text.replacen(&old.to_owned(), &line, 1),
            None => {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push_str(&line);
                text.push('\n');
            }
        }
    }
    text
}

fn words(refused: RosterRefused) -> Refusal {
    Refusal::invalid(refused.to_string())
}

/// Why a workspace or a file of it was not used.
pub(super) fn unusable(refused: &FileRefused) -> Refusal {
    let message = handoff::chain(refused).to_string();
    match refused {
        FileRefused::Kernel { .. } => Refusal::unavailable(message),
        FileRefused::Unsupported { .. }
        | FileRefused::NotPlain { .. }
        | FileRefused::TooLarge { .. } => Refusal::invalid(message),
    }
}

fn not_made(path: &Path, error: &io::Error) -> Refusal {
    Refusal::unavailable(format!("could not make {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_written_as_recorded_and_keeps_what_others_wrote() {
        let some = |text: &str| Some(text.to_owned());
        let text = identity(
            None,
            &[("Name", &some("Probe Bot")), ("Emoji", &some("🤖")), ("Avatar", &None)],
        );
        assert_eq!(text, "# IDENTITY.md - Agent Identity\n\n- Name: Probe Bot\n- Emoji: 🤖\n");
        assert_eq!(text.len(), 64, "as many bytes as in the recording");
        let text =
            identity(Some("- **Name:** X\nmore"), &[("Name", &some("Y")), ("Emoji", &some("🧪"))]);
        assert_eq!(text, "- Name: Y\nmore\n- Emoji: 🧪\n");
    }
}
