//! The entries of `agents.list`: adding, changing and removing one. Pure, on parsed values.
//!
//! **Invariants**
//! - Whatever else an entry holds stays.
//! - `main` is always there, written or not: it is neither added nor removed.

use serde_json::{Map, Value, json};

use super::shape::AgentIdentity;

/// The agent that is there without an entry.
const MAIN: &str = "main";

/// Why an entry was not touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RosterRefused {
    /// `main` cannot be made.
    #[error("\"{MAIN}\" is reserved")]
    Reserved,
    /// `main` cannot be taken away.
    #[error("\"{MAIN}\" cannot be deleted")]
    NotRemovable,
    /// There is one of that id.
    #[error("agent \"{id}\" already exists")]
    Exists {
        /// The id.
        id: String,
    },
    /// There is none of that id.
    #[error("agent \"{id}\" not found")]
    Missing {
        /// The id.
        id: String,
    },
    /// The file's agents are no list of entries.
    #[error("agents.list is not a list")]
    NotAList,
}

/// What is known about an agent, as far as it changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentChange {
    /// What people call it.
    pub(crate) name: Option<String>,
    /// The directory it works in.
    pub(crate) workspace: Option<String>,
    /// The directory of its own state.
    pub(crate) agent_dir: Option<String>,
    /// What it thinks with, as `provider/model`.
    pub(crate) model: Option<String>,
    /// How it shows itself; what it says nothing about stays.
    pub(crate) identity: AgentIdentity,
}

/// The id that a name becomes.
pub(crate) fn agent_id(name: &str) -> String {
    let mut id = String::new();
    for c in name.trim().to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' | '_' | '-' => id.push(c),
            _ if id.ends_with('-') => {}
            _ => id.push('-'),
        }
    }
    let id = id.trim_matches('-');
    if id.is_empty() { MAIN.to_owned() } else { id.to_owned() }
}

/// The document with another agent at the end of the list.
///
/// # Errors
/// [`RosterRefused`].
pub(crate) fn with_agent(
    document: &Value,
    id: &str,
    change: &AgentChange,
) -> Result<Value, RosterRefused> {
    if id == MAIN {
        return Err(RosterRefused::Reserved);
    }
    let mut document = document.clone();
    let list = list(&mut document)?;
    if position(list, id).is_some() {
        return Err(RosterRefused::Exists { id: id.to_owned() });
    }
    if list.is_empty() {
        // The first entry answers those that name nobody; that was `main` until now.
        list.push(json!({"id": MAIN}));
    }
    let mut entry = json!({"id": id});
    apply(&mut entry, change);
    list.push(entry);
    Ok(document)
}

/// The document with an agent changed.
///
/// # Errors
/// [`RosterRefused`].
pub(crate) fn with_changed_agent(
    document: &Value,
    id: &str,
    change: &AgentChange,
) -> Result<Value, RosterRefused> {
    let mut document = document.clone();
    let list = list(&mut document)?;
    match position(list, id) {
        Some(at) => apply(&mut list[at], change),
        None if id == MAIN => {
            let mut entry = json!({"id": MAIN});
            apply(&mut entry, change);
            list.push(entry);
        }
        None => return Err(RosterRefused::Missing { id: id.to_owned() }),
    }
    Ok(document)
}

/// The document without an agent, and without what leads to it.
///
/// # Errors
/// [`RosterRefused`].
pub(crate) fn without_agent(document: &Value, id: &str) -> Result<Value, RosterRefused> {
    if id == MAIN {
        return Err(RosterRefused::NotRemovable);
    }
    let mut document = document.clone();
    let list = list(&mut document)?;
    let at = position(list, id).ok_or_else(|| RosterRefused::Missing { id: id.to_owned() })?;
    list.remove(at);
    let is_it =
        |value: Option<&Value>| value.and_then(Value::as_str).map(agent_id).as_deref() == Some(id);
    if let Some(Value::Array(bindings)) = document.get_mut("bindings") {
        bindings.retain(|binding| !is_it(binding.get("agentId")));
    }
    if let Some(Value::Array(allowed)) = document.pointer_mut("/tools/agentToAgent/allow") {
        allowed.retain(|allowed| !is_it(Some(allowed)));
    }
    Ok(document)
}

fn list(document: &mut Value) -> Result<&mut Vec<Value>, RosterRefused> {
    let members = document.as_object_mut().ok_or(RosterRefused::NotAList)?;
    let agents = members.entry("agents").or_insert_with(|| Value::Object(Map::new()));
    let agents = agents.as_object_mut().ok_or(RosterRefused::NotAList)?;
    let list = agents.entry("list").or_insert_with(|| Value::Array(Vec::new()));
    list.as_array_mut().ok_or(RosterRefused::NotAList)
}

