//! `POST /v1/chat/completions`: the last user message, answered by an agent that knows what came before it, whole or
//! streamed.
//!
//! ```text
//! request ─► its session (`chosen`) ─► a run in the lane of that session ─► followed here, and told to everybody
//!                                         └ too many wait there: 429
//! ```
//!
//! **Invariants**
//! - A completion is a run like any other: one at a time in its session, whichever way it was asked for and in
//!   whichever generation, and what was said is in the session's history.
//! - A client that leaves ends its run, also one that waits for its lane.
//! - An unknown agent is a 404, and neither that nor any other refusal leaves a trace on disk.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode, body::Incoming};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Gateway;
use super::answer::{self, Response};
use super::chosen::Chosen;
use super::conversation::{Conversation, Message};
use super::events::{Events, ShowUsage};
use super::models;
use super::upload;
use crate::agents::harness::{self, Turn};
use crate::agents::{Asked, Follower, Heard};
use crate::methods::now_ms;
use crate::registry::DEFAULT_ALIAS;

/// How long the echo agent is to think before each word of this answer, in ms.
const ECHO_DELAY: HeaderName = HeaderName::from_static("x-holdfast-echo-delay-ms");
/// The longest such delay.
const LONGEST_ECHO_DELAY_MS: u64 = 60_000;
/// In how many seconds a client may try again whose session has too many waiting.
const RETRY_IN: HeaderValue = HeaderValue::from_static("1");

/// What of a request is read; the rest is for models that have it.
#[derive(Debug, Deserialize)]
struct Ask {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    /// Who is at the other end: each has a session.
    #[serde(default)]
    user: Option<Value>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// What an answer cost.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl Usage {
    /// As whoever answered has counted; otherwise a word, and a piece of the answer, are a token each.
    pub(super) fn of(counted: Option<harness::Usage>, words: usize, pieces: usize) -> Self {
        let number = |number| u64::try_from(number).unwrap_or(u64::MAX);
        let guessed = harness::Usage { prompt: number(words), completion: number(pieces) };
        let harness::Usage { prompt, completion } = counted.unwrap_or(guessed);
        Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt.saturating_add(completion),
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
    if gateway.knowledge.harness(&registry, agent).await.is_none() {
        return models::unknown(&model);
    }
    let is_alias = agent == DEFAULT_ALIAS && !registry.agents().iter().any(|id| id == agent);
    let agent = if is_alias { registry.default_agent() } else { agent };
    let user = ask.user.as_ref().and_then(Value::as_str);
    let chosen = match Chosen::by(&head.headers, user, agent) {
        Ok(chosen) => chosen,
        Err(invalid) => return answer::invalid(&invalid.to_string()),
    };
    // The session's own agent answers, which need not be the model's.
    let Some(harness) = gateway.knowledge.harness(&registry, chosen.session.agent()).await else {
        return models::unknown(&format!("{}/{}", models::MODEL, chosen.session.agent()));
    };
    drop(registry);
    let conversation = Conversation::of(ask.messages.unwrap_or_default());
    let Some(Conversation { message, earlier }) = conversation else {
        return answer::invalid("Missing user message in `messages`.");
    };
    let about = About { id: completion_id(), model, words: message.split_whitespace().count() };
    let asked = Asked {
        run: about.id.clone(),
        session: chosen.session,
        harness,
        turn: Turn { message, word_delay },
        earlier,
        // The protocol knows no repeats.
        key: None,
    };
    let Some(follower) = gateway.knowledge.runs.begin_followed(asked, chosen.novelty) else {
        return lane_full();
    };
    let usage_wanted =
        ask.stream_options.and_then(|options| options.include_usage).unwrap_or_default();
    if ask.stream.unwrap_or_default() {
        let usage = if usage_wanted { ShowUsage::Yes } else { ShowUsage::No };
        answer::events(Events::new(follower, &about, usage))
    } else {
        whole(follower, about).await
    }
}

/// What is known of an answer before it is there.
#[derive(Debug)]
pub(super) struct About {
    /// That of the completion, and of the agent's run.
    pub(super) id: String,
    pub(super) model: String,
    /// How many the message has.
    pub(super) words: usize,
}

fn lane_full() -> Response {
    let message = "Too many messages wait in this session; retry when one was answered.";
    let mut response = answer::refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
    response.headers_mut().insert(RETRY_AFTER, RETRY_IN);
    response
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

/// The whole answer; of a run that somebody has ended, what it had said by then.
async fn whole(mut follower: Follower, about: About) -> Response {
    let mut content = String::new();
    let (pieces, counted) = loop {
        match poll_fn(|context| follower.poll_heard(context)).await {
            Heard::Text(text) => content.push_str(&text),
            Heard::End { pieces, usage } => break (pieces, usage),
            Heard::Failed(reason) => {
                return answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, "api_error", &reason);
            }
        }
    };
    let About { id, model, words } = about;
    let message = Said { role: "assistant", content };
    answer::json(
        StatusCode::OK,
        &Completion {
            id,
            object: "chat.completion",
            created: now_ms() / 1000,
            model: &model,
            choices: [Choice { index: 0, message, finish_reason: "stop" }],
            usage: Usage::of(counted, words, pieces),
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

#[cfg(test)]
mod tests {
    use super::*;

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
