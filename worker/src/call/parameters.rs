//! A call's parameters: where they are written, and that they are JSON before anybody is asked.
//!
//! **Invariants**
//! - They go to the gateway as they were written: no number is rounded, no key reordered.

use std::io::{self, Read as _};
use std::path::PathBuf;

use serde_json::Value;
use serde_json::value::RawValue;

/// The longest parameters, in bytes: a gateway takes no longer message.
const LONGEST: u64 = 25 * 1024 * 1024;

/// Why there are no parameters.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoParameters {
    /// They are no JSON.
    #[error("{place}:{line}:{column}: the parameters are no JSON: {reason}")]
    NoJson {
        /// Where they are written.
        place: String,
        /// Which line, the first being 1.
        line: usize,
        /// Which column, the first being 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// They cannot be read.
    #[error("could not read the parameters from {place}")]
    Read {
        /// Where they are written.
        place: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No gateway would take them.
    #[error("{place}: the parameters are longer than {LONGEST} bytes")]
    TooLong {
        /// Where they are written.
        place: String,
    },
}

/// A call's parameters.
#[derive(Debug)]
pub(super) struct Parameters {
    text: Box<RawValue>,
    idempotency_key: Option<String>,
}

impl Parameters {
    /// Reads what `word` says or names: JSON, `@FILE`, or `-`.
    ///
    /// # Errors
    /// [`NoParameters`].
    pub(super) fn read(word: &str) -> Result<Self, NoParameters> {
        if word == "-" {
            return Self::parse(&contents(io::stdin().lock(), "stdin")?, "stdin");
        }
        let Some(path) = word.strip_prefix('@').map(PathBuf::from) else {
            return Self::parse(word, "--params");
        };
        let place = path.display().to_string();
        let file = std::fs::File::open(&path)
            .map_err(|source| NoParameters::Read { place: place.clone(), source })?;
        Self::parse(&contents(file, &place)?, &place)
    }

    fn parse(text: &str, place: &str) -> Result<Self, NoParameters> {
        let failed = |error: serde_json::Error| {
            let (line, column) = (error.line(), error.column());
            let words = error.to_string();
            let end = words.rfind(" at line ").unwrap_or(words.len());
            NoParameters::NoJson {
                place: place.to_owned(),
                line,
                column,
                reason: words[..end].to_owned(),
            }
        };
        let raw: &RawValue = serde_json::from_str(text).map_err(failed)?;
        let value: Value = serde_json::from_str(text).map_err(failed)?;
        let key = value.get("idempotencyKey").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { text: raw.to_owned(), idempotency_key: key })
    }

    /// What a gateway would know a second call by.
    pub(super) fn idempotency_key(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }

    /// As they were written.
    pub(super) fn into_text(self) -> Box<RawValue> {
        self.text
    }
}

fn contents(from: impl io::Read, place: &str) -> Result<String, NoParameters> {
    let mut text = String::new();
    from.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|source| NoParameters::Read { place: place.to_owned(), source })?;
    if text.len() as u64 > LONGEST {
        return Err(NoParameters::TooLong { place: place.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_stay_as_they_were_written() {
        let written = r#"{"z": 1e400, "a": 12345678901234567890123, "idempotencyKey": "k"}"#;
        let read = Parameters::read(r#"{"z":1.50,"a":2}"#).unwrap();
        assert_eq!((read.idempotency_key(), read.text.get()), (None, r#"{"z":1.50,"a":2}"#));
        let refused = Parameters::read(written).unwrap_err().to_string();
        assert!(refused.starts_with("--params:1:"), "no gateway could read that: {refused}");
        let read = Parameters::read(r#" {"idempotencyKey": "k"} "#).unwrap();
        assert_eq!(read.idempotency_key(), Some("k"));
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let refused = Parameters::read("{\n  \"a\": nope}").unwrap_err().to_string();
        assert_eq!(refused, "--params:2:9: the parameters are no JSON: expected ident");
        let missing = Parameters::read("@/nowhere/params.json").unwrap_err().to_string();
        assert_eq!(missing, "could not read the parameters from /nowhere/params.json");
    }
}
