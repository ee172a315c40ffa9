//! `POST /v1/chat/completions`: the last user message, answered by an agent, whole or streamed.
//!
//! **Invariants**
//! - A streamed answer is pulled: a client that reads slowly slows its agent down, and one that
//!   leaves ends the run.
//! - An unknown agent is a 404 and leaves no trace on disk.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Request, StatusCode, body::Incoming};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Gateway;
use super::answer::{self, Response};
use super::models;
use super::upload;
use crate::agents::harness::{Piece, Run, Turn};
use crate::methods::now_ms;

/// How long the echo agent is to think before each word of this answer, in ms.
const ECHO_DELAY: HeaderName = HeaderName::from_static("x-holdfast-echo-delay-ms");
/// The longest such delay.
const LONGEST_ECHO_DELAY_MS: u64 = 60_000;
/// How much of a fast answer goes out at once, in bytes.
const BATCH: usize = 16 * 1024;

/// What of a request is read; the rest is for models that have it.
#[derive(Debug, Deserialize)]
struct Ask {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    role: Option<String>,
    /// A string, or a list of parts.
    #[serde(default)]
    content: Value,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

impl Usage {
    fn of(prompt: usize, completion: usize) -> Self {
        Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt + completion,
        }
    }
}

/// Answers one request, whose token was found right.
pub(super) async fn answer(gateway: Arc<Gateway>, request: Request<Incoming>) -> Response {
    let (head, body) = request.into_parts();
    let word_delay = match echo_delay(&head.headers) {
        Ok(delay) => delay,
        Err(message) => return answer::closing(answer::invalid(message)),
    };
    let body = match upload::receive(body, gateway.limits.body_timeout).await {
        Ok(body) => body,
        Err(failed) => return failed.response(),
    };
    let ask: Ask = match serde_json::from_slice(&body) {
        Ok(ask) => ask,
        Err(error) => return answer::invalid(&error.to_string()),
    };
    drop(body);
    let model = ask.model.unwrap_or_else(|| models::MODEL.to_owned());
    let Some(agent) = models::agent_of(&model) else {
        return answer::invalid("Invalid `model`. Use `openclaw` or `openclaw/<agentId>`.");
    };
    let registry = gateway.registry();
    let Some(harness) = gateway.knowledge.harness(&registry, agent).await else {
        return models::unknown(&model);
    };
    let Some(message) = last_user_message(ask.messages.unwrap_or_default()) else {
        return answer::invalid("Missing user message in `messages`.");
    };
    let prompt = message.split_whitespace().count();
    let run = harness.run(Turn { message, word_delay });
    drop(registry);
    let usage_wanted =
        ask.stream_options.and_then(|options| options.include_usage).unwrap_or_default();
    if ask.stream.unwrap_or_default() {
        let usage = if usage_wanted { ShowUsage::Yes } else { ShowUsage::No };
        answer::events(Events::new(run, &model, prompt, usage))
    } else {
        whole(run, &model, prompt).await
    }
}

fn echo_delay(headers: &HeaderMap) -> Result<Option<Duration>, &'static str> {
    let Some(value) = headers.get(ECHO_DELAY) else { return Ok(None) };
    value
        .to_str()
        .ok()
        .and_then(|value| value.parse().ok())
        .filter(|ms| *ms <= LONGEST_ECHO_DELAY_MS)
        .map(|ms| Some(Duration::from_millis(ms)))
        .ok_or("`x-holdfast-echo-delay-ms` is a whole number of ms, at most 60000.")
}

/// The text of the last message a user said; `None` when there is none or it is empty.
fn last_user_message(messages: Vec<Message>) -> Option<String> {
    let is_user = |message: &Message| message.role.as_deref() == Some("user");
    let last = messages.into_iter().rev().find(is_user)?;
    let text = match last.content {
        Value::String(text) => text,
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter(|part| matches!(part["type"].as_str(), Some("text" | "input_text")))
                .filter_map(|part| part["text"].as_str())
                .collect();
            texts.join("\n")
        }
        _ => return None,
    };
    if text.trim().is_empty() { None } else { Some(text) }
}

async fn whole(mut run: Run, model: &str, prompt: usize) -> Response {
    let mut content = String::new();
    let mut completion = 0;
    let ended = poll_fn(|context| {
        loop {
            match ready!(run.poll_piece(context)) {
                Piece::Text(piece) => {
                    content.push_str(piece);
                    completion += 1;
                }
                Piece::End => return Poll::Ready(Ok(())),
                Piece::Failed(reason) => return Poll::Ready(Err(reason.to_owned())),
            }
        }
    });
    if let Err(reason) = ended.await {
        return answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, "api_error", &reason);
    }
    let message = Said { role: "assistant", content };
    answer::json(
        StatusCode::OK,
        &Completion {
            id: completion_id(),
            object: "chat.completion",
            created: now_ms() / 1000,
            model,
            choices: [Choice { index: 0, message, finish_reason: "stop" }],
            usage: Usage::of(prompt, completion),
        },
    )
}

