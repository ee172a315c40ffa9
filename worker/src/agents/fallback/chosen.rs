//! The model that somebody has chosen for a session: it alone is asked. Pure.
//!
//! | what is asked for | comes to |
//! | --- | --- |
//! | `null`, or the agent's own model | no choice: what the configuration says, its fallbacks with it |
//! | an alias, a whole name, the one model of that name | that model, without fallbacks: whoever chose it meant it |
//! | one that `agents.defaults.models` does not list, if it lists any | a refusal |
//!
//! **Invariants**
//! - A session keeps whose model it is and which, as clients are told: a choice means the same under every
//!   configuration.

use super::candidates::{ModelRef, candidates, first};
use crate::state::config::Config;
use crate::state::store::sessions::Session;

/// Why a model cannot be chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotChosen {
    /// Nothing was named.
    #[error("invalid model: empty")]
    Empty,
    /// The configuration lists models, and not this one.
    #[error("model not allowed: {0}")]
    NotAllowed(String),
}

/// What a name comes to for an agent's session; `None` is the agent's own model.
///
/// # Errors
/// [`NotChosen`], in the words of the gateway that this one is compatible with.
pub(crate) fn choose(
    name: &str,
    agent: &str,
    config: &Config,
) -> Result<Option<ModelRef>, NotChosen> {
    if name.trim().is_empty() {
        return Err(NotChosen::Empty);
    }
    let model = ModelRef::named(name, config);
    if model == first(config, agent) {
        return Ok(None);
    }
    let listed = &config.agents.defaults.models;
    let is_listed = || listed.keys().any(|key| ModelRef::named(key, config) == model);
    if listed.is_empty() || is_listed() || candidates(config, agent).contains(&model) {
        return Ok(Some(model));
    }
    let (provider, model) = model.shown();
    Err(NotChosen::NotAllowed(format!("{provider}/{model}")))
}

/// What was chosen for a session.
pub(crate) fn chosen(session: &Session) -> Option<ModelRef> {
    let model = session.model.as_deref()?;
    let provider = session.model_provider.as_deref();
    Some(match provider {
        Some(provider) => ModelRef::of_shown(provider, model),
        // Kept by a worker that did not look at what was asked for.
        None => ModelRef::named(model, &Config::default()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(listed: Value) -> Config {
        let agents = json!({
            "defaults": {"model": {"primary": "p/a", "fallbacks": ["p/b"]}, "models": listed},
            "list": [{"id": "main"}, {"id": "silent", "model": "echo"}],
        });
        let providers = json!({"q": {"models": [{"id": "only"}]}});
        let whole = json!({"agents": agents, "models": {"providers": providers}});
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_choice_is_a_model_and_the_agents_own_is_none() {
        let config = config(json!({}));
        let choose = |name, agent| {
            choose(name, agent, &config).map(|model| model.map(|model| model.to_string()))
        };
        for (name, agent, comes_to) in [
            ("x/y/z", "main", Some("x/y/z")),
            (" p/b ", "main", Some("p/b")),
            ("only", "main", Some("q/only")),
            ("p/a", "main", None),
            ("p/a", "silent", Some("p/a")),
            ("echo", "main", Some("echo")),
            ("holdfast/echo", "main", Some("echo")),
            ("holdfast/echo", "silent", None),
            ("holdfast/plugin-harness/parrot", "main", Some("plugin-harness/parrot")),
        ] {
            assert_eq!(choose(name, agent), Ok(comes_to.map(str::to_owned)), "{name} {agent}");
        }
        assert_eq!(choose(" ", "main"), Err(NotChosen::Empty));
    }

    #[test]
    fn where_models_are_listed_others_are_refused() {
        let config = config(json!({"x/y": {"alias": "fast"}}));
        let refusal = |name| choose(name, "main", &config).err().map(|refused| refused.to_string());
        for name in ["x/y", "fast", "p/b", "p/a"] {
            assert_eq!(refusal(name), None, "{name}");
        }
        assert_eq!(refusal("q/only").as_deref(), Some("model not allowed: q/only"));
        assert_eq!(refusal("echo").as_deref(), Some("model not allowed: holdfast/echo"));
    }

    #[test]
    fn what_is_shown_is_understood_again() {
        let config = Config::default();
        for name in ["p/a", "p/x/y", "echo", "plugin-harness/parrot"] {
            let model = ModelRef::named(name, &config);
            let (provider, shown) = model.shown();
            assert_eq!(ModelRef::of_shown(provider, shown), model);
            assert_eq!(ModelRef::named(&format!("{provider}/{shown}"), &config), model);
        }
    }
}
