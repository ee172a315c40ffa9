//! The JSON Schema of what this gateway reads, made from the types that read it.
//!
//! **Invariants**
//! - Keys that are not in it are allowed: they belong to other tools.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::key_path::{KeyPath, Step};
use super::shape::Config;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>();
    let mut schema = schema.to_value();
    schema["title"] = json!("openclaw.json, as far as Holdfast reads it");
    schema
});

/// The whole schema.
pub(crate) fn schema() -> &'static Value {
    &SCHEMA
}

/// The schema that a node refers to, or the node itself.
pub(super) fn resolve(node: &'static Value) -> &'static Value {
    match node.get("$ref").and_then(Value::as_str).and_then(definition) {
        Some(definition) => resolve(definition),
        None => node,
    }
}

/// What `#/$defs/Name` stands for. It is asked for at each value that is checked.
fn definition(reference: &str) -> Option<&'static Value> {
    SCHEMA.get("$defs")?.get(reference.strip_prefix("#/$defs/")?)
}

/// The alternatives that a node lists.
pub(super) fn alternatives(node: &'static Value) -> Option<&'static [Value]> {
    ["anyOf", "oneOf"].iter().find_map(|key| node.get(key)?.as_array()).map(Vec::as_slice)
}

/// All that a value may be: the node itself, or its alternatives and theirs.
pub(super) fn variants(node: &'static Value) -> Vec<&'static Value> {
    let node = resolve(node);
    alternatives(node).map_or_else(|| vec![node], |all| all.iter().flat_map(variants).collect())
}

/// What `find` finds in the first of a node's variants where it finds anything.
fn in_variants<T>(node: &'static Value, find: &impl Fn(&'static Value) -> Option<T>) -> Option<T> {
    let node = resolve(node);
    match alternatives(node) {
        Some(all) => all.iter().find_map(|node| in_variants(node, find)),
        None => find(node),
    }
}

/// What is read of a member; `None` when it is not.
pub(super) fn member(node: &'static Value, key: &str) -> Option<&'static Value> {
    in_variants(node, &|node| {
        let named = node.get("properties").and_then(|members| members.get(key));
        named
            .or_else(|| node.get("additionalProperties").filter(|any| **any != Value::Bool(false)))
            .or_else(|| (node == &Value::Bool(true)).then_some(node))
    })
}

/// What is read of an element.
pub(super) fn element(node: &'static Value) -> Option<&'static Value> {
    in_variants(node, &|node| {
        node.get("items").or_else(|| (node == &Value::Bool(true)).then_some(node))
    })
}

/// What is read of the value at `path`; `None` when it is not.
pub(crate) fn at(path: &KeyPath) -> Option<&'static Value> {
    path.steps().iter().try_fold(schema(), |node, step| match step {
        Step::Key(key) => member(node, key),
        Step::Index(_) => element(node),
    })
}

/// What a client is told about one key: its own schema, and its members one level deep.
pub(crate) fn lookup(path: &KeyPath) -> Option<Value> {
    let node = resolve(at(path)?);
    let required = |key: &str| {
        let names = node.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|name| name == key))
    };
    let members = node.get("properties").and_then(Value::as_object);
    let children: Vec<_> = members
        .into_iter()
        .flatten()
        .map(|(key, child)| {
            let inside = resolve(child);
            json!({
                "key": key,
                "path": path.key(key).to_string(),
                "type": inside.get("type"),
                "required": required(key),
                "hasChildren": inside.get("properties").is_some(),
                "hint": {"help": child.get("description").or_else(|| inside.get("description"))},
            })
        })
        .collect();
    let mut own = node.clone();
    if let Some(own) = own.as_object_mut() {
        for nested in ["properties", "$defs", "default"] {
            own.remove(nested);
        }
    }
    Some(json!({"path": path.to_string(), "schema": own, "children": children}))
}

/// Every key that is read, as a path of names; `*` stands for any name, `[]` for any element.
#[cfg(test)]
pub(crate) fn keys() -> Vec<Vec<String>> {
    fn collect(node: &'static Value, path: &[String], keys: &mut Vec<Vec<String>>) {
        for node in variants(node) {
            let then = |name: &str| [path, &[name.to_owned()]].concat();
            for (key, child) in
                node.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                keys.push(then(key));
                collect(child, &then(key), keys);
            }
            for (name, key) in [("*", "additionalProperties"), ("[]", "items")] {
                if let Some(child) = node.get(key).filter(|child| child.is_object()) {
                    collect(child, &then(name), keys);
                }
            }
        }
    }
    let mut keys = Vec::new();
    collect(schema(), &[], &mut keys);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_types_are_all_there() {
        let keys: Vec<_> = keys().iter().map(|path| path.join(".")).collect();
        for key in [
            "gateway.port",
            "gateway.http.endpoints.chatCompletions.enabled",
            "agents.list.[].identity.emoji",
            "agents.defaults.models.*.alias",
            "agents.list.[].model.primary",
            "models.providers.*.models.[].contextWindow",
        ] {
            assert!(keys.iter().any(|known| known == key), "no {key} in {keys:#?}");
        }
    }

    #[test]
    fn what_is_read_is_told_from_what_is_not() {
        for read in ["gateway.port", "plugins.entries.x.config.deep.down", "mcp.servers"] {
            assert!(at(&KeyPath::of(read)).is_some(), "{read}");
        }
        for other in ["ui", "gateway.tailscale", "channels.telegram.botToken"] {
            assert!(at(&KeyPath::of(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(node: &'static Value) -> Vec<&'static str> {
            let inside: Vec<_> = match node {
                Value::Object(members) => members.values().flat_map(references).collect(),
                Value::Array(elements) => elements.iter().flat_map(references).collect(),
                _ => Vec::new(),
            };
            node.get("$ref").and_then(Value::as_str).into_iter().chain(inside).collect()
        }
        let references = references(schema());
        assert!(!references.is_empty());
        for reference in references {
            assert!(definition(reference).is_some(), "{reference}");
        }
    }

    #[test]
    fn a_key_is_explained_with_its_members() {
        let told = lookup(&KeyPath::of("gateway.auth")).unwrap();
        assert_eq!(told["path"], "gateway.auth");
        let children = told["children"].as_array().unwrap();
        let mode = children.iter().find(|child| child["key"] == "mode").unwrap();
        assert_eq!(mode["path"], "gateway.auth.mode");
        assert_eq!(mode["hint"]["help"], "By what.");
        assert!(lookup(&KeyPath::of("ui")).is_none());
    }

    #[test]
    fn every_secret_of_the_types_goes_by_a_name_that_is_hidden() {
        for key in keys() {
            let [.., name] = key.as_slice() else { continue };
            if key.iter().any(|part| part == "[]" || part == "*") {
                continue;
            }
            let path = KeyPath::of(&key.join("."));
            if at(&path).and_then(|node| node.get("writeOnly")).is_some() {
                assert!(super::super::secret::names_a_secret(name), "{path}");
            }
        }
    }
}
