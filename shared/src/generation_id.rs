//! How generations are told apart, in words, logs and messages alike.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One numbered life of the worker: `g1`, `g2`, …; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GenerationId(u64);

impl GenerationId {
    /// The generation with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The generation that comes after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// A word that was meant as a generation and is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no generation; write it as g7")]
pub struct NotAGeneration {
    word: String,
}

impl FromStr for GenerationId {
    type Err = NotAGeneration;

    fn from_str(word: &str) -> Result<Self, NotAGeneration> {
        word.strip_prefix('g')
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| NotAGeneration { word: word.chars().take(40).collect() })
    }
}

impl TryFrom<String> for GenerationId {
    type Error = NotAGeneration;

    fn try_from(word: String) -> Result<Self, NotAGeneration> {
        word.parse()
    }
}

impl From<GenerationId> for String {
    fn from(id: GenerationId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_written_and_read_as_g7() {
        assert_eq!(GenerationId::new(7).to_string(), "g7");
        assert_eq!("g7".parse(), Ok(GenerationId::new(7)));
        for word in ["7", "g", "g-1", "g+1", "G7", "g7 ", "g99999999999999999999"] {
            assert!(word.parse::<GenerationId>().is_err(), "{word}");
        }
    }
}
