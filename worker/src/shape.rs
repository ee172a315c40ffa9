//! The shapes that clients' JSON must have, and in which words it is told what is wrong with it.
//!
//! The words are those that OpenClaw's clients already know:
//! `at /client/id: must be equal to one of the allowed values`.

use serde_json::Value;

/// What a value must look like.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A string, maybe empty.
    AnyText,
    /// A string that is not empty.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A whole number, at least this.
    Integer {
        /// The least that is allowed.
        least: u64,
    },
    /// A whole number, at least and at most this.
    Within {
        /// The least that is allowed.
        least: u64,
        /// The most that is allowed.
        most: u64,
    },
    /// `true` or `false`.
    Flag,
    /// A list of values that all look like this.
    List(&'static Self),
    /// An object with any keys, whose values look like this.
    Map(&'static Self),
    /// An object with these fields and no others.
    Object(&'static [Field]),
    /// Whatever it is.
    Anything,
}

/// One field of an object.
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    presence: Presence,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

impl Field {
    /// A field that has to be there.
    pub(crate) const fn required(name: &'static str, shape: Shape) -> Self {
        Self { name, presence: Presence::Required, shape }
    }

    /// A field that may be missing.
    pub(crate) const fn optional(name: &'static str, shape: Shape) -> Self {
        Self { name, presence: Presence::Optional, shape }
    }
}

impl Shape {
    /// Whether `value` looks like this.
    ///
    /// # Errors
    /// Everything that is wrong with it, in one line.
    pub(crate) fn check(&'static self, value: &Value) -> Result<(), Violations> {
        let mut violations = Vec::new();
        self.collect(value, &mut String::new(), &mut violations);
        if violations.is_empty() { Ok(()) } else { Err(Violations(violations)) }
    }

    fn collect(&'static self, value: &Value, path: &mut String, violations: &mut Vec<String>) {
        match (self, value) {
            (Self::Anything, _)
            | (Self::AnyText, Value::String(_))
            | (Self::Flag, Value::Bool(_)) => {}
            (Self::Text, Value::String(text)) => {
                if text.is_empty() {
                    report(violations, path, "must NOT have fewer than 1 characters");
                }
            }
            (Self::OneOf(allowed), value) => {
                if !value.as_str().is_some_and(|text| allowed.contains(&text)) {
                    report(violations, path, "must be equal to one of the allowed values");
                }
            }
            (Self::Integer { least }, value) => whole(*least, value, path, violations),
            (Self::Within { most, .. }, Value::Number(number))
                if number.as_u64().is_some_and(|number| number > *most) =>
            {
                report(violations, path, &format!("must be <= {most}"));
            }
            (Self::Within { least, .. }, value) => {
                whole(*least, value, path, violations);
            }
            (Self::List(shape), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    within(path, &index.to_string(), |path| shape.collect(item, path, violations));
                }
            }
            (Self::Map(shape), Value::Object(entries)) => {
                for (key, item) in entries {
                    within(path, key, |path| shape.collect(item, path, violations));
                }
            }
            (Self::Object(fields), Value::Object(entries)) => {
                for field in *fields {
                    match entries.get(field.name) {
                        Some(item) => {
                            let shape = &field.shape;
                            within(path, field.name, |path| shape.collect(item, path, violations));
                        }
                        None if field.presence == Presence::Required => {
                            let what = format!("must have required property '{}'", field.name);
                            report(violations, path, &what);
                        }
                        None => {}
                    }
                }
                let known = |key: &str| fields.iter().any(|field| field.name == key);
                for key in entries.keys().filter(|key| !known(key)) {
                    let place = if path.is_empty() { "root" } else { path.as_str() };
                    violations
                        .push(format!("at {place}: unexpected property '{}'", shortened(key)));
                }
            }
            (Self::AnyText | Self::Text, _) => report(violations, path, "must be string"),
            (Self::Flag, _) => report(violations, path, "must be boolean"),
            (Self::List(_), _) => report(violations, path, "must be array"),
            (Self::Map(_) | Self::Object(_), _) => report(violations, path, "must be object"),
        }
    }
}

fn whole(least: u64, value: &Value, path: &str, violations: &mut Vec<String>) {
    match value {
        Value::Number(number) if number.as_u64().is_some_and(|number| number >= least) => {}
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            report(violations, path, &format!("must be >= {least}"));
        }
        _ => report(violations, path, "must be integer"),
    }
}

fn within(path: &mut String, name: &str, check: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(&shortened(name));
    check(path);
    path.truncate(length);
}

fn report(violations: &mut Vec<String>, path: &str, what: &str) {
    violations.push(if path.is_empty() { what.to_owned() } else { format!("at {path}: {what}") });
}

/// A key comes from the client, and the words about it go into a close reason and a log.
fn shortened(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// Everything that is wrong with a value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct Violations(Vec<String>);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    static CREATE: Shape = Shape::Object(&[
        Field::required("name", Shape::Text),
        Field::required("workspace", Shape::AnyText),
        Field::optional("kind", Shape::OneOf(&["a", "b"])),
        Field::optional("count", Shape::Integer { least: 1 }),
        Field::optional("share", Shape::Within { least: 1, most: 5 }),
        Field::optional("tags", Shape::List(&Shape::Text)),
        Field::optional("flags", Shape::Map(&Shape::Flag)),
        Field::optional("extra", Shape::Anything),
    ]);

    fn complaint(value: &Value) -> String {
        CREATE.check(value).unwrap_err().to_string()
    }

    #[test]
    fn what_has_the_shape_passes() {
        let full = json!({"name": "n", "workspace": "", "kind": "b", "count": 1, "tags": ["x"],
            "flags": {"f": true}, "extra": [null]});
        assert_eq!(CREATE.check(&full), Ok(()));
        assert_eq!(CREATE.check(&json!({"name": "n", "workspace": "w"})), Ok(()));
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_its_place() {
        assert_eq!(
            complaint(&json!({})),
            "must have required property 'name'; must have required property 'workspace'"
        );
        assert_eq!(complaint(&json!([])), "must be object");
        let ok = json!({"name": "n", "workspace": "w"});
        for (key, value, expected) in [
            ("foo", json!(1), "at root: unexpected property 'foo'"),
            ("name", json!(""), "at /name: must NOT have fewer than 1 characters"),
            ("name", json!(7), "at /name: must be string"),
            ("kind", json!("c"), "at /kind: must be equal to one of the allowed values"),
            ("kind", json!(1), "at /kind: must be equal to one of the allowed values"),
            ("count", json!(0), "at /count: must be >= 1"),
            ("count", json!(-1), "at /count: must be >= 1"),
            ("count", json!(1.5), "at /count: must be integer"),
            ("count", json!("1"), "at /count: must be integer"),
            ("share", json!(0), "at /share: must be >= 1"),
            ("share", json!(6), "at /share: must be <= 5"),
            ("share", json!(1.5), "at /share: must be integer"),
            ("share", json!("1"), "at /share: must be integer"),
            ("tags", json!(["x", 1]), "at /tags/1: must be string"),
            ("tags", json!({}), "at /tags: must be array"),
            ("flags", json!({"f": 0}), "at /flags/f: must be boolean"),
        ] {
            let mut value_with = ok.clone();
            value_with[key] = value;
            assert_eq!(complaint(&value_with), expected);
        }
    }
}
