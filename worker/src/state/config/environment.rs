//! What a configuration takes from the environment: `${NAME}` in its strings, and the gateway's token.
//!
//! **Invariants**
//! - Read once, at the start: a running worker's environment does not change.
//! - `Debug` says which variables there are, not what is in them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::key_path::{KeyPath, Trail};

/// Where the token is looked for, as `identity` does.
const TOKEN_VARIABLES: [&str; 2] = ["HOLDFAST_TOKEN", "OPENCLAW_GATEWAY_TOKEN"];

/// The variables a configuration may name.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// That of this process; what is not text is not there.
    pub(crate) fn inherited() -> Self {
        let texts = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self(texts.collect())
    }

    #[cfg(test)]
    pub(crate) fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    /// A variable that is set to something.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The token that goes before the configuration's.
    pub(crate) fn token(&self) -> Option<&str> {
        TOKEN_VARIABLES.into_iter().find_map(|name| self.value(name))
    }

    /// This environment, and for what it does not set the `env` section of a configuration.
    pub(crate) fn with(&self, section: Option<&Value>) -> Self {
        let mut both = self.clone();
        let members = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
        let vars = members(section.and_then(|section| section.get("vars")));
        let own = members(section);
        for (name, value) in vars.into_iter().chain(own).flatten() {
            // A reference in there would lead in circles.
            if let Value::String(value) = value
                && self.value(&name).is_none()
                && !value.contains("${")
            {
                both.0.insert(name, value);
            }
        }
        both
    }

    /// The value with its variables put in, and those that are not set with the place that wants them.
    pub(crate) fn fill(&self, value: &Value) -> (Value, Vec<(KeyPath, String)>) {
        let mut missing = Vec::new();
        let filled = self.fill_at(value, Trail::Whole, &mut missing);
        (filled, missing)
    }

    fn fill_at(
        &self,
        value: &Value,
        trail: Trail<'_>,
        missing: &mut Vec<(KeyPath, String)>,
    ) -> Value {
        match value {
            Value::String(text) => self.fill_text(text, trail, missing).into(),
            Value::Array(elements) => elements
                .iter()
                .enumerate()
                .map(|(at, element)| self.fill_at(element, trail.index(at), missing))
                .collect(),
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, value)| (key.clone(), self.fill_at(value, trail.key(key), missing)))
                    .collect(),
            ),
            value => value.clone(),
        }
    }

    fn fill_text(
        &self,
        text: &str,
        trail: Trail<'_>,
        missing: &mut Vec<(KeyPath, String)>,
    ) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some((name, behind)) = rest.strip_prefix('$').and_then(reference) {
                match self.value(name) {
                    Some(value) => filled.push_str(value),
                    None => {
                        missing.push((trail.path(), name.to_owned()));
                        filled.push_str(&rest[..rest.len() - behind.len()]);
                    }
                }
                rest = behind;
            } else if let Some((name, behind)) = rest.strip_prefix("$$").and_then(reference) {
                // `$${NAME}` is how one writes `${NAME}`.
                filled.push_str(&format!("${{{name}}}"));
                rest = behind;
            } else {
                filled.push('$');
                rest = &rest[1..];
            }
        }
        filled + rest
    }
}

/// The variable that a text is a reference to, and nothing else.
pub(super) fn variable(text: &str) -> Option<&str> {
    let (name, behind) = text.strip_prefix('$').and_then(reference)?;
    behind.is_empty().then_some(name)
}

/// Splits `{NAME}…` into the name and what follows; names are upper case, as OpenClaw has it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, behind) = text.strip_prefix('{')?.split_once('}')?;
    let plain = |c: char| c.is_ascii_uppercase() || c == '_';
    let named = name.starts_with(plain) && name.chars().all(|c| plain(c) || c.is_ascii_digit());
    named.then_some((name, behind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_put_in_and_those_that_are_not_set_are_named() {
        let environment = Environment::of([("KEY", "k$1"), ("EMPTY", "")]);
        let written = json!({"a": ["x ${KEY}${KEY}", "$${KEY}", "$KEY ${key} ${ $", "${NO_1} $"], "b": "${EMPTY}"});
        let (filled, missing) = environment.fill(&written);
        assert_eq!(
            filled,
            json!({"a": ["x k$1k$1", "${KEY}", "$KEY ${key} ${ $", "${NO_1} $"], "b": "${EMPTY}"})
        );
        let missing: Vec<_> = missing.iter().map(|(path, name)| format!("{path} {name}")).collect();
        assert_eq!(missing, ["a[3] NO_1", "b EMPTY"]);
    }

    #[test]
    fn the_file_sets_what_the_environment_does_not() {
        let section =
            json!({"A": "of the file", "B": "b", "C": "${A}", "vars": {"B": "x", "D": "d"}});
        let environment = Environment::of([("A", "of the environment")]).with(Some(&section));
        let values = ["A", "B", "C", "D"].map(|name| environment.value(name));
        assert_eq!(values, [Some("of the environment"), Some("b"), None, Some("d")]);
    }

    #[test]
    fn a_variable_is_never_formatted() {
        assert!(!format!("{:?}", Environment::of([("KEY", "hunter2")])).contains("hunter2"));
    }
}
