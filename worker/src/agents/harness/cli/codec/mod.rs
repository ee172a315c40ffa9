//! What a CLI agent says on its standard output, and what it is told on its standard input: one JSON object a line.
//!
//! ```text
//! stdout ─ bytes ─► Lines ─ line ─► Answer ─► text … text, end
//! {"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"…"}}}
//! {"type":"result","is_error":false,"result":"…","session_id":"…","usage":{…}}
//! ```
//!
//! **Invariants**
//! - How the bytes were cut into reads changes nothing.
//! - A line that is no JSON object, or none that is known, says nothing and ends nothing.
//! - What waits for its line's end is bounded, and so is what is kept of a line.

mod lines;

use serde::Serialize;
use serde_json::{Map, Value};

pub(super) use lines::{LineTooLong, Lines};

/// The longest id of a conversation that is kept: it is written into the arguments of the next program.
const LONGEST_SESSION_ID: usize = 256;
/// The members in which programs name a conversation.
const SESSION_ID_MEMBERS: [&str; 5] =
    ["session_id", "sessionId", "conversation_id", "conversationId", "thread_id"];

/// The line that asks for a turn.
pub(super) fn user_line(message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        r#type: &'a str,
        session_id: &'a str,
        parent_tool_use_id: Option<()>,
        message: Message<'a>,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        role: &'a str,
        content: &'a str,
    }
    let line = Line {
        r#type: "user",
        session_id: "",
        parent_tool_use_id: None,
        message: Message { role: "user", content: message },
    };
    let mut line = serde_json::to_vec(&line).expect("text is JSON");
    line.push(b'\n');
    line
}

/// What a turn has cost, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Read by the model.
    pub(crate) input: u64,
    /// Said by the model.
    pub(crate) output: u64,
    /// Of what was read, what it had read before.
    pub(crate) cache_read: u64,
    /// What it has put aside to be read again.
    pub(crate) cache_write: u64,
}

impl From<Usage> for super::super::Usage {
    fn from(usage: Usage) -> Self {
        let Usage { input, output, cache_read, cache_write } = usage;
        let prompt = input.saturating_add(cache_read).saturating_add(cache_write);
        Self { prompt, completion: output }
    }
}

impl Usage {
    fn read(value: &Value) -> Option<Self> {
        let usage = value.as_object()?;
        let tokens = |names: [&str; 2]| {
            names.iter().find_map(|name| usage.get(*name).and_then(Value::as_u64)).unwrap_or(0)
        };
        Some(Self {
            input: tokens(["input_tokens", "inputTokens"]),
            output: tokens(["output_tokens", "outputTokens"]),
            cache_read: tokens(["cache_read_input_tokens", "cached_input_tokens"]),
            cache_write: tokens(["cache_creation_input_tokens", "cache_write_input_tokens"]),
        })
    }
}

/// What a line adds to the answer of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing that is shown.
    Nothing,
    /// More of it.
    Text(String),
    /// It is complete, but for this text.
    End(String),
    /// There is none: what the program says of why.
    Refused(String),
}

/// The answer of one turn, as far as it was heard.
#[derive(Debug, Default)]
pub(super) struct Answer {
    has_begun: bool,
    has_text: bool,
    /// Text of another message than the last comes next.
    between_messages: bool,
    session_id: Option<String>,
    usage: Option<Usage>,
}

impl Answer {
    /// Takes a line in.
    pub(super) fn hear(&mut self, line: &[u8]) -> Heard {
        let Ok(Value::Object(said)) = serde_json::from_slice(line) else { return Heard::Nothing };
        self.has_begun = true;
        if let Some(id) = session_id(&said) {
            self.session_id = Some(id.to_owned());
        }
        if let Some(usage) = said.get("usage").and_then(Usage::read) {
            self.usage = Some(usage);
        }
        match said.get("type").and_then(Value::as_str) {
            Some("stream_event") => {
                said.get("event").map_or(Heard::Nothing, |event| self.hear_event(event))
            }
            Some("result") => self.hear_result(&said),
            // Programs that speak in whole items.
            _ => match said.get("item").map(item_text) {
                Some(Some(text)) => {
                    self.between_messages = self.has_text;
                    self.text(text)
                }
                _ => Heard::Nothing,
            },
        }
    }

