//! `/v1/models`: each agent as a model, the default one by the bare name too.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Gateway;
use super::answer::{self, Response};
use crate::registry::DEFAULT_ALIAS;

/// The model that stands for the default agent.
pub(super) const MODEL: &str = "openclaw";

/// All models.
pub(super) fn list(gateway: &Gateway) -> Response {
    let registry = gateway.registry();
    let mut data = vec![entry(MODEL), entry(&format!("{MODEL}/{DEFAULT_ALIAS}"))];
    let named = |agent: &&String| *agent != DEFAULT_ALIAS;
    data.extend(
        registry.agents().iter().filter(named).map(|agent| entry(&format!("{MODEL}/{agent}"))),
    );
    answer::json(StatusCode::OK, &json!({"object": "list", "data": data}))
}

/// One model; its id as it stands in the path.
pub(super) fn show(gateway: &Gateway, id: &str) -> Response {
    // The slash of `openclaw/main` may come as it is or as %2F.
    let id = id.replace("%2F", "/").replace("%2f", "/");
    match agent_of(&id) {
        Some(agent) if gateway.registry().harness(agent).is_some() => {
            answer::json(StatusCode::OK, &entry(&id))
        }
        Some(_) | None => unknown(&id),
    }
}

/// The agent a model stands for, whether it exists or not; `None` for a model that is none of ours.
pub(super) fn agent_of(model: &str) -> Option<&str> {
    match model.strip_prefix(MODEL)? {
        "" => Some(DEFAULT_ALIAS),
        rest => rest.strip_prefix('/').filter(|agent| !agent.is_empty()),
    }
}

/// There is no such model. Nothing is created for it.
pub(super) fn unknown(model: &str) -> Response {
    let shown: String = model.chars().take(80).collect();
    answer::json(
        StatusCode::NOT_FOUND,
        &json!({"error": {
            "message": format!("The model `{shown}` does not exist."),
            "type": "invalid_request_error",
            "code": "model_not_found",
        }}),
    )
}

fn entry(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "openclaw", "permission": []})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_names_its_agent() {
        assert_eq!(agent_of("openclaw"), Some("default"));
        assert_eq!(agent_of("openclaw/main"), Some("main"));
        assert_eq!(agent_of("openclaw/a/b"), Some("a/b"));
        for model in ["gpt-4", "openclaw/", "openclawx", "", "OpenClaw"] {
            assert_eq!(agent_of(model), None, "{model}");
        }
    }
}
