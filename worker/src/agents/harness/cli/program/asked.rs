//! A turn that a CLI agent is asked for.
//!
//! **Invariants**
//! - A program that begins a conversation is told what was said before; one that goes on with it knows.
//! - What was said before is cut at its beginning rather than refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::super::Past;
use super::super::super::past::Said;

/// So much of what was said before is told, in bytes: together with a message it still fits an argument (execve(2)).
const PAST_TOLD: usize = 64 * 1024;
/// Where an agent's skills lie in its workspace: each a directory with [`SKILL`] in it.
const SKILLS: &str = "skills";
const SKILL: &str = "SKILL.md";
/// The most skills that are given.
const MOST_SKILLS: usize = 128;

/// A turn that a CLI agent is asked for.
#[derive(Clone, Debug)]
pub(in super::super) struct Asked {
    /// Whose turn it is, as `agent:main:main`.
    pub(in super::super) session: String,
    /// Which life of the session: a reset begins another, of which the program is to know nothing.
    pub(in super::super) life: String,
    /// Which agent's.
    pub(in super::super) agent: String,
    /// What the user said.
    pub(in super::super) message: String,
    /// What was said before.
    pub(in super::super) said: Arc<[Said]>,
    /// What it is to think with, without the backend's name.
    pub(in super::super) model: Option<String>,
    /// What it is told before anything else.
    pub(in super::super) system_prompt: Option<Arc<str>>,
    /// Skills, by their names: where they lie.
    pub(in super::super) skills: Vec<(String, PathBuf)>,
    /// Where it works.
    pub(in super::super) workspace: PathBuf,
    /// How long the turn may take.
    pub(in super::super) timeout: Duration,
    /// What the program called this conversation when it last had a turn, as far as the caller knows.
    pub(in super::super) conversation: Option<String>,
}

impl Asked {
    /// A turn that comes after this, for a program of this backend.
    pub(in super::super) fn of(
        past: &Past,
        backend: &str,
        message: String,
        model: Option<String>,
        timeout: Duration,
    ) -> Self {
        Self {
            session: past.session.clone(),
            life: past.life.clone(),
            agent: past.agent.clone(),
            message,
            said: Arc::clone(&past.said),
            model,
            system_prompt: past.system.clone(),
            skills: Vec::new(),
            workspace: past.workspace.clone(),
            timeout,
            conversation: past.conversations.of(backend).map(str::to_owned),
        }
    }

    /// The same with the skills that are in its workspace now.
    pub(in super::super) async fn with_skills(mut self) -> Self {
        let place = self.workspace.join(SKILLS);
        // A panic there has said why, and costs the agent its skills.
        self.skills = tokio::task::spawn_blocking(move || skills(&place)).await.unwrap_or_default();
        self
    }

    /// What the program is told: before a conversation that is new to it, what was said.
    pub(in super::super) fn told(&self, is_new: bool) -> String {
        if !is_new || self.said.is_empty() {
            return self.message.clone();
        }
        let lines = self.said.iter().map(|said| format!("{}: {}\n\n", said.by.name(), said.text));
        let past: String = lines.collect();
        let from = past.ceil_char_boundary(past.len().saturating_sub(PAST_TOLD));
        format!("[What was said before]\n{}[What is said now]\n{}", &past[from..], self.message)
    }
}

/// The skills in this directory. It blocks.
fn skills(place: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut skills: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.to_owned();
            let is_name = !name.starts_with('.') && name.chars().all(is_plain);
            (is_name && path.join(SKILL).is_file()).then_some((name, path))
        })
        .collect();
    skills.sort_unstable();
    skills.truncate(MOST_SKILLS);
    skills
}
