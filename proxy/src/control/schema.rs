//! The promise about `holdfast status --json`: `deploy/status.schema.json` describes all of it.
//!
//! The sample has every field that a status can have, none of them null. What the schema says and this build writes
//! have to be the same, so a field that goes, comes or changes its type is noticed here.

use serde_json::{Map, Value};

use super::document::Status;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../deploy/status.schema.json")).unwrap()
}

fn sample() -> Value {
    let text = include_str!("../../tests/status/draining.json");
    let status: Status = serde_json::from_str(text).unwrap();
    serde_json::to_value(status).unwrap()
}

/// Follows `$ref`.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a missing or null field is a difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Complete {
    Yes,
    No,
}

/// Everything in which a document and its description differ.
fn differences(
    at: &str,
    value: &Value,
    schema: &Value,
    root: &Value,
    all: Complete,
) -> Vec<String> {
    let schema = resolved(schema, root);
    let allowed = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    let is = type_of(value);
    if !allowed.iter().any(|allowed| allowed == is) {
        return vec![format!("{at} is {is}, and should be {}", schema["type"])];
    }
    if *value == Value::Null && all == Complete::Yes {
        return vec![format!("{at} is null in the sample, which proves nothing")];
    }
    let mut found = Vec::new();
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.contains(value)) {
        found.push(format!("{at} is {value}, and should be one of {words:?}"));
    }
    match value {
        Value::Object(fields) => found.extend(of_fields(at, fields, schema, root, all)),
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                let at = format!("{at}[{number}]");
                // A generation of an event may be null: others of the list are not.
                let all = if item["kind"].is_string() { Complete::No } else { all };
                found.extend(differences(&at, item, &schema["items"], root, all));
            }
        }
        _ => {}
    }
    found
}

fn of_fields(
    at: &str,
    fields: &Map<String, Value>,
    schema: &Value,
    root: &Value,
    all: Complete,
) -> Vec<String> {
    let described = schema["properties"].as_object().unwrap();
    let mut found = Vec::new();
    for (name, value) in fields {
        let at = format!("{at}.{name}");
        match described.get(name) {
            Some(description) => found.extend(differences(&at, value, description, root, all)),
            None => found.push(format!("{at} is not in deploy/status.schema.json")),
        }
    }
    for name in schema["required"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        if !fields.contains_key(name) {
            found.push(format!("{at}.{name} is promised, and missing"));
        }
    }
    let missing = described.keys().filter(|name| !fields.contains_key(*name));
    found.extend(
        missing
            .filter(|_| all == Complete::Yes)
            .map(|name| format!("{at}.{name} is described, and not in the sample")),
    );
    found
}

#[test]
fn the_status_is_what_its_schema_says_and_nothing_else() {
    let (schema, mut sample) = (schema(), sample());
    // A takeover that runs has phases still to come.
    sample["takeover"]["phases"] = sample["last_takeover"]["phases"].clone();
    // Only one that has attached itself has a user.
    sample["generations"][0]["origin"] = sample["generations"][1]["origin"].clone();
    let found = differences("status", &sample, &schema, &schema, Complete::Yes);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_field_that_goes_comes_or_changes_its_type_is_noticed() {
    let schema = schema();
    let noticed = |change: fn(&mut Value), words: &str| {
        let mut sample = sample();
        change(&mut sample);
        let found = differences("status", &sample, &schema, &schema, Complete::No).join("\n");
        assert!(found.contains(words), "{words:?} is not in {found:?}");
    };
    noticed(|s| s["colour"] = "green".into(), "status.colour is not in");
    noticed(|s| s["crashes"] = "one".into(), "status.crashes is string");
    noticed(|s| s["front"]["pid"] = Value::Null, "status.front.pid is null");
    noticed(|s| s["generations"][0]["state"] = "dancing".into(), "should be one of");
    noticed(
        |s| drop(s["recent_takeovers"][0].as_object_mut().unwrap().remove("phases")),
        ".phases is promised, and missing",
    );
}

#[test]
fn a_status_of_the_front_before_this_one_is_read() {
    // What 0.1.0 had when its last fields came.
    let mut sample = sample();
    let fields = sample.as_object_mut().unwrap();
    for field in ["events", "recent_takeovers", "takeover_pending"] {
        assert!(fields.remove(field).is_some(), "{field}");
    }
    for field in ["number", "age_ms"] {
        fields["last_takeover"].as_object_mut().unwrap().remove(field);
    }
    let status: Status = serde_json::from_value(sample).unwrap();
    assert!(status.events.is_empty() && status.recent_takeovers.is_empty());
}
