//! What came before a turn: what was said in its session, and what its agent's workspace says about the agent.
//!
//! | part | from | at most |
//! | --- | --- | --- |
//! | what the agent is told about itself | `AGENTS.md`, `SOUL.md`, … of its workspace, each under its name | 16 KiB of a file, 64 KiB |
//! | what else it is told | whoever asks | what a request holds |
//! | what was said | whoever asks, if they say so | what a request holds |
//! | | otherwise the session's transcript, user and assistant, the latest | 200 messages, 256 KiB |
//!
//! **Invariants**
//! - What is too long is cut, never refused: at the end of a file, at the beginning of a transcript.
//! - The turn's own message is not in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tracing::debug;

use super::{Conversations, Harness};
use crate::state::store::messages::{HistoryWindow, Message};
use crate::state::store::sessions::Session;
use crate::state::store::{Store, StoreFailed};
use crate::state::workspace::Workspace;

/// The files that say who an agent is, in the order they are told.
const FILES: [&str; 6] =
    ["AGENTS.md", "SOUL.md", "TOOLS.md", "IDENTITY.md", "USER.md", "MEMORY.md"];
/// So much of one file is told, in bytes.
const OF_FILE: usize = 16 * 1024;
/// So much of all files, in bytes.
const OF_FILES: usize = 64 * 1024;
/// So much of a transcript.
const WINDOW: HistoryWindow = HistoryWindow { limit: 200, max_bytes: 256 * 1024, before_seq: None };

/// What came before a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Whose turn it is, as `agent:main:main`.
    pub(super) session: String,
    /// Which life of the session: a reset begins another.
    pub(super) life: String,
    /// Which agent's.
    pub(super) agent: String,
    /// Where that works.
    pub(super) workspace: PathBuf,
    /// What programs that keep conversations themselves call this one.
    pub(super) conversations: Conversations,
    /// What the agent is told about itself.
    pub(super) system: Option<Arc<str>>,
    /// What was said, in order.
    pub(super) said: Arc<[Said]>,
}

/// What whoever asks says of what came before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// What the agent is told besides what it knows of itself.
    pub(crate) system: Vec<String>,
    /// What was said, in order; nothing when it is the session that knows.
    pub(crate) said: Vec<Said>,
}

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Who.
    pub(crate) by: Role,
    /// What.
    pub(crate) text: String,
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Whoever asks.
    User,
    /// Whoever answers.
    Assistant,
}

impl Role {
    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::User, Self::Assistant].into_iter().find(|role| role.name() == name)
    }

    /// As providers, their clients and transcripts call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// Why the past is not known.
#[derive(Debug, thiserror::Error)]
#[error("what was said before cannot be read")]
pub(crate) struct PastUnreadable {
    source: StoreFailed,
}

impl Past {
    /// Before this run of the session that it found, as far as the harness wants to know it. What whoever asks says was said goes before
    /// what the session knows: a client that keeps a conversation sends all of it each time.
    ///
    /// # Errors
    /// [`PastUnreadable`]: a model that has forgotten everything would answer something else.
    pub(crate) async fn before(
        run: &str,
        harness: &Harness,
        found: &Session,
        earlier: Earlier,
        store: &Store,
    ) -> Result<Self, PastUnreadable> {
        let Some(workspace) = harness.workspace().map(Path::to_owned) else {
            return Ok(Self::default());
        };
        // Files and history are read at the same time.
        let place = workspace.clone();
        let told = tokio::task::spawn_blocking(move || told(&place));
        let said = if earlier.said.is_empty() {
            let messages = store.history(&found.key, WINDOW).await;
            let messages = messages.map_err(|source| PastUnreadable { source })?;
            let others = messages.iter().filter(|message| message.run_id.as_deref() != Some(run));
            others.filter_map(Said::of).collect()
        } else {
            earlier.said
        };
        let told = told.await;
        // A panic there has said why, and costs the agent its files.
        let system: Vec<String> =
            told.unwrap_or_default().into_iter().chain(earlier.system).collect();
        let system = (!system.is_empty()).then(|| system.join("\n\n").into());
        Ok(Self {
            session: found.key.clone(),
            life: found.session_id.clone(),
            agent: found.agent_id.clone(),
            workspace,
            conversations: Conversations::read(found),
            system,
            said: said.into(),
        })
    }
}

