//! What the agents think with: providers and their models.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sealed;
use crate::state::config::Secret;

/// The `models` section.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Models {
    /// Whether the providers below are all there are.
    pub(crate) mode: Catalogue,
    /// Providers, by their id.
    pub(crate) providers: BTreeMap<String, Provider>,
}

impl Models {
    /// Writes out what a model has from its provider, as OpenClaw does when it writes the file.
    pub(in crate::state::config) fn inherit(&mut self) {
        for provider in self.providers.values_mut() {
            for model in &mut provider.models {
                model.api = model.api.take().or_else(|| provider.api.clone());
            }
        }
    }
}

/// Whether the configured providers are all there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Catalogue {
    /// They come beside those that are built in.
    #[default]
    Merge,
    /// They are all.
    Replace,
}

/// Somebody who serves models.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Provider {
    /// Where, up to and including `/v1`; without it, where a provider of this id is known to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_url: Option<String>,
    /// The key it wants.
    #[serde(default, skip_serializing)]
    pub(crate) api_key: Option<Secret>,
    /// What it speaks, as `openai-completions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<String>,
    /// Headers that go with each request.
    #[serde(default, skip_serializing)]
    pub(crate) headers: BTreeMap<String, Secret>,
    /// How long it may take, in s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_seconds: Option<u32>,
    /// What it serves.
    #[serde(default)]
    pub(crate) models: Vec<Model>,
}

/// One model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Model {
    /// What its provider calls it.
    #[schemars(length(min = 1))]
    pub(crate) id: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// What it speaks, when it is not what its provider does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<String>,
    /// Where, when it is not where its provider is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_url: Option<String>,
    /// Whether it thinks aloud.
    #[serde(default)]
    pub(crate) reasoning: bool,
    /// What it understands, as `text` and `image`.
    #[serde(default = "text")]
    pub(crate) input: Vec<String>,
    /// How many tokens it can look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) context_window: Option<u64>,
    /// How many tokens it can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u64>,
    /// What its provider is given with each request.
    #[serde(default)]
    pub(crate) params: Sealed,
}

/// What every model understands.
fn text() -> Vec<String> {
    vec!["text".to_owned()]
}