    fn hear_event(&mut self, event: &Value) -> Heard {
        match event.get("type").and_then(Value::as_str) {
            Some("message_start") => {
                self.between_messages = self.has_text;
                Heard::Nothing
            }
            Some("content_block_delta") => {
                let delta = &event["delta"];
                match (delta["type"].as_str(), delta["text"].as_str()) {
                    (Some("text_delta"), Some(text)) if !text.is_empty() => self.text(text),
                    _ => Heard::Nothing,
                }
            }
            _ => Heard::Nothing,
        }
    }

    fn hear_result(&self, said: &Map<String, Value>) -> Heard {
        let result = said.get("result").and_then(Value::as_str).unwrap_or_default();
        if said.get("is_error").and_then(Value::as_bool) == Some(true) {
            return Heard::Refused(result.trim().to_owned());
        }
        // A program that streams nothing says it all at the end; one that does repeats its last message there.
        Heard::End(if self.has_text { String::new() } else { result.to_owned() })
    }

    fn text(&mut self, text: &str) -> Heard {
        self.has_text = true;
        if std::mem::take(&mut self.between_messages) {
            return Heard::Text(format!("\n\n{text}"));
        }
        Heard::Text(text.to_owned())
    }

    /// What the program calls the conversation.
    pub(super) fn session_id(&self) -> Option<&str> {
        self.session_id.as_deref()
    }

    /// What the turn has cost, if the program said so.
    pub(super) const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Whether the program has said anything of it: it repeats what it is told before it does anything else.
    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether there is text in it.
    pub(super) const fn has_text(&self) -> bool {
        self.has_text
    }

    /// Takes in the whole output of a program that writes one JSON object when it is done, or several: the answer.
    pub(super) fn hear_whole(&mut self, output: &[u8]) -> Heard {
        let mut text = String::new();
        for said in serde_json::Deserializer::from_slice(output).into_iter::<Value>() {
            let Ok(Value::Object(said)) = said else { break };
            if let Some(id) = session_id(&said) {
                self.session_id = Some(id.to_owned());
            }
            let usage = said.get("usage").or_else(|| said.get("stats"));
            if let Some(usage) = usage.and_then(Usage::read) {
                self.usage = Some(usage);
            }
            let members = ["message", "content", "result", "response", "text"];
            let found = members.iter().filter_map(|name| said.get(*name)).map(collected);
            if let Some(found) = found.into_iter().find(|found| !found.is_empty()) {
                if said.get("is_error").and_then(Value::as_bool) == Some(true) {
                    return Heard::Refused(found);
                }
                text = found;
            }
        }
        if text.is_empty() && self.session_id.is_none() {
            text = String::from_utf8_lossy(output).into_owned();
        }
        text.truncate(text.trim_end().len());
        self.has_text |= !text.is_empty();
        Heard::End(text)
    }
}

/// The text in a value, wherever programs put it. The parser has bounded how deep it goes.
fn collected(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(collected).collect(),
        Value::Object(members) => ["response", "text", "result", "content", "message"]
            .iter()
            .find_map(|name| members.get(*name))
            .map(collected)
            .unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

fn item_text(item: &Value) -> Option<&str> {
    let kind = item["type"].as_str().unwrap_or_default();
    let text = item["text"].as_str().filter(|text| !text.is_empty())?;
    (kind.is_empty() || kind.contains("message")).then_some(text)
}

/// An id that could be an argument and nothing else.
fn session_id(said: &Map<String, Value>) -> Option<&str> {
    let named =
        SESSION_ID_MEMBERS.iter().find_map(|name| said.get(*name).and_then(Value::as_str))?.trim();
    is_session_id(named).then_some(named)
}

/// Whether this may follow `--resume`: it is no option, and no more than a word.
pub(super) fn is_session_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= LONGEST_SESSION_ID
        && !id.starts_with('-')
        && id.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
