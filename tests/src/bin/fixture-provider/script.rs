//! What the provider does when a model is asked, by the model's name.
//!
//! | model | does |
//! | --- | --- |
//! | `echo` | says the last message back, a word at a time, and what it cost |
//! | `thoughtful` | says `one`, having read 5 tokens and written 700 |
//! | `cut` | says `one`, half an event, and breaks the connection |
//! | `stuck` | says `one`, and then nothing |
//! | `endless` | says `word ` for as long as somebody listens |
//! | `silent` | never answers |
//! | `empty` | ends without a word |
//! | `unauthorized` | 401, with the key that it was shown |
//! | `unpaid` | 429, `insufficient_quota` |
//! | `limited` | 429, to be asked again in an hour |
//! | `limited-once` | 429, to be asked again at once; then as `echo` |
//! | `overloaded` | 529 without a word |
//! | `long` | 400, `context_length_exceeded` |
//! | any other | 404 |

use hyper::StatusCode;
use serde_json::{Value, json};

/// What an answer is made of.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// An error, with `Retry-After` if there is one.
    Refuse(StatusCode, Option<&'static str>, Value),
    /// These portions, and then that.
    Say(Vec<String>, Then),
    /// Nothing, not even a head.
    Silence,
}

/// What follows the last portion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// A proper end.
    End,
    /// The connection breaks.
    Break,
    /// Nothing.
    Wait,
    /// The last portion, again and again.
    Repeat,
}

/// What follows a request, of which there were so many for the same model before.
pub(super) fn act(request: &Value, authorization: &str, before: usize) -> Act {
    let model = request["model"].as_str().unwrap_or_default();
    let refuse = |status: u16, retry, error| {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
        Act::Refuse(status, retry, json!({ "error": error }))
    };
    match model {
        "echo" => echo(request),
        "limited-once" if before > 0 => echo(request),
        "limited-once" => refuse(429, Some("0"), json!({"message": "slow down"})),
        "limited" => refuse(429, Some("3600"), json!({"message": "slow down"})),
        "thoughtful" => {
            let portions = [said("one"), finished(), cost(5, 700), "data: [DONE]\n\n".to_owned()];
            Act::Say(portions.into(), Then::End)
        }
        "cut" => Act::Say(vec![said("one"), "data: {\"choi".to_owned()], Then::Break),
        "stuck" => Act::Say(vec![said("one")], Then::Wait),
        "endless" => Act::Say(vec![said("word ")], Then::Repeat),
        "empty" => Act::Say(vec![finished(), "data: [DONE]\n\n".to_owned()], Then::End),
        "silent" => Act::Silence,
        "unauthorized" => {
            let key = authorization.trim_start_matches("Bearer ");
            refuse(
                401,
                None,
                json!({"message": format!("invalid key {key}"), "code": "invalid_api_key"}),
            )
        }
        "unpaid" => {
            let message =
                "You exceeded your current quota, please check your plan and billing details.";
            refuse(429, None, json!({"message": message, "code": "insufficient_quota"}))
        }
        "overloaded" => refuse(529, None, json!({})),
        "long" => {
            let message = "maximum context length is 8 tokens";
            refuse(400, None, json!({"message": message, "code": "context_length_exceeded"}))
        }
        _ => refuse(404, None, json!({"message": format!("no model {model}")})),
    }
}

fn echo(request: &Value) -> Act {
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    let words = |message: &Value| {
        let text = message["content"].as_str().unwrap_or_default();
        text.split_inclusive(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let read: usize = messages.iter().map(|message| words(message).len()).sum();
    let answer = messages.last().map(words).unwrap_or_default();
    let mut portions: Vec<String> = answer.iter().map(|word| said(word)).collect();
    portions.extend([finished(), cost(read, answer.len()), "data: [DONE]\n\n".to_owned()]);
    Act::Say(portions, Then::End)
}

fn said(text: &str) -> String {
    event(&json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}))
}

fn finished() -> String {
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
}

fn cost(read: usize, written: usize) -> String {
    event(&json!({"choices": [], "usage": {
        "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
    }}))
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}
