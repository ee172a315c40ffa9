//! JSON5 text as a value.
//!
//! **Invariants**
//! - A number that JavaScript would not tell from another is the same value here: `1.0` is `1`.
//! - No text, however deep, costs more than [`DEEPEST`] frames of the stack.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep values may lie in one another.
pub(crate) const DEEPEST: usize = 64;
/// Up to here every whole number is a double of its own.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// A place in a text, counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: usize,
    /// The character in it.
    pub(crate) column: usize,
}

impl Position {
    /// The place of a byte.
    pub(crate) fn of(offset: usize, text: &str) -> Self {
        json5::Position::from_offset(offset, text).into()
    }
}

impl From<json5::Position> for Position {
    fn from(from_0: json5::Position) -> Self {
        Self { line: from_0.line + 1, column: from_0.column + 1 }
    }
}

/// A text that is not JSON5, or not JSON's kind of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct NotJson5 {
    /// Where; without it, at the end of the text.
    pub(crate) position: Option<Position>,
    /// What is wrong there.
    pub(crate) problem: String,
}

/// Reads a text.
///
/// # Errors
/// [`NotJson5`].
pub(crate) fn parse(text: &str) -> Result<Value, NotJson5> {
    // The crate's `from_str` knows that nothing may follow; the seed knows how deep it is.
    let Top(value) = json5::from_str(text).map_err(|error| NotJson5 {
        position: error.position().map(Position::from),
        problem: problem(&error),
    })?;
    Ok(value)
}

fn problem(error: &json5::Error) -> String {
    if let Some(code) = error.code() {
        return code.to_string();
    }
    let said = error.to_string();
    match error.position() {
        Some(position) => said.trim_end_matches(&format!(" at {position}")).to_owned(),
        None => said,
    }
}

/// A whole text's value.
struct Top(Value);

impl<'de> serde::Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node { depth: 0 }.deserialize(deserializer).map(Self)
    }
}

/// A value that lies `depth` values deep.
#[derive(Clone, Copy)]
struct Node {
    depth: usize,
}

impl Node {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEEPEST {
            return Err(E::custom(format_args!("more than {DEEPEST} values inside one another")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value.fract() == 0.0 && value.abs() <= LARGEST_EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
            return Ok((value as i64).into());
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format_args!("{value} is no number that JSON has")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inside)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            // The last of several wins, as in JavaScript.
            object.insert(key, members.next_value_seed(inside)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_write_is_read() {
        let text =
            "\u{feff}{ // why\n a: 1.0, 'b': [0x10, +.5, -0.0,], \"c\": null, /* */ d: true, }";
        assert_eq!(parse(text).unwrap(), json!({"a": 1, "b": [16, 0.5, 0], "c": null, "d": true}));
    }

    #[test]
    fn a_mistake_is_placed() {
        for (text, line, column, problem) in [
            ("{\n  a: 1\n  b: 2 }", 3, 3, "comma"),
            ("{\n  a: nope }", 2, 7, "null"),
            ("{ a: Infinity }", 1, 6, "no number"),
            ("{} {}", 1, 4, "trailing"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert_eq!(wrong.position, Some(Position { line, column }), "{text}: {wrong}");
            assert!(wrong.problem.contains(problem), "{wrong}");
            assert!(!wrong.problem.contains("line"), "{wrong}");
        }
        assert!(parse("").unwrap_err().position.is_none());
    }

    #[test]
    fn depth_is_refused_before_it_costs_anything() {
        for open in ["[", "{a:"] {
            let wrong = parse(&open.repeat(200_000)).unwrap_err();
            assert!(wrong.problem.contains("inside one another"), "{wrong}");
        }
        let deep = format!("{}{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        assert!(parse(&deep).is_ok());
    }
}
