//! Secrets in a configuration: held so that they cannot be shown by accident, and hidden from whoever reads
//! the configuration over the wire.
//!
//! **Invariants**
//! - A [`Secret`] is neither formatted nor serialized; whoever needs it says [`Secret::reveal`].
//! - What is hidden goes by a key's name, so that the secrets of other tools' keys are hidden too.
//! - A configuration that comes back with [`HIDDEN`] in it gets its secrets back, or is refused.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

use super::environment::{Environment, variable};
use super::key_path::KeyPath;

/// What stands for a secret that is not shown.
pub(crate) const HIDDEN: &str = "__OPENCLAW_REDACTED__";

/// A token, password or key, or where another program keeps it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Kept);

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    Here(String),
    /// In an environment variable of this name.
    Variable(String),
    /// Where only OpenClaw's own secret providers reach: a file, a program.
    Elsewhere,
}

impl Secret {
    /// A secret, or the name of the variable in which it would be.
    pub(super) fn new(written: String) -> Self {
        match variable(&written) {
            Some(name) => Self(Kept::Variable(name.to_owned())),
            None => Self(Kept::Here(written)),
        }
    }

    /// The secret, for the one place that needs it; `None` when it is where nobody here reaches.
    pub(crate) fn reveal<'a>(&'a self, environment: &'a Environment) -> Option<&'a str> {
        match &self.0 {
            Kept::Here(secret) => Some(secret),
            Kept::Variable(name) => environment.value(name),
            Kept::Elsewhere => None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(secret) => Ok(Self::new(secret)),
            Value::Object(reference) => match (reference.get("source"), reference.get("id")) {
                (Some(Value::String(source)), Some(Value::String(id))) if source == "env" => {
                    Ok(Self(Kept::Variable(id.clone())))
                }
                (Some(Value::String(_)), Some(Value::String(_))) => Ok(Self(Kept::Elsewhere)),
                _ => Err(D::Error::custom("a reference to a secret has a source and an id")),
            },
            _ => Err(D::Error::custom("a secret is a string or a reference to one")),
        }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "source": {"type": "string", "enum": ["env", "file", "exec"]},
                        "provider": {"type": "string"},
                        "id": {"type": "string"}
                    },
                    "required": ["source", "id"]
                }
            ],
            "writeOnly": true
        })
    }
}

/// Whether a key of this name holds a secret, as OpenClaw goes by it.
pub(crate) fn names_a_secret(key: &str) -> bool {
    let name: String = key.to_ascii_lowercase().chars().filter(|c| !"-_.".contains(*c)).collect();
    let counts = ["maxtokens", "contexttokens", "totaltokens", "passwordfile"];
    !counts.iter().any(|ending| name.ends_with(ending))
        && (name.ends_with("token")
            || name.contains("serviceaccount")
            || ["password", "secret", "apikey", "encryptkey", "privatekey", "credential"]
                .iter()
                .any(|word| name.contains(word)))
}

/// Whether what lies below a key of this name are secrets, whatever they are called.
fn holds_secrets(key: &str) -> bool {
    matches!(key, "headers" | "env")
}

/// A copy that may be shown.
pub(crate) fn hide(value: &Value) -> Value {
    match value {
        Value::Array(elements) => elements.iter().map(hide).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| {
                let shown = match value {
                    // References say where a secret lies, which is no secret.
                    Value::Object(reference) if reference.contains_key("source") => value.clone(),
                    Value::Object(inside) if holds_secrets(key) => hide_all(inside),
                    Value::String(text) if names_a_secret(key) => hidden(text),
                    Value::Array(_) | Value::Object(_) if names_a_secret(key) => HIDDEN.into(),
                    value => hide(value),
                };
                (key.clone(), shown)
            })
            .collect(),
        Value::String(text) => without_password(text).map_or_else(|| value.clone(), Value::from),
        value => value.clone(),
    }
}

fn hide_all(members: &Map<String, Value>) -> Value {
    let all = members.iter().map(|(key, value)| {
        let shown = match value {
            Value::String(text) => hidden(text),
            Value::Object(inside) => hide_all(inside),
            value => hide(value),
        };
        (key.clone(), shown)
    });
    Value::Object(all.collect())
}

fn hidden(text: &str) -> Value {
    if text.is_empty() || variable(text).is_some() { text.into() } else { HIDDEN.into() }
}

