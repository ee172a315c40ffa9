//! The messages of a completion's request: the one to answer, which is the user's last, and what came before it.
//!
//! | role | before the last user message it is |
//! | --- | --- |
//! | `system`, `developer` | what the agent is told besides what its workspace says |
//! | `user`, `assistant` | what was said, in place of the session's history |
//! | any other | left out |
//!
//! **Invariants**
//! - What follows the last user message is not read, and neither is what has no text.

use serde::Deserialize;
use serde_json::Value;

use crate::agents::harness::{Earlier, Role, Said};

/// One message.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    role: Option<String>,
    /// A string, or a list of parts.
    #[serde(default)]
    content: Value,
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conversation {
    /// What is to be answered.
    pub(super) message: String,
    /// What came before it.
    pub(super) earlier: Earlier,
}

impl Conversation {
    /// Of these messages; `None` when there is none of the user, or the last one is empty.
    pub(super) fn of(mut messages: Vec<Message>) -> Option<Self> {
        let is_user = |message: &Message| message.role.as_deref() == Some("user");
        let last = messages.iter().rposition(is_user)?;
        messages.truncate(last + 1);
        let message = messages.pop()?.text()?;
        let mut earlier = Earlier::default();
        for message in messages {
            let role = message.role.clone().unwrap_or_default();
            let Some(text) = message.text() else { continue };
            match (Role::named(&role), role.as_str()) {
                (Some(by), _) => earlier.said.push(Said { by, text }),
                (None, "system" | "developer") => earlier.system.push(text),
                (None, _) => {}
            }
        }
        Some(Self { message, earlier })
    }
}

impl Message {
    /// What it says; `None` when that is nothing.
    fn text(self) -> Option<String> {
        let text = match self.content {
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
        (!text.trim().is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conversation(messages: Value) -> Option<Conversation> {
        Conversation::of(serde_json::from_value(messages).unwrap())
    }

    #[test]
    fn the_last_user_message_is_answered_whatever_its_form() {
        let said = |messages| conversation(messages).map(|conversation| conversation.message);
        let user = |content: Value| json!([{"role": "user", "content": content}]);
        let parts = json!([
            {"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"},
        ]);
        assert_eq!(said(user(json!("x"))).as_deref(), Some("x"));
        assert_eq!(said(user(parts)).as_deref(), Some("a\nb"));
        assert_eq!(said(json!([])), None);
        assert_eq!(said(json!([{"role": "system", "content": "x"}])), None);
        for nothing in [json!(""), json!("  "), json!(null), json!(7), json!([])] {
            assert_eq!(said(user(nothing)), None);
        }
        let empty_at_last = json!([
            {"role": "user", "content": "first"}, {"role": "user", "content": " "},
        ]);
        assert_eq!(said(empty_at_last), None);
    }

    #[test]
    fn what_came_before_it_is_known_in_order_and_what_comes_after_is_not() {
        let found = conversation(json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": null, "tool_calls": []},
            {"role": "tool", "content": "42"},
            {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
            {"role": "developer", "content": "be kind"},
            {"content": "nobody"},
            {"role": "user", "content": "last"},
            {"role": "assistant", "content": "no"},
        ]))
        .unwrap();
        let said = |by, text: &str| Said { by, text: text.to_owned() };
        assert_eq!(
            found,
            Conversation {
                message: "last".to_owned(),
                earlier: Earlier {
                    system: vec!["be brief".to_owned(), "be kind".to_owned()],
                    said: vec![said(Role::User, "first"), said(Role::Assistant, "yes")],
                },
            }
        );
    }
}
