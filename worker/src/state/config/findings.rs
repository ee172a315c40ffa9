//! What is wrong with a configuration: all of it at once, where, and what to do.
//!
//! **Invariants**
//! - Only keys that this gateway reads can be wrong.
//! - No finding repeats a value: it may be a secret that slipped.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::key_path::{KeyPath, Trail};
use super::schema::{alternatives, element, member, resolve, schema, variants};
use super::spans::{Inside, Spanned, spans};
use super::text::Position;

/// How many findings are kept: who has more begins with the first ones.
const MOST: usize = 64;

/// Whether a configuration can be used in spite of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// It cannot.
    Error,
    /// It can, and may not mean what its author thinks.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// The key.
    pub(crate) path: KeyPath,
    /// Where it is in the file.
    pub(crate) position: Option<Position>,
    /// What is wrong.
    pub(crate) problem: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl Finding {
    /// Something because of which the configuration cannot be used.
    pub(super) fn error(
        path: KeyPath,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (problem, remedy) = (problem.into(), remedy.into());
        Self { severity: Severity::Error, path, position: None, problem, remedy }
    }

    /// Something that its author should know.
    pub(super) fn warning(
        path: KeyPath,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, problem, remedy) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.steps().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

/// The first error, and how many there are beside it.
pub(super) fn first(findings: &[Finding]) -> String {
    let mut errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    match (errors.next(), errors.count()) {
        (Some(error), 0) => error.to_string(),
        (Some(error), more) => format!("{error} (and {more} more)"),
        (None, _) => "nothing is known of why".to_owned(),
    }
}

/// Gives findings their places in `text`, and puts them in its order. Of more than [`MOST`], some stay.
pub(super) fn place(findings: &mut Vec<Finding>, text: &str) {
    let Some(whole) = spans(text) else { return };
    repeated(&whole, Trail::Whole, schema(), text, findings);
    findings.sort_by_key(|finding| finding.severity == Severity::Warning);
    findings.truncate(MOST);
    for finding in &mut *findings {
        let start = whole.nearest(&finding.path).span.start;
        finding.position.get_or_insert_with(|| Position::of(start, text));
    }
    findings.sort_by_key(|finding| finding.position);
}

/// The keys that are there more than once, as far as anybody here reads them.
fn repeated(
    place: &Spanned,
    trail: Trail<'_>,
    node: &'static Value,
    text: &str,
    findings: &mut Vec<Finding>,
) {
    let (Inside::Object(items) | Inside::Array(items)) = &place.inside else { return };
    let is_object = matches!(place.inside, Inside::Object(_));
    let mut keys = BTreeSet::new();
    for (at, item) in items.iter().enumerate() {
        let (trail, node) = if is_object {
            (trail.key(&item.key), member(node, &item.key))
        } else {
            (trail.index(at), element(node))
        };
        let Some(node) = node.filter(|_| findings.len() < 2 * MOST) else { continue };
        if is_object && !keys.insert(&item.key) {
            let problem = "this key is there already, and the last one holds";
            let mut finding = Finding::warning(trail.path(), problem, "leave one of them");
            finding.position = Some(Position::of(item.start, text));
            findings.push(finding);
        }
        repeated(&item.value, trail, node, text, findings);
    }
}

/// What of `value` does not fit the schema.
pub(super) fn misfits(value: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    fit(schema(), value, Trail::Whole, &mut findings);
    findings
}

fn fit(node: &'static Value, value: &Value, trail: Trail<'_>, findings: &mut Vec<Finding>) {
    if findings.len() >= MOST {
        return;
    }
    let node = resolve(node);
    if let Some(several) = alternatives(node) {
        return fit_any(node, several, value, trail, findings);
    }
    if let Some(problem) = misfit(node, value) {
        let remedy = format!("write {}", wanted(node));
        findings.push(Finding::error(trail.path(), problem, remedy));
        return;
    }
    match value {
        Value::Object(members) => {
            for required in node.get("required").and_then(Value::as_array).into_iter().flatten() {
                let key = required.as_str().unwrap_or_default();
                if !members.contains_key(key) {
                    let problem = format!("`{key}` is missing");
                    findings.push(Finding::error(trail.path(), problem, format!("add `{key}`")));
                }
            }
            for (key, value) in members {
                if let Some(node) = member(node, key) {
                    fit(node, value, trail.key(key), findings);
                }
            }
        }
        Value::Array(elements) => {
            for (at, value) in elements.iter().enumerate() {
                if let Some(node) = element(node) {
                    fit(node, value, trail.index(at), findings);
                }
            }
        }
        _ => {}
    }
}

/// Fits one of several, or else is measured by the one that is of its kind.
fn fit_any(
    node: &'static Value,
    several: &'static [Value],
    value: &Value,
    trail: Trail<'_>,
    findings: &mut Vec<Finding>,
) {
    let mut kindred = None;
    for one in several {
        let mut own = Vec::new();
        fit(one, value, trail, &mut own);
        if own.is_empty() {
            return;
        }
        // What is wrong further inside says more than that nothing fits.
        let path = trail.path();
        if own.iter().all(|finding| finding.path != path || finding.problem.ends_with("missing")) {
            kindred = Some(own);
        }
    }
    findings.extend(kindred.unwrap_or_else(|| {
        let problem = match value {
            Value::String(_) if consts(node).next().is_some() => {
                "this word is not known".to_owned()
            }
            value => format!("this is {}", kind(value)),
        };
        vec![Finding::error(trail.path(), problem, format!("write {}", wanted(node)))]
    }));
}

/// Why the value itself does not fit, whatever is inside.
fn misfit(node: &Value, value: &Value) -> Option<String> {
    let fits = |name: &Value| match (name.as_str().unwrap_or_default(), value) {
        ("string", Value::String(_))
        | ("boolean", Value::Bool(_))
        | ("object", Value::Object(_))
        | ("array", Value::Array(_))
        | ("number", Value::Number(_))
        | ("null", Value::Null) => true,
        ("integer", Value::Number(number)) => number.is_i64() || number.is_u64(),
        _ => false,
    };
    let of_kind = match node.get("type") {
        Some(Value::Array(names)) => names.iter().any(fits),
        Some(name) => fits(name),
        None => true,
    };
    if !of_kind {
        return Some(format!("this is {}", kind(value)));
    }
    let known = |words: &Value| words.as_array().is_some_and(|words| words.contains(value));
    if node.get("enum").is_some_and(|words| !known(words))
        || node.get("const").is_some_and(|word| word != value)
    {
        return Some("this word is not known".to_owned());
    }
    if value.as_str() == Some("") && node.get("minLength").is_some() {
        return Some("this is empty".to_owned());
    }
    let number = value.as_f64()?;
    let (least, most) = bounds(node);
    (least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most))
        .then(|| "this number is out of range".to_owned())
}

