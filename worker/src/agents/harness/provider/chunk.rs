//! What one event of a streamed answer says. Pure.
//!
//! **Invariants**
//! - A chunk that says more than is known here, or leaves out what others send, is read all the same.

use serde::Deserialize;
use serde_json::Value;

use super::refusal::{self, Refused};
use crate::agents::harness::{Failure, Reason, Usage};

/// What says that nothing more comes.
const DONE: &str = "[DONE]";

/// What an event says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chunk {
    /// More of the answer; empty when there is none in it.
    pub(super) text: String,
    /// The model has said all it wanted to.
    pub(super) finished: bool,
    /// What it cost.
    pub(super) usage: Option<Usage>,
    /// Nothing more comes.
    pub(super) done: bool,
}

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<ReadUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct ReadUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

impl Chunk {
    /// Reads an event's data.
    ///
    /// # Errors
    /// The failure that it tells, or that it is none.
    pub(super) fn read(data: &str, secrets: &[String]) -> Result<Self, Failure> {
        let data = data.trim();
        if data == DONE {
            return Ok(Self { done: true, ..Self::default() });
        }
        if data.is_empty() {
            return Ok(Self::default());
        }
        let Ok(read) = serde_json::from_str::<Read>(data) else {
            return Err(Failure::new(Reason::Unknown, "its answer cannot be understood"));
        };
        if let Some(error) = read.error.filter(|error| !error.is_null()) {
            return Err(refusal::failure(&Refused::midway(error), secrets));
        }
        // It was asked for one answer.
        let choice = read.choices.into_iter().flatten().next();
        let (delta, reason) = choice.map_or((None, None), |c| (c.delta, c.finish_reason));
        Ok(Self {
            text: delta.and_then(|delta| delta.content).unwrap_or_default(),
            finished: reason.is_some(),
            usage: read.usage.map(|usage| Usage {
                prompt: usage.prompt_tokens.unwrap_or_default(),
                completion: usage.completion_tokens.unwrap_or_default(),
            }),
            done: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_as_different_providers_write_them() {
        let text = |text: &str| Chunk { text: text.to_owned(), ..Chunk::default() };
        let usage = Some(Usage { prompt: 3, completion: 5 });
        for (data, expected) in [
            (r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#, text("")),
            (
                r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":null}"#,
                text("a"),
            ),
            (
                r#"{"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}],"error":null}"#,
                text(""),
            ),
            (
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
                Chunk { finished: true, ..Chunk::default() },
            ),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#,
                Chunk { usage, ..Chunk::default() },
            ),
            (r#"{"id":"x","object":"chat.completion.chunk"}"#, text("")),
            (" [DONE]", Chunk { done: true, ..Chunk::default() }),
            ("", text("")),
        ] {
            assert_eq!(Chunk::read(data, &[]), Ok(expected), "{data}");
        }
    }

    #[test]
    fn an_error_midway_is_that_failure_and_what_is_no_chunk_is_one() {
        let failed = |data| Chunk::read(data, &["k-secret".to_owned()]).unwrap_err();
        let overloaded =
            failed(r#"{"error":{"message":"busy k-secret","type":"overloaded_error"}}"#);
        assert_eq!(
            (overloaded.reason, &*overloaded.detail),
            (Reason::Overloaded, "busy [redacted]")
        );
        let limited = failed(r#"{"error":{"message":"slow down","code":429},"choices":[]}"#);
        assert_eq!((limited.reason, limited.status), (Reason::RateLimit, Some(429)));
        for data in ["{", "7", "\"x\"", r#"{"choices":7}"#] {
            assert_eq!(failed(data).reason, Reason::Unknown, "{data}");
        }
    }
}
