//! Calls of exclusive plugins that the generation beside answers, because the writer lease is there.
//!
//! ```text
//! here: call ─► PluginCall ─► there: answered, refused, or not there either ─► PluginAnswer ─► here
//! ```
//!
//! **Invariants**
//! - What was passed on is not passed on again: two that both lack the lease do not play with a call.
//! - When the generation beside is gone, whoever waited for it is told that nobody knows what became of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use handoff::migrate::{Neighbour, Post};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::refusal::{Code, Refusal};

/// What two generations say to one another about plugins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Word {
    /// Answer this call if the plugin runs with you.
    PluginCall { ask: u64, method: String, params: Value, client: String },
    /// That is what came of it.
    PluginAnswer { ask: u64, outcome: Passed },
}

/// What came of a call that was passed on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Passed {
    /// It was answered.
    Answered { result: Value },
    /// It was refused.
    Refused { code: Code, message: String, details: Option<Value>, retry_after_ms: Option<u64> },
    /// The plugin does not run there either.
    NotThere,
}

impl Passed {
    /// A refusal, to be told there.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let Refusal { code, message, details, retry_after_ms } = refusal;
        Self::Refused { code, message, details, retry_after_ms }
    }
}

/// The way to the generations beside.
#[derive(Debug)]
pub(crate) struct Beside {
    post: Post,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    last: u64,
    waiting: HashMap<u64, (Neighbour, oneshot::Sender<Passed>)>,
}

impl Beside {
    /// By this post.
    pub(crate) fn new(post: Post) -> Self {
        Self { post, asked: Mutex::default() }
    }

    /// Asks a neighbour; `None` when there is none. Nothing comes when it goes before it answers.
    pub(crate) fn ask(
        &self,
        neighbour: Neighbour,
        (method, params, client): (&str, &Value, &str),
    ) -> Option<oneshot::Receiver<Passed>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.last += 1;
        let ask = asked.last;
        let (method, params, client) = (method.to_owned(), params.clone(), client.to_owned());
        let word = Word::PluginCall { ask, method, params, client };
        if !self.post.tell(neighbour, &crate::frames::written(&word)) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        // Those that were given up are let go of at the next occasion.
        asked.waiting.retain(|_, (_, answer)| !answer.is_closed());
        asked.waiting.insert(ask, (neighbour, answer));
        Some(answered)
    }

    /// A neighbour has answered.
    pub(crate) fn answered(&self, ask: u64, outcome: Passed) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = asked.waiting.remove(&ask) {
            // Who asked may have waited long enough.
            let _ = answer.send(outcome);
        }
    }

    /// Answers a neighbour.
    pub(crate) fn answer(&self, neighbour: Neighbour, ask: u64, outcome: Passed) {
        // One that is gone has told its callers so.
        self.post.tell(neighbour, &crate::frames::written(&Word::PluginAnswer { ask, outcome }));
    }

    /// The neighbour is gone: what it was asked, nobody answers.
    pub(crate) fn unlinked(&self, gone: Neighbour) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.waiting.retain(|_, (neighbour, _)| *neighbour != gone);
    }
}

/// Reads a word; `None` for one that is about something else.
pub(crate) fn read(text: &str) -> Option<Word> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_read_as_they_were_written_and_others_are_left_to_others() {
        let refusal = Refusal::unavailable("no").with_details(json!({"a": 1}));
        for word in [
            Word::PluginCall {
                ask: 1,
                method: "a.b".into(),
                params: json!([1]),
                client: "c".into(),
            },
            Word::PluginAnswer { ask: 1, outcome: Passed::Answered { result: Value::Null } },
            Word::PluginAnswer { ask: 1, outcome: Passed::refused(refusal) },
            Word::PluginAnswer { ask: 1, outcome: Passed::NotThere },
        ] {
            assert_eq!(read(&crate::frames::written(&word)), Some(word));
        }
        assert_eq!(read("{\"type\":\"lane-wanted\",\"session\":\"s\"}"), None);
        let newer =
            "{\"type\":\"plugin-answer\",\"ask\":1,\"outcome\":{\"type\":\"not-there\"},\"x\":1}";
        assert!(read(newer).is_some());
    }

    #[test]
    fn without_a_neighbour_nobody_is_asked() {
        let beside = Beside::new(Post::default());
        assert!(beside.ask(Neighbour::Incumbent, ("a.b", &Value::Null, "c")).is_none());
    }
}
