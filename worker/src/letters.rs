//! What the letters say that reach a client's connection by the post: answers of calls that took their
//! time, and events for everybody.
//!
//! A letter is a line that says what it is, then text that is ready for the wire but for what only the
//! connection knows:
//!
//! ```text
//! final "7"          interim "7"          event operator.read
//! {"type":"res",…}   {"type":"res",…}     {"type":"event",…     ← the owner adds `,"seq":N}`
//! ```
//!
//! **Invariants**
//! - Reading one allocates nothing but the id: an event may go to thousands of connections.
//! - Both ends of a migration link read these: a kind that is unknown is skipped, never guessed at.

use handoff::migrate::Post;
use serde::Serialize;

use crate::frames;
use crate::identity::Needs;

/// A letter, as the owner of the connection reads it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Letter<'a> {
    /// The last answer to a request.
    Final {
        /// The request's id.
        id: String,
        /// The whole frame.
        frame: &'a str,
    },
    /// An answer to a request that is followed by another.
    Interim {
        /// The request's id.
        id: String,
        /// The whole frame.
        frame: &'a str,
    },
    /// Something that happened.
    Event {
        /// What a client must hold to hear of it.
        needs: Needs,
        /// The frame without its end.
        opened: &'a str,
    },
}

impl<'a> Letter<'a> {
    /// Reads a letter; `None` for one of a kind that is not known here.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let (line, rest) = text.split_once('\n')?;
        let (kind, about) = line.split_once(' ')?;
        let id = || serde_json::from_str(about).ok();
        match kind {
            "final" => Some(Self::Final { id: id()?, frame: rest }),
            "interim" => Some(Self::Interim { id: id()?, frame: rest }),
            "event" => Some(Self::Event { needs: Needs::of_name(about)?, opened: rest }),
            _ => None,
        }
    }
}

/// The last answer to a request.
pub(crate) fn last(id: &str, frame: &str) -> String {
    format!("final {}\n{frame}", frames::written(&id))
}

/// An answer that is followed by another.
pub(crate) fn interim(id: &str, frame: &str) -> String {
    format!("interim {}\n{frame}", frames::written(&id))
}

/// Tells everybody who may know that something happened.
pub(crate) fn publish(post: &Post, name: &'static str, needs: Needs, payload: &impl Serialize) {
    let frame = frames::event(name, payload, None, None);
    let opened = frame.strip_suffix('}').expect("an object ends so");
    post.publish(format!("event {}\n{opened}", needs.name()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_read_with_its_id_whatever_that_is() {
        for id in ["1", "a b\nc", "\"", "ä\u{1}"] {
            let text = last(id, "{\"a\":\n1}");
            let read = Letter::Final { id: id.to_owned(), frame: "{\"a\":\n1}" };
            assert_eq!(Letter::read(&text), Some(read));
            let text = interim(id, "{}");
            assert_eq!(
                Letter::read(&text),
                Some(Letter::Interim { id: id.to_owned(), frame: "{}" })
            );
        }
    }

    #[tokio::test]
    async fn an_event_is_whole_with_its_number() {
        let post = Post::default();
        let mut mailbox = post.open();
        publish(&post, "chat", Needs::Read, &json!({"state": "final"}));
        let handoff::migrate::Delivery::Letter(text) = mailbox.next().await else { panic!() };
        let Some(Letter::Event { needs, opened }) = Letter::read(&text) else { panic!("{text}") };
        assert_eq!(needs, Needs::Read);
        let frame: serde_json::Value = serde_json::from_str(&frames::numbered(opened, 7)).unwrap();
        assert_eq!(
            frame,
            json!({"type": "event", "event": "chat", "payload": {"state": "final"}, "seq": 7})
        );
    }

    #[test]
    fn a_letter_of_an_unknown_kind_is_skipped() {
        for text in
            ["", "final", "final 1", "later \"1\"\n{}", "event operator.unheard\n{", "final x\n{}"]
        {
            assert_eq!(Letter::read(text), None, "{text:?}");
        }
    }
}
