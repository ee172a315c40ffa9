//! What this gateway reads of a configuration, and what holds where it says nothing.
//!
//! **Invariants**
//! - Whatever has a field here is read by somebody; whatever has none is kept in the file and never looked at.
//! - Each field has a rule in `state::reload`, which a test demands.
//! - A type refuses nothing that its schema allows: the schema is what configurations are checked by.

mod agents;
mod gateway;
mod models;
mod sealed;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use agents::{Agent, AgentIdentity, Agents, Heartbeat, ModelChoice};
pub(crate) use gateway::{AuthMode, Bind, Gateway};
pub(crate) use models::{Models, Provider};
pub(crate) use sealed::Sealed;

/// A whole configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    /// Who wrote the file last.
    pub(crate) meta: Meta,
    /// How clients reach the gateway.
    pub(crate) gateway: Gateway,
    /// Who answers them.
    pub(crate) agents: Agents,
    /// What the agents think with.
    pub(crate) models: Models,
    /// What happens by the clock.
    pub(crate) cron: Cron,
    /// What else runs in the gateway.
    pub(crate) plugins: Plugins,
    /// Whose conversation a message belongs to.
    pub(crate) session: Session,
    /// What is logged.
    pub(crate) logging: Logging,
    /// Variables for those that the environment does not set, here or in `vars`.
    pub(crate) env: Sealed,
    /// Tool servers, each as its client reads it.
    pub(crate) mcp: Sealed,
    /// What web hooks start, each as its handler reads it.
    pub(crate) hooks: Sealed,
}

/// The stamp that OpenClaw leaves at each of its writes; this gateway leaves none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    /// The version of OpenClaw that wrote last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_touched_version: Option<String>,
    /// When it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_touched_at: Option<String>,
}

/// What happens by the clock.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cron {
    /// Whether schedules run.
    pub(crate) enabled: bool,
    /// The file of the jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// How many jobs may run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_concurrent_runs: Option<NonZeroU32>,
}

impl Default for Cron {
    fn default() -> Self {
        Self { enabled: true, store: None, max_concurrent_runs: None }
    }
}

/// What else runs in the gateway.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Plugins {
    /// Whether plugins are loaded.
    pub(crate) enabled: bool,
    /// The only ones that are, unless it is empty.
    pub(crate) allow: Vec<String>,
    /// The ones that are not.
    pub(crate) deny: Vec<String>,
    /// Where they come from.
    pub(crate) load: PluginSources,
    /// Each plugin's own settings, by its id.
    pub(crate) entries: BTreeMap<String, Plugin>,
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            enabled: true,
            allow: Vec::new(),
            deny: Vec::new(),
            load: PluginSources::default(),
            entries: BTreeMap::new(),
        }
    }
}

/// Where plugins come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PluginSources {
    /// Files and directories.
    pub(crate) paths: Vec<String>,
}

/// One plugin's settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Plugin {
    /// Whether it is loaded; it decides itself when this says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    /// What it reads itself.
    pub(crate) config: Sealed,
}

/// Whose conversation a message belongs to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Session {
    /// Whether each sender has a conversation.
    pub(crate) scope: SessionScope,
    /// What the main conversation is called.
    pub(crate) main_key: String,
}

impl Default for Session {
    fn default() -> Self {
        Self { scope: SessionScope::default(), main_key: "main".to_owned() }
    }
}

/// Whether each sender has a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SessionScope {
    /// Each has one.
    #[default]
    PerSender,
    /// All share one.
    Global,
}

/// What is logged.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Logging {
    /// The least important level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<String>,
    /// The file that OpenClaw's own tools write and read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
}