impl Past {
    /// What programs that keep conversations themselves call this one.
    pub(in crate::agents) const fn conversations(&self) -> &Conversations {
        &self.conversations
    }

    /// Which life of the session it is of.
    pub(in crate::agents) fn life(&self) -> &str {
        &self.life
    }
}

impl Said {
    /// A message's text; `None` of what is neither the user's nor the assistant's, or has no text.
    fn of(message: &Message) -> Option<Self> {
        let by = Role::named(&message.role)?;
        let content: Value = serde_json::from_str(&message.content).ok()?;
        let texts: Vec<&str> =
            content.as_array()?.iter().filter_map(|part| part["text"].as_str()).collect();
        let text = texts.join("\n");
        (!text.is_empty()).then_some(Self { by, text })
    }
}

/// What an agent's files say; `None` when there is nothing in them. It blocks.
fn told(workspace: &Path) -> Option<String> {
    let workspace = match Workspace::open(workspace) {
        Ok(workspace) => workspace,
        Err(refused) => {
            debug!(error = &refused as &dyn std::error::Error, "an agent's workspace is not read");
            return None;
        }
    };
    let mut told = String::new();
    for name in FILES {
        let text = match workspace.read(name) {
            Ok(Some((_, text))) => text,
            Ok(None) => continue,
            Err(refused) => {
                let error = &refused as &dyn std::error::Error;
                debug!(name, error, "a file of an agent's workspace is not read");
                continue;
            }
        };
        let room = OF_FILE.min(OF_FILES.saturating_sub(told.len()));
        let text = text.trim();
        let text = &text[..text.floor_char_boundary(room)];
        if !text.is_empty() {
            let space = if told.is_empty() { "" } else { "\n\n" };
            told.push_str(&format!("{space}# {name}\n\n{text}"));
        }
    }
    (!told.is_empty()).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        let (role, content) = (role.to_owned(), content.to_owned());
        Message { seq: 1, role, content, run_id: None, at_ms: 0 }
    }

    #[test]
    fn what_was_said_is_what_user_and_assistant_said_in_words() {
        let said = |role, content| Said::of(&message(role, content)).map(|said| said.text);
        let words = r#"[{"type":"text","text":"a"},{"type":"image"},{"type":"text","text":"b"}]"#;
        assert_eq!(said("user", words).as_deref(), Some("a\nb"));
        assert_eq!(said("assistant", words).as_deref(), Some("a\nb"));
        for (role, content) in
            [("tool", words), ("user", "[]"), ("user", "{"), ("user", r#"[{"text":""}]"#)]
        {
            assert_eq!(said(role, content), None, "{role} {content}");
        }
    }

    #[test]
    fn files_are_told_under_their_names_and_cut_where_they_are_too_long() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(told(&dir.path().join("none")), None);
        assert_eq!(told(dir.path()), None);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("SOUL.md", " be kind \n");
        write("AGENTS.md", "work");
        write("HEARTBEAT.md", "not now");
        write("USER.md", "\n");
        let all = told(dir.path()).unwrap();
        assert_eq!(all, "# AGENTS.md\n\nwork\n\n# SOUL.md\n\nbe kind");
        for name in FILES {
            write(name, &"ä".repeat(OF_FILE));
        }
        let all = told(dir.path()).unwrap();
        assert!(all.len() < OF_FILES + FILES.len() * 20, "{}", all.len());
        assert!(all.len() > OF_FILES / 2);
    }
}