/// An address with a name and password in it, hidden whole: it comes back whole.
fn without_password(text: &str) -> Option<&'static str> {
    let authority = text.split_once("://")?.1.split(['/', '?', '#']).next()?;
    authority.rsplit_once('@')?.0.contains(':').then_some(HIDDEN)
}

/// Puts back what was hidden, from the configuration it was hidden in.
///
/// # Errors
/// The path of a value that hides what `original` does not have.
pub(crate) fn restore(shown: &mut Value, original: Option<&Value>) -> Result<(), KeyPath> {
    restore_at(shown, original, &KeyPath::whole())
}

fn restore_at(shown: &mut Value, original: Option<&Value>, path: &KeyPath) -> Result<(), KeyPath> {
    match shown {
        Value::String(text) if text == HIDDEN => {
            // What is itself the placeholder was lost before, by somebody else.
            let known = original.filter(|known| known.as_str() != Some(HIDDEN));
            *shown = known.ok_or_else(|| path.clone())?.clone();
        }
        Value::Array(elements) => {
            let known = Counterparts::among(original);
            for (at, element) in elements.iter_mut().enumerate() {
                let counterpart = known.of(element, at);
                restore_at(element, counterpart, &path.index(at))?;
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                restore_at(value, original.and_then(|o| o.get(key)), &path.key(key))?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The elements that another list's elements were.
struct Counterparts<'o> {
    elements: &'o [Value],
    by_id: HashMap<&'o str, &'o Value>,
}

impl<'o> Counterparts<'o> {
    fn among(original: Option<&'o Value>) -> Self {
        let elements = original.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let with_ids =
            elements.iter().filter_map(|known| Some((known.get("id")?.as_str()?, known)));
        Self { elements, by_id: with_ids.collect() }
    }

    /// That of the element's id, else that of its place.
    fn of(&self, element: &Value, at: usize) -> Option<&'o Value> {
        match element.get("id").and_then(Value::as_str) {
            Some(id) => self.by_id.get(id).copied(),
            None => self.elements.get(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_never_formatted() {
        let secret: Secret = serde_json::from_value(json!("hunter2")).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.reveal(&Environment::default()), Some("hunter2"));
        assert!(serde_json::from_value::<Secret>(json!(7)).is_err());
    }

    #[test]
    fn a_reference_is_looked_up_when_it_is_needed() {
        let reference = json!({"source": "env", "provider": "default", "id": "KEY"});
        let secret: Secret = serde_json::from_value(reference).unwrap();
        assert_eq!(secret.reveal(&Environment::of([("KEY", "k")])), Some("k"));
        assert_eq!(secret.reveal(&Environment::default()), None);
        let secret: Secret = serde_json::from_value(json!("${KEY}")).unwrap();
        assert_eq!(secret.reveal(&Environment::default()), None, "the reference is no secret");
    }

    #[test]
    fn secrets_are_hidden_by_the_name_of_their_key_and_come_back() {
        let config = json!({
            "gateway": {"auth": {"token": "t", "password": "${PASSWORD}"}},
            "channels": {"telegram": {"botToken": "b", "list": [{"id": "x", "webhookSecret": "w"}]}},
            "models": {"providers": {"p": {"apiKey": "k", "headers": {"x-team": "h"}, "models": [{"maxTokens": 4096}]}}},
            "proxy": {"url": "http://user:pw@proxy:3128/", "other": "http://proxy/a:b@c"},
            "env": {"A": "e1", "vars": {"B": "e2"}},
            "ref": {"secret": {"source": "env", "id": "KEY"}},
        });
        let shown = hide(&config);
        let text = shown.to_string();
        for secret in ["\"t\"", "\"b\"", "\"w\"", "\"k\"", "\"h\"", "user:pw", "e1", "e2"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for other in ["${PASSWORD}", "4096", "http://proxy/a:b@c", "\"KEY\""] {
            assert!(text.contains(other), "no {other} in {text}");
        }
        let mut back = shown;
        restore(&mut back, Some(&config)).unwrap();
        assert_eq!(back, config);
    }

    #[test]
    fn what_was_never_there_does_not_come_back() {
        let mut shown = json!({"gateway": {"auth": {"token": HIDDEN}}});
        let path = restore(&mut shown, Some(&json!({"gateway": {}}))).unwrap_err();
        assert_eq!(path.to_string(), "gateway.auth.token");
        assert!(restore(&mut shown.clone(), Some(&shown)).is_err(), "a placeholder is no secret");
    }
}