fn position(list: &[Value], id: &str) -> Option<usize> {
    list.iter().position(|entry| entry["id"].as_str().map(agent_id).as_deref() == Some(id))
}

fn apply(entry: &mut Value, change: &AgentChange) {
    let AgentChange { name, workspace, agent_dir, model, identity } = change;
    for (key, value) in [("name", name), ("workspace", workspace), ("agentDir", agent_dir)] {
        if let Some(value) = value {
            entry[key] = value.as_str().into();
        }
    }
    if let Some(model) = model {
        // Its fallbacks stay.
        match entry.get_mut("model") {
            Some(Value::Object(choice)) => {
                choice.insert("primary".to_owned(), model.as_str().into());
            }
            _ => entry["model"] = model.as_str().into(),
        }
    }
    let AgentIdentity { name, theme, emoji, avatar } = identity;
    for (key, value) in [("name", name), ("theme", theme), ("emoji", emoji), ("avatar", avatar)] {
        if let Some(value) = value {
            if !entry["identity"].is_object() {
                entry["identity"] = json!({});
            }
            entry["identity"][key] = value.as_str().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> AgentChange {
        AgentChange {
            name: Some("Probe Bot".to_owned()),
            workspace: Some("/home/user/ws-probe".to_owned()),
            identity: AgentIdentity { emoji: Some("🤖".to_owned()), ..AgentIdentity::default() },
            ..AgentChange::default()
        }
    }

    #[test]
    fn the_first_agent_that_is_added_is_not_the_default() {
        let document = with_agent(&json!({"ui": 1}), "probe-bot", &probe()).unwrap();
        let expected = json!({"ui": 1, "agents": {"list": [{"id": "main"}, {
            "id": "probe-bot", "name": "Probe Bot", "workspace": "/home/user/ws-probe",
            "identity": {"emoji": "🤖"},
        }]}});
        assert_eq!(document, expected);
        let refused = with_agent(&document, "probe-bot", &probe()).unwrap_err();
        assert_eq!(refused.to_string(), "agent \"probe-bot\" already exists");
        let refused = with_agent(&document, "main", &probe()).unwrap_err();
        assert_eq!(refused.to_string(), "\"main\" is reserved");
    }

    #[test]
    fn a_change_touches_what_it_names() {
        let document = json!({"agents": {"list": [{
            "id": "Probe Bot", "tools": {"allow": ["x"]}, "identity": {"name": "P"},
            "model": {"primary": "p/a", "fallbacks": ["p/b"]},
        }]}});
        let change = AgentChange { model: Some("p/c".to_owned()), ..probe() };
        let changed = with_changed_agent(&document, "probe-bot", &change).unwrap();
        let entry = &changed["agents"]["list"][0];
        assert_eq!(entry["id"], "Probe Bot");
        assert_eq!(entry["tools"], json!({"allow": ["x"]}));
        assert_eq!(entry["identity"], json!({"name": "P", "emoji": "🤖"}));
        assert_eq!(entry["model"], json!({"primary": "p/c", "fallbacks": ["p/b"]}));
        assert!(with_changed_agent(&document, "other", &change).is_err());
        for document in [json!({}), document] {
            assert!(with_changed_agent(&document, "main", &change).is_ok(), "it needs no entry");
        }
    }

    #[test]
    fn an_agent_leaves_with_what_leads_to_it() {
        let document = json!({
            "agents": {"list": [{"id": "main"}, {"id": "probe-bot"}]},
            "bindings": [{"agentId": "probe-bot"}, {"agentId": "main"}],
            "tools": {"agentToAgent": {"allow": ["probe-bot", "main"]}},
        });
        let left = without_agent(&document, "probe-bot").unwrap();
        let expected = json!({
            "agents": {"list": [{"id": "main"}]},
            "bindings": [{"agentId": "main"}],
            "tools": {"agentToAgent": {"allow": ["main"]}},
        });
        assert_eq!(left, expected);
        assert_eq!(without_agent(&left, "main"), Err(RosterRefused::NotRemovable));
        assert!(without_agent(&left, "probe-bot").is_err());
        assert_eq!(without_agent(&json!([]), "x"), Err(RosterRefused::NotAList));
    }

    #[test]
    fn a_name_becomes_an_id() {
        for (name, id) in
            [("Probe Bot", "probe-bot"), ("  Ünï  x! ", "n-x"), ("a--b_c", "a--b_c"), ("!", "main")]
        {
            assert_eq!(agent_id(name), id);
        }
    }
}
