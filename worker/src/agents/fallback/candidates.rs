//! Which models an agent may be answered by, as the configuration says. Pure.
//!
//! | the agent's `model` | first | then |
//! | --- | --- | --- |
//! | says nothing | `agents.defaults.model.primary` | `agents.defaults.model.fallbacks` |
//! | a name, or `{primary}` | that one | nothing: whoever chose one model meant it |
//! | `{primary, fallbacks}` | that one | those |
//! | `{fallbacks}` | `agents.defaults.model.primary` | those |
//!
//! **Invariants**
//! - A plugin's harness is one by its whole name, `plugin-harness/NAME`, and has no model.
//! - `holdfast` is whose models those harnesses are that have none: `holdfast/echo` is `echo`.
//! - None is asked twice. `agents.defaults.models` gives names to models; it takes none of these away.
//! - Without any model there are no candidates, and the agent is `echo`'s.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agents::DEFAULT_AGENT;
use crate::state::config::{Config, ModelChoice, agent_id};

/// What the id of a plugin's harness begins with; its name follows.
const OF_PLUGINS: &str = "plugin-harness/";
/// Whose models clients are told those are that come without a provider.
const OURS: &str = "holdfast";
/// The harness of agents that have no model.
pub(super) const ECHO: &str = "echo";

/// A model and what runs it: `harness-or-provider/model`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ModelRef {
    /// The harness or provider, by its id.
    pub(crate) harness: String,
    /// What that calls the model; it may have slashes, and be nothing.
    pub(crate) model: String,
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.model.as_str() {
            "" => f.write_str(&self.harness),
            model => write!(f, "{}/{model}", self.harness),
        }
    }
}

impl ModelRef {
    /// The harness of agents that have no model.
    pub(super) fn echo() -> Self {
        Self { harness: ECHO.to_owned(), model: String::new() }
    }

    /// The model that is named: by its alias, whole, or by itself if one provider alone serves it.
    pub(super) fn named(name: &str, config: &Config) -> Self {
        let name = name.trim();
        let of = |whole: &str| {
            let whole =
                whole.strip_prefix(OURS).and_then(|own| own.strip_prefix('/')).unwrap_or(whole);
            let parts = whole.split_once('/').filter(|_| !whole.starts_with(OF_PLUGINS));
            let (harness, model) = parts.unwrap_or((whole, ""));
            Self { harness: harness.to_owned(), model: model.to_owned() }
        };
        let mut aliases = config.agents.defaults.models.iter();
        if let Some((whole, _)) = aliases.find(|(_, known)| known.alias.as_deref() == Some(name)) {
            return of(whole);
        }
        if !name.contains('/') {
            let serves = config
                .models
                .providers
                .iter()
                .filter(|(_, provider)| provider.models.iter().any(|model| model.id == name));
            let serves: Vec<_> = serves.map(|(id, _)| id).collect();
            if let [only] = serves.as_slice() {
                return Self { harness: (*only).clone(), model: name.to_owned() };
            }
        }
        of(name)
    }

    /// Whose model it is, and which, as clients are told.
    pub(crate) fn shown(&self) -> (&str, &str) {
        match self.model.as_str() {
            "" => (OURS, &self.harness),
            model => (&self.harness, model),
        }
    }

    /// The one of which clients are told this.
    pub(super) fn of_shown(provider: &str, model: &str) -> Self {
        match provider {
            OURS => Self { harness: model.to_owned(), model: String::new() },
            provider => Self { harness: provider.to_owned(), model: model.to_owned() },
        }
    }

    /// What a plugin calls its harness; `None` when it is no plugin's.
    pub(super) fn harness_of_plugin(&self) -> Option<&str> {
        self.harness.strip_prefix(OF_PLUGINS)
    }
}

/// The model that an agent is answered by unless it fails.
pub(crate) fn first(config: &Config, agent: &str) -> ModelRef {
    candidates(config, agent).into_iter().next().unwrap_or_else(ModelRef::echo)
}

/// The models of an agent, in the order in which they are asked.
pub(super) fn candidates(config: &Config, agent: &str) -> Vec<ModelRef> {
    let entry = config.agents.list.iter().find(|entry| agent_id(&entry.id) == agent);
    of_model(config, entry.and_then(|entry| entry.model.as_ref()))
}

