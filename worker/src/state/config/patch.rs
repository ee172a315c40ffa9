//! What clients may do to a configuration: patch it, or put another in its place. Pure, on parsed values.
//!
//! **Invariants**
//! - What was hidden from a client comes back, or the edit is refused: no placeholder is ever written.
//! - A list whose elements have ids is patched element by element, as OpenClaw does.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::file::LARGEST;
use super::key_path::KeyPath;
use super::secret::restore;
use super::text::{NotJson5, parse};

/// Why an edit was not made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditRefused {
    /// The text is no JSON5.
    #[error("raw is not JSON5")]
    NotJson5 {
        /// What is wrong with it.
        source: NotJson5,
    },
    /// Nobody writes that much.
    #[error("raw is longer than {LARGEST} bytes")]
    TooLong,
    /// It is another value.
    #[error("raw must be an object")]
    NotAnObject,
    /// It hides what the file does not have.
    #[error(
        "{path} is a placeholder for a secret that the file does not have; send the secret itself"
    )]
    Hidden {
        /// The key.
        path: KeyPath,
    },
}

/// The document with `raw` merged into it: `null` removes, objects merge, all else replaces.
///
/// # Errors
/// [`EditRefused`].
pub(crate) fn patched(document: &Value, raw: &str) -> Result<Value, EditRefused> {
    let patch = object(raw)?;
    let mut merged = document.clone();
    merge_members(&mut merged, patch);
    with_secrets(merged, document)
}

/// What `raw` says, in the place of the document.
///
/// # Errors
/// [`EditRefused`].
pub(crate) fn replaced(document: &Value, raw: &str) -> Result<Value, EditRefused> {
    with_secrets(Value::Object(object(raw)?), document)
}

fn object(raw: &str) -> Result<Map<String, Value>, EditRefused> {
    if raw.len() as u64 > LARGEST {
        return Err(EditRefused::TooLong);
    }
    match parse(raw).map_err(|source| EditRefused::NotJson5 { source })? {
        Value::Object(members) => Ok(members),
        _ => Err(EditRefused::NotAnObject),
    }
}

fn with_secrets(mut edited: Value, document: &Value) -> Result<Value, EditRefused> {
    restore(&mut edited, Some(document)).map_err(|path| EditRefused::Hidden { path })?;
    Ok(edited)
}

fn merge_members(base: &mut Value, patch: Map<String, Value>) {
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    let Value::Object(base) = base else { return };
    for (key, value) in patch {
        // JavaScript programs read this file: these would change what all their objects are.
        if matches!(key.as_str(), "__proto__" | "prototype" | "constructor") {
            continue;
        }
        match value {
            Value::Null => _ = base.remove(&key),
            Value::Object(members) => {
                merge_members(base.entry(key).or_insert(Value::Null), members);
            }
            Value::Array(elements) => {
                let known = base.entry(key).or_insert(Value::Null);
                match known {
                    Value::Array(known) if known.iter().all(|element| id(element).is_some()) => {
                        merge_elements(known, elements);
                    }
                    known => *known = Value::Array(elements),
                }
            }
            value => _ = base.insert(key, value),
        }
    }
}

fn merge_elements(base: &mut Vec<Value>, patch: Vec<Value>) {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (at, known) in base.iter().enumerate() {
        places.extend(id(known).map(|id| (id.to_owned(), at)));
    }
    for element in patch {
        match (id(&element).and_then(|id| places.get(id)), element) {
            (Some(at), Value::Object(members)) => merge_members(&mut base[*at], members),
            (_, element) => {
                places.extend(id(&element).map(|id| (id.to_owned(), base.len())));
                base.push(element);
            }
        }
    }
}

fn id(element: &Value) -> Option<&str> {
    element.get("id")?.as_str().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::secret::HIDDEN;
    use super::*;

    fn file() -> Value {
        json!({
            "gateway": {"port": 1, "auth": {"token": "t"}},
            "agents": {"list": [{"id": "main"}, {"id": "b", "name": "B"}]},
            "plugins": {"allow": ["x"]},
        })
    }

    #[test]
    fn a_patch_merges_removes_and_replaces() {
        let raw = "{gateway: {port: null, mode: 'local'}, plugins: {allow: ['y']}, ui: {a: {b: null}}, __proto__: {x: 1}}";
        let expected = json!({
            "gateway": {"mode": "local", "auth": {"token": "t"}},
            "agents": {"list": [{"id": "main"}, {"id": "b", "name": "B"}]},
            "plugins": {"allow": ["y"]},
            "ui": {"a": {}},
        });
        assert_eq!(patched(&file(), raw), Ok(expected));
    }

    #[test]
    fn a_list_with_ids_is_patched_by_them() {
        let raw = "{agents: {list: [{id: 'b', name: null, model: 'p/m'}, {id: 'c'}]}}";
        let list = patched(&file(), raw).unwrap()["agents"]["list"].clone();
        assert_eq!(list, json!([{"id": "main"}, {"id": "b", "model": "p/m"}, {"id": "c"}]));
    }

    #[test]
    fn what_was_hidden_comes_back_and_what_was_not_there_is_refused() {
        let raw = format!("{{gateway: {{auth: {{token: '{HIDDEN}'}}}}}}");
        assert_eq!(patched(&file(), &raw), Ok(file()));
        let whole = replaced(&file(), &raw).unwrap();
        assert_eq!(whole, json!({"gateway": {"auth": {"token": "t"}}}));
        let refused = patched(&json!({}), &raw).unwrap_err();
        assert_eq!(refused, EditRefused::Hidden { path: KeyPath::of("gateway.auth.token") });
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(patched(&file(), "[]"), Err(EditRefused::NotAnObject));
        assert!(matches!(patched(&file(), "{"), Err(EditRefused::NotJson5 { .. })));
        assert_eq!(patched(&file(), &" ".repeat(5_000_000)), Err(EditRefused::TooLong));
    }
}
