//! `chat.history`, `sessions.get` and `sessions.preview`: what was said in a session, in order.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Knowledge, Refusal, now_ms, store_failed};
use crate::agents::{SessionKey, fallback};
use crate::shape::{Field, Shape};
use crate::state::store::messages::{HistoryWindow, Message};

/// How many messages are shown unless fewer or more are asked for.
const LIMIT: u32 = 200;
/// The most that can be asked for.
const MOST: u32 = 1000;
/// How much of a history is shown, in bytes.
const MAX_BYTES: usize = 6 * 1024 * 1024;
/// How much of one text is shown, in characters.
const MAX_CHARS: usize = 8000;
/// Of how many sessions a preview is shown, how many messages, and how much of one, in characters.
const PREVIEW: (usize, u32, usize) = (64, 12, 240);

pub(super) static HISTORY_PARAMS: Shape = Shape::Object(&[
    Field::required("sessionKey", Shape::Text),
    Field::optional("limit", Shape::Integer { least: 1 }),
    Field::optional("maxChars", Shape::Integer { least: 1 }),
]);

pub(super) static PREVIEW_PARAMS: Shape = Shape::Object(&[
    Field::required("keys", Shape::List(&Shape::Text)),
    Field::optional("limit", Shape::Integer { least: 1 }),
    Field::optional("maxChars", Shape::Integer { least: 20 }),
]);

