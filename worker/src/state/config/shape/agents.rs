//! Who answers: the agents and what holds for all of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Sealed;

/// The `agents` section.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Agents {
    /// What holds for each that says nothing else.
    pub(crate) defaults: AgentDefaults,
    /// The agents; without any there is `main`.
    pub(crate) list: Vec<Agent>,
}

/// What holds for all agents.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AgentDefaults {
    /// What they think with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<ModelChoice>,
    /// The models that may be chosen, by `provider/model`.
    pub(crate) models: BTreeMap<String, ModelSettings>,
    /// The directory they work in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<String>,
    /// How often they look after themselves.
    pub(crate) heartbeat: Heartbeat,
    /// How long a turn may take, in s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_seconds: Option<u32>,
    /// How many turns may run at once.
    pub(crate) max_concurrent: NonZeroU32,
    /// Programs that are agents, by their ids, each as its harness reads it.
    pub(crate) cli_backends: BTreeMap<String, Sealed>,
}

impl Default for AgentDefaults {
    fn default() -> Self {
        Self {
            model: None,
            models: BTreeMap::new(),
            workspace: None,
            heartbeat: Heartbeat::default(),
            timeout_seconds: None,
            max_concurrent: NonZeroU32::new(4).expect("it is not zero"),
            cli_backends: BTreeMap::new(),
        }
    }
}

/// An agent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Agent {
    /// What requests name it by.
    #[schemars(length(min = 1))]
    pub(crate) id: String,
    /// Whether it answers those that name nobody.
    #[serde(default)]
    pub(crate) default: bool,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The directory it works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<String>,
    /// The directory of its own state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent_dir: Option<String>,
    /// What it thinks with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<ModelChoice>,
    /// How it shows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<AgentIdentity>,
    /// How often it looks after itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat: Option<Heartbeat>,
}

/// How an agent shows itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AgentIdentity {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Its manner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) theme: Option<String>,
    /// Its emoji.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) emoji: Option<String>,
    /// Its picture: a path or an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) avatar: Option<String>,
}

/// How often an agent looks after itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Heartbeat {
    /// The pause, as `30m`; `0m` is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) every: Option<String>,
    /// What it thinks with then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// What it is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<String>,
    /// Who hears the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

/// The settings of a model that may be chosen.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ModelSettings {
    /// A short name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alias: Option<String>,
    /// What its provider is given with each request.
    pub(crate) params: Sealed,
}

/// A model, and those that are tried when it fails. One name alone means just that model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelChoice {
    /// The first one, as `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) primary: Option<String>,
    /// Those after it, in their order.
    pub(crate) fallbacks: Vec<String>,
}

impl<'de> Deserialize<'de> for ModelChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Several {
            primary: Option<String>,
            fallbacks: Vec<String>,
        }
        match Value::deserialize(deserializer)? {
            Value::String(primary) => Ok(Self { primary: Some(primary), fallbacks: Vec::new() }),
            several => serde_json::from_value(several)
                .map(|Several { primary, fallbacks }| Self { primary, fallbacks })
                .map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for ModelChoice {
    fn schema_name() -> Cow<'static, str> {
        "ModelChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A model as `provider/model`, or one with fallbacks.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "primary": {"type": ["string", "null"]},
                        "fallbacks": {"type": "array", "items": {"type": "string"}}
                    }
                }
            ]
        })
    }
}
