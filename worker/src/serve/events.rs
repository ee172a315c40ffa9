//! A completion as server-sent events, from its role to `[DONE]`.
//!
//! ```text
//! {"role"} ─► {"content"} … ─► finish_reason ─► usage, if wanted ─► [DONE]
//!                 └─ failed: {"error"} ──────────────────────────────┘
//! ```
//!
//! **Invariants**
//! - Whatever becomes of the run, the stream ends with `[DONE]`.
//! - At most about [`BATCH`] bytes are written ahead of what the client has read.

use std::fmt::Write as _;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::{Value, json};

use super::completions::{About, Usage};
use crate::agents::harness;
use crate::agents::{Follower, Heard};
use crate::methods::now_ms;

/// How much of a fast answer goes out at once, and the most that one event says of it, in bytes.
const BATCH: usize = 16 * 1024;

/// Whether a stream tells what it cost (`stream_options.include_usage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShowUsage {
    Yes,
    No,
}

/// An answer as server-sent events.
#[derive(Debug)]
pub(super) struct Events {
    follower: Follower,
    step: Step,
    /// The piece that is being said, and how much of it was, in bytes.
    text: String,
    said: usize,
    /// What all events begin with.
    envelope: String,
    usage: ShowUsage,
    /// How many words the message has.
    words: usize,
}

/// What the next event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Role,
    Piece,
    Finish { pieces: usize, usage: Option<harness::Usage> },
    Over,
}

impl Events {
    pub(super) fn new(follower: Follower, about: &About, usage: ShowUsage) -> Self {
        let model = Value::from(about.model.as_str());
        let envelope = format!(
            r#"data: {{"id":"{}","object":"chat.completion.chunk","created":{},"model":{model},"#,
            about.id,
            now_ms() / 1000,
        );
        Self {
            follower,
            step: Step::Role,
            text: String::new(),
            said: 0,
            envelope,
            usage,
            words: about.words,
        }
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
                Step::Piece if self.said < self.text.len() => self.say_more(&mut out),
                Step::Piece => match self.follower.poll_heard(context) {
                    Poll::Ready(Heard::Text(text)) => (self.text, self.said) = (text, 0),
                    Poll::Ready(Heard::End { pieces, usage }) => {
                        self.step = Step::Finish { pieces, usage };
                    }
                    Poll::Ready(Heard::Failed(reason)) => {
                        let error = json!({"error": {"message": reason, "type": "api_error"}});
                        write!(out, "data: {error}\n\ndata: [DONE]\n\n")
                            .expect("a string takes everything");
                        self.step = Step::Over;
                    }
                    Poll::Pending => break,
                },
                Step::Finish { pieces, usage } => {
                    self.choice(&mut out, "{}", r#""stop""#);
                    self.cost(&mut out, Usage::of(usage, self.words, pieces));
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

    /// Says what is left of a piece, or as much of it as one event holds.
    fn say_more(&mut self, out: &mut String) {
        let end = self.text.floor_char_boundary(self.said + BATCH);
        let delta = format!(r#"{{"content":{}}}"#, Value::from(&self.text[self.said..end]));
        self.choice(out, &delta, "null");
        self.said = end;
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

    fn cost(&self, out: &mut String, usage: Usage) {
        if self.usage == ShowUsage::Yes {
            let usage = json!(usage);
            write!(out, "{}\"choices\":[],\"usage\":{usage}}}\n\n", self.envelope)
                .expect("a string takes everything");
        }
    }
}