pub(super) static GET_PARAMS: Shape = Shape::Object(&[
    Field::optional("key", Shape::Text),
    Field::optional("sessionKey", Shape::Text),
    Field::optional("limit", Shape::Integer { least: 1 }),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct History {
    session_key: String,
    limit: Option<u64>,
    max_chars: Option<usize>,
}

pub(super) async fn history(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = show_history(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

async fn show_history(knowledge: &Knowledge, call: &Call) -> Result<Value, Refusal> {
    let History { session_key, limit, max_chars } = call.read()?;
    let key = SessionKey::named(&session_key);
    let mut shown = json!({"sessionKey": session_key, "messages": [], "thinkingLevel": "off"});
    let found =
        knowledge.store.session(key.as_str()).await.map_err(|error| store_failed(&error))?;
    let Some(session) = found else { return Ok(shown) };
    let max_chars = max_chars.unwrap_or(MAX_CHARS);
    let messages = said(knowledge, &key, limit).await?;
    shown["messages"] = messages.iter().map(|message| whole(message, max_chars)).collect();
    shown["sessionId"] = json!(session.session_id);
    for name in ["thinkingLevel", "fastMode", "verboseLevel"] {
        if let Some(value) = session.attributes.get(name) {
            shown[name] = value.clone();
        }
    }
    Ok(shown)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Get {
    key: Option<String>,
    session_key: Option<String>,
    limit: Option<u64>,
}

pub(super) async fn get(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = show(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

async fn show(knowledge: &Knowledge, call: &Call) -> Result<Value, Refusal> {
    let Get { key, session_key, limit } = call.read()?;
    let key = key.or(session_key).ok_or_else(|| {
        Refusal::invalid("invalid sessions.get params: must have required property 'key'")
    })?;
    let key = SessionKey::named(&key);
    let messages = said(knowledge, &key, limit).await?;
    let shown: Vec<Value> = messages.iter().map(|message| whole(message, usize::MAX)).collect();
    let mut shown = json!({"messages": shown});
    let found = knowledge.store.session(key.as_str()).await;
    let session = found.map_err(|error| store_failed(&error))?;
    if let Some(kept) = session.as_ref().and_then(|s| s.attributes.get(fallback::ATTRIBUTE)) {
        shown[fallback::ATTRIBUTE] = kept.clone();
    }
    Ok(shown)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    keys: Vec<String>,
    limit: Option<u64>,
    max_chars: Option<usize>,
}

pub(super) async fn preview(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = show_previews(&knowledge, &call).await;
    call.reply.outcome(outcome);
}

async fn show_previews(knowledge: &Knowledge, call: &Call) -> Result<Value, Refusal> {
    let Preview { keys, limit, max_chars } = call.read()?;
    if keys.is_empty() {
        let message = "invalid sessions.preview params: at /keys: must NOT have fewer than 1 items";
        return Err(Refusal::invalid(message));
    }
    let (most_keys, usual_limit, usual_chars) = PREVIEW;
    let limit = limit.unwrap_or_else(|| u64::from(usual_limit));
    let max_chars = max_chars.unwrap_or(usual_chars);
    let mut previews = Vec::new();
    for name in keys.into_iter().take(most_keys) {
        let key = SessionKey::named(&name);
        let found = knowledge.store.session(key.as_str()).await;
        if found.map_err(|error| store_failed(&error))?.is_none() {
            previews.push(json!({"key": name, "status": "missing", "items": []}));
            continue;
        }
        let messages = said(knowledge, &key, Some(limit)).await?;
        let items: Vec<Value> = messages.iter().map(|message| short(message, max_chars)).collect();
        let status = if items.is_empty() { "empty" } else { "ok" };
        previews.push(json!({"key": name, "status": status, "items": items}));
    }
    Ok(json!({"ts": now_ms(), "previews": previews}))
}

/// The latest messages, as many as are asked for.
async fn said(
    knowledge: &Knowledge,
    key: &SessionKey,
    limit: Option<u64>,
) -> Result<Vec<Message>, Refusal> {
    let limit = limit.map_or(LIMIT, |limit| u32::try_from(limit).unwrap_or(MOST).min(MOST));
    let window = HistoryWindow { limit, max_bytes: MAX_BYTES, before_seq: None };
    knowledge.store.history(key.as_str(), window).await.map_err(|error| store_failed(&error))
}

fn whole(message: &Message, max_chars: usize) -> Value {
    let mut shown = json!({
        "role": message.role,
        "content": content(message),
        "timestamp": message.at_ms,
        "__openclaw": {"seq": message.seq},
    });
    for part in shown["content"].as_array_mut().into_iter().flatten() {
        if let Some(text) = part["text"].as_str().and_then(|text| cut(text, max_chars)) {
            part["text"] = json!(format!("{text}\n...(truncated)..."));
        }
    }
    shown
}

fn short(message: &Message, max_chars: usize) -> Value {
    let content = content(message);
    let texts: Vec<&str> =
        content.as_array().into_iter().flatten().filter_map(|part| part["text"].as_str()).collect();
    let text = texts.join("\n");
    // The mark that it was cut counts as one of the characters.
    let text = match cut(&text, max_chars) {
        Some(_) => format!("{}…", cut(&text, max_chars - 1).unwrap_or_default()),
        None => text,
    };
    json!({"role": message.role, "text": text})
}

/// Its content. What is no JSON (nobody writes such a thing) is shown as text, rather than hidden.
fn content(message: &Message) -> Value {
    serde_json::from_str(&message.content)
        .unwrap_or_else(|_| json!([{"type": "text", "text": message.content}]))
}

/// The beginning of a text that is too long; `None` when it is not.
fn cut(text: &str, max_chars: usize) -> Option<&str> {
    text.char_indices().nth(max_chars).map(|(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message {
            seq: 3,
            role: "user".to_owned(),
            content: json!([{"type": "text", "text": text}]).to_string(),
            run_id: None,
            at_ms: 7,
        }
    }

    #[test]
    fn a_text_is_shown_as_far_as_was_asked_for_and_says_when_it_goes_on() {
        let shown = whole(&message("häuser"), 6);
        assert_eq!(
            shown,
            json!({"role": "user", "content": [{"type": "text", "text": "häuser"}],
                "timestamp": 7, "__openclaw": {"seq": 3}})
        );
        let cut = whole(&message("häuser"), 2);
        assert_eq!(cut["content"][0]["text"], "hä\n...(truncated)...");
        assert_eq!(short(&message("häuser"), 6)["text"], "häuser");
        assert_eq!(short(&message("häuser"), 5)["text"], "häus…");
    }
}