fn bounds(node: &Value) -> (Option<f64>, Option<f64>) {
    // A type's own width, for the types whose schema only names it.
    let width = match node.get("format").and_then(Value::as_str) {
        Some("uint16") => Some(f64::from(u16::MAX)),
        Some("uint32") => Some(f64::from(u32::MAX)),
        _ => None,
    };
    let bound = |key| node.get(key).and_then(Value::as_f64);
    (bound("minimum"), bound("maximum").or(width))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The words that a node allows.
fn consts(node: &'static Value) -> impl Iterator<Item = &'static str> {
    variants(node).into_iter().flat_map(|one| {
        let listed = one.get("enum").and_then(Value::as_array).into_iter().flatten();
        one.get("const").into_iter().chain(listed).filter_map(Value::as_str)
    })
}

/// What a node asks for, in words.
fn wanted(node: &'static Value) -> String {
    let words: Vec<_> = consts(node).map(|word| format!("{word:?}")).collect();
    if !words.is_empty() {
        return words.join(" or ");
    }
    let mut kinds: Vec<String> = Vec::new();
    for one in variants(node) {
        let names = match one.get("type") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            name => Vec::from_iter(name.and_then(Value::as_str)),
        };
        for name in names.into_iter().filter(|name| *name != "null") {
            kinds.push(match (name, bounds(one)) {
                ("integer" | "number", (Some(least), Some(most))) => {
                    format!("a number from {least} to {most}")
                }
                ("integer" | "number", (Some(least), None)) => format!("a number from {least} on"),
                ("integer" | "number", _) => "a number".to_owned(),
                ("boolean", _) => "true or false".to_owned(),
                ("array", _) => "a list in [ ]".to_owned(),
                ("object", _) => "an object in { }".to_owned(),
                _ => "a string in quotes".to_owned(),
            });
        }
    }
    if kinds.is_empty() { "another value".to_owned() } else { kinds.join(" or ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(value: &Value) -> Vec<String> {
        misfits(value).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_misfit_is_named_with_what_to_write_instead() {
        let found = found(&json!({
            "gateway": {"port": "18789", "bind": "everywhere", "auth": {"token": 7, "mode": null}},
            "agents": {"list": [{"name": "x"}, "main", {"id": "", "model": {"fallbacks": "a"}}]},
            "models": {"providers": {"p": {"baseUrl": "u", "timeoutSeconds": 1.5}}},
            "cron": [],
        }));
        let expected = [
            "agents.list[0]: `id` is missing; add `id`",
            "agents.list[1]: this is a string; write an object in { }",
            "agents.list[2].id: this is empty; write a string in quotes",
            "agents.list[2].model.fallbacks: this is a string; write a list in [ ]",
            "cron: this is a list; write an object in { }",
            "gateway.auth.mode: this is null; write \"none\" or \"token\" or \"password\" or \"trusted-proxy\"",
            "gateway.auth.token: this is a number; write a string in quotes or an object in { }",
            "gateway.bind: this word is not known; write \"auto\" or \"lan\" or \"loopback\" or \"custom\" or \"tailnet\"",
            "gateway.port: this is a string; write a number from 1 to 65535",
            "models.providers.p.timeoutSeconds: this is a fraction; write a number from 0 to 4294967295",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_key_that_is_there_twice_is_a_warning_at_its_second_place() {
        let mut findings = Vec::new();
        place(&mut findings, "{\n cron: {}, ui: 1,\n ui: 2,\n cron: {store: 'a', store: 'b'} }");
        let placed: Vec<_> = findings
            .iter()
            .map(|finding| (finding.position.unwrap().line, finding.path.to_string()))
            .collect();
        assert_eq!(placed, [(4, "cron".to_owned()), (4, "cron.store".to_owned())]);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Warning));
    }

    #[test]
    fn however_much_is_wrong_the_first_ones_are_said() {
        let list = vec![json!({"id": 1}); 100_000];
        let value = json!({"agents": {"list": list}});
        let mut findings = misfits(&value);
        place(&mut findings, &value.to_string());
        assert_eq!(findings.len(), MOST);
        assert_eq!(findings[0].path.to_string(), "agents.list[0].id");
    }

    #[test]
    fn keys_of_other_tools_may_be_anything() {
        let others = json!({
            "ui": 7, "channels": [], "gateway": {"tailscale": "off", "nodes": null},
            "agents": {"list": [{"id": "a", "tools": 1, "sandbox": []}]},
        });
        assert_eq!(misfits(&others), []);
    }
}