/// Those of an agent that says this about its model.
fn of_model(config: &Config, own: Option<&ModelChoice>) -> Vec<ModelRef> {
    let shared = config.agents.defaults.model.as_ref();
    let own_primary = own.and_then(|own| own.primary.as_ref());
    let primary = own_primary.or_else(|| shared.and_then(|shared| shared.primary.as_ref()));
    let fallbacks = match (own, own_primary, shared) {
        (Some(own), Some(_), _) => own.fallbacks.as_slice(),
        (Some(own), None, _) if !own.fallbacks.is_empty() => own.fallbacks.as_slice(),
        (_, _, Some(shared)) => shared.fallbacks.as_slice(),
        (_, _, None) => &[],
    };
    let names = primary.into_iter().chain(fallbacks);
    let mut candidates: Vec<ModelRef> = Vec::new();
    for name in names.filter(|name| !name.trim().is_empty()) {
        let candidate = ModelRef::named(name, config);
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    candidates
}

/// The models that a configuration names: for any agent, or to give them names. None is named twice.
pub(crate) fn named(config: &Config) -> Vec<ModelRef> {
    let mut named: Vec<ModelRef> = Vec::new();
    let listed = config.agents.list.iter();
    let of_agents = listed.flat_map(|entry| of_model(config, entry.model.as_ref()));
    let of_others = candidates(config, DEFAULT_AGENT);
    let aliased = config.agents.defaults.models.keys().map(|name| ModelRef::named(name, config));
    for model in of_others.into_iter().chain(of_agents).chain(aliased) {
        if !named.contains(&model) {
            named.push(model);
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(config: Value, agent: &str) -> Vec<String> {
        let config: Config = serde_json::from_value(config).unwrap();
        candidates(&config, agent).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_agents_own_choice_goes_before_that_for_all() {
        let shared = json!({"primary": "p/a", "fallbacks": ["p/b", "q/c/d"]});
        let with = |own: Value| {
            let list = json!([{"id": "Ops Team", "model": own}, {"id": "plain"}]);
            json!({"agents": {"defaults": {"model": shared}, "list": list}})
        };
        for (own, expected) in [
            (json!("x/y"), &["x/y"][..]),
            (json!({"primary": "x/y"}), &["x/y"]),
            (json!({"primary": "x/y", "fallbacks": []}), &["x/y"]),
            (json!({"primary": "x/y", "fallbacks": ["p/a", "x/y"]}), &["x/y", "p/a"]),
            (json!({"fallbacks": ["z/z"]}), &["p/a", "z/z"]),
            (json!({}), &["p/a", "p/b", "q/c/d"]),
        ] {
            assert_eq!(of(with(own.clone()), "ops-team"), expected, "{own}");
            assert_eq!(of(with(own), "plain"), ["p/a", "p/b", "q/c/d"]);
        }
        assert_eq!(of(json!({"agents": {"defaults": {"model": "p/a"}}}), "main"), ["p/a"]);
        assert_eq!(of(json!({}), "main"), Vec::<String>::new());
        let nothing = json!({"agents": {"defaults": {"model": {"primary": " "}}}});
        assert_eq!(of(nothing, "main"), Vec::<String>::new());
    }

    #[test]
    fn a_short_name_is_an_alias_or_the_one_model_of_that_name() {
        let with = |name: &str| {
            json!({
                "agents": {"defaults": {
                    "model": name,
                    "models": {"p/long-name": {"alias": "fast"}, "p/other": {}},
                }},
                "models": {"providers": {
                    "p": {"models": [{"id": "both"}, {"id": "only"}]},
                    "q": {"models": [{"id": "both"}]},
                }},
            })
        };
        for (name, expected) in [
            ("fast", "p/long-name"),
            ("only", "p/only"),
            ("both", "both"),
            ("echo", "echo"),
            ("p/x/y", "p/x/y"),
        ] {
            assert_eq!(of(with(name), "main"), [expected], "{name}");
        }
    }

    #[test]
    fn a_reference_is_told_as_it_is_written() {
        let config = Config::default();
        for name in ["p/a", "q/c/d", "echo", "plugin-harness/parrot"] {
            assert_eq!(ModelRef::named(name, &config).to_string(), name);
        }
    }

    #[test]
    fn a_plugins_harness_is_known_by_its_whole_name() {
        for (name, harness, of_plugin) in [
            ("plugin-harness/parrot", "plugin-harness/parrot", Some("parrot")),
            ("plugin-harness/a/b", "plugin-harness/a/b", Some("a/b")),
            ("plugin-harness", "plugin-harness", None),
            ("p/m", "p", None),
        ] {
            let named = ModelRef::named(name, &Config::default());
            assert_eq!((&*named.harness, named.harness_of_plugin()), (harness, of_plugin));
        }
    }
}