/// A whole answer.
#[derive(Debug, Serialize)]
struct Completion<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice; 1],
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Choice {
    index: u64,
    message: Said,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Said {
    role: &'static str,
    content: String,
}

fn completion_id() -> String {
    format!("chatcmpl_{}", uuid::Uuid::new_v4())
}

/// Whether a stream tells what it cost (`stream_options.include_usage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShowUsage {
    Yes,
    No,
}

/// An answer as server-sent events.
#[derive(Debug)]
pub(super) struct Events {
    run: Run,
    step: Step,
    /// What all events begin with.
    envelope: String,
    usage: ShowUsage,
    prompt: usize,
    completion: usize,
}

/// What the next event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Role,
    Piece,
    Finish,
    Over,
}

impl Events {
    fn new(run: Run, model: &str, prompt: usize, usage: ShowUsage) -> Self {
        let model = Value::from(model);
        let envelope = format!(
            r#"data: {{"id":"{}","object":"chat.completion.chunk","created":{},"model":{model},"#,
            completion_id(),
            now_ms() / 1000,
        );
        Self { run, step: Step::Role, envelope, usage, prompt, completion: 0 }
    }

    /// The events that are there now, as one chunk; `None` after the last one.
    pub(super) fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = String::new();
        while out.len() < BATCH {
            match self.step {
                Step::Role => {
                    self.choice(&mut out, r#"{"role":"assistant"}"#, "null");
                    self.step = Step::Piece;
                }
                Step::Piece => match self.run.poll_piece(context) {
                    Poll::Ready(Piece::Text(piece)) => {
                        let delta = format!(r#"{{"content":{}}}"#, Value::from(piece));
                        self.completion += 1;
                        self.choice(&mut out, &delta, "null");
                    }
                    Poll::Ready(Piece::End) => self.step = Step::Finish,
                    Poll::Ready(Piece::Failed(reason)) => {
                        let error = json!({"error": {"message": reason, "type": "api_error"}});
                        write!(out, "data: {error}\n\ndata: [DONE]\n\n")
                            .expect("a string takes everything");
                        self.step = Step::Over;
                    }
                    Poll::Pending => break,
                },
                Step::Finish => {
                    self.choice(&mut out, "{}", r#""stop""#);
                    self.cost(&mut out);
                    out.push_str("data: [DONE]\n\n");
                    self.step = Step::Over;
                }
                Step::Over => break,
            }
        }
        match (out.is_empty(), self.step) {
            (false, _) => Poll::Ready(Some(out.into())),
            (true, Step::Over) => Poll::Ready(None),
            (true, _) => Poll::Pending,
        }
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    fn choice(&self, out: &mut String, delta: &str, finish_reason: &str) {
        // With `include_usage`, each chunk has the field, and only the last one a value.
        let usage = match self.usage {
            ShowUsage::Yes => r#","usage":null"#,
            ShowUsage::No => "",
        };
        let envelope = &self.envelope;
        write!(
            out,
            "{envelope}\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish_reason}}}]{usage}}}\n\n"
        )
        .expect("a string takes everything");
    }

    fn cost(&self, out: &mut String) {
        if self.usage == ShowUsage::Yes {
            let usage = json!(Usage::of(self.prompt, self.completion));
            write!(out, "{}\"choices\":[],\"usage\":{usage}}}\n\n", self.envelope)
                .expect("a string takes everything");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: Value) -> Message {
        Message { role: Some(role.to_owned()), content }
    }

    #[test]
    fn the_last_user_message_is_answered_whatever_its_form() {
        let said = |messages| last_user_message(messages);
        let parts = json!([
            {"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"},
        ]);
        assert_eq!(said(vec![message("user", json!("x"))]).as_deref(), Some("x"));
        assert_eq!(said(vec![message("user", parts)]).as_deref(), Some("a\nb"));
        let both = vec![
            message("user", json!("first")),
            message("assistant", json!("no")),
            message("user", json!("last")),
            message("assistant", json!("no")),
        ];
        assert_eq!(said(both).as_deref(), Some("last"));
        assert_eq!(said(vec![]), None);
        assert_eq!(said(vec![message("system", json!("x"))]), None);
        for nothing in [json!(""), json!("  "), json!(null), json!(7), json!([])] {
            assert_eq!(said(vec![message("user", nothing)]), None);
        }
    }

    #[test]
    fn the_echo_delay_is_bounded() {
        let delay = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ECHO_DELAY, value.parse().unwrap());
            echo_delay(&headers)
        };
        assert_eq!(delay("250"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(echo_delay(&HeaderMap::new()), Ok(None));
        for value in ["", "-1", "1.5", "60001", "1s"] {
            assert!(delay(value).is_err(), "{value}");
        }
    }
}
