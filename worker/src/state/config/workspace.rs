//! Where an agent works, when its entry says so and when it does not.

use std::io;
use std::path::{Path, PathBuf};

use super::agent_id;
use super::shape::Config;

/// The workspace of an agent.
pub(crate) fn of(config: &Config, id: &str, state_dir: &Path) -> PathBuf {
    let list = &config.agents.list;
    let entry = list.iter().find(|agent| agent_id(&agent.id) == id);
    let default = list.iter().find(|agent| agent.default).or_else(|| list.first());
    let is_default = default.map_or(id == "main", |agent| agent_id(&agent.id) == id);
    let own = entry.and_then(|entry| entry.workspace.as_deref());
    let shared = config.agents.defaults.workspace.as_deref();
    // One that is no path at all is used as it is written, and then refused by whoever opens it.
    let path = |text: &str| resolved(text).unwrap_or_else(|_| PathBuf::from(text));
    match (own, shared, is_default) {
        (Some(own), _, _) => path(own),
        (None, Some(shared), true) => path(shared),
        (None, Some(shared), false) => path(shared).join(id),
        (None, None, true) => state_dir.join("workspace"),
        (None, None, false) => state_dir.join(format!("workspace-{id}")),
    }
}

/// A path as somebody wrote it, whole: `~` is the home directory.
///
/// # Errors
/// Of an empty path.
pub(crate) fn resolved(text: &str) -> io::Result<PathBuf> {
    let text = text.trim();
    let home = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match (home, std::env::home_dir()) {
        (Some(rest), Some(home)) => Ok(home.join(rest.trim_start_matches('/'))),
        _ => std::path::absolute(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_works_where_it_says_or_below_where_all_do() {
        let at = |config: &serde_json::Value, id| {
            let config: Config = serde_json::from_value(config.clone()).unwrap();
            of(&config, id, Path::new("/state")).to_string_lossy().into_owned()
        };
        let none = json!({});
        assert_eq!(
            (at(&none, "main"), at(&none, "b")),
            ("/state/workspace".into(), "/state/workspace-b".into())
        );
        let shared = json!({"agents": {"defaults": {"workspace": "/ws"}, "list": [
            {"id": "main"}, {"id": "b", "workspace": "/b"}, {"id": "c"},
        ]}});
        assert_eq!(
            [at(&shared, "main"), at(&shared, "b"), at(&shared, "c")],
            ["/ws", "/b", "/ws/c"]
        );
    }

    #[test]
    fn a_path_is_whole() {
        assert!(resolved("").is_err());
        assert!(resolved("x/y").unwrap().is_absolute());
        assert_eq!(resolved(" /a//b ").unwrap(), Path::new("/a/b"));
        if let Some(home) = std::env::home_dir() {
            assert_eq!(resolved("~/x").unwrap(), home.join("x"));
        }
    }
}
