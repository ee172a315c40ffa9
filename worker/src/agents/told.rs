//! What clients hear of a run: the events `agent` and `chat`, in the recorded shapes.
//!
//! **Invariants**
//! - A run's events are counted by `seq` from 1; a `chat` event has the number of the `agent` event it
//!   follows.
//! - What is told of an answer is kept first: whoever was told it finds it in the history, whatever becomes of this worker.
//! - However fast an answer comes, it is told in few events: each of them has the whole text so far. The longer that
//!   takes, the fewer they are.

use std::time::{Duration, Instant};

use handoff::migrate::Post;
use serde_json::{Value, json};

use super::ending::Outcome;
use super::session::SessionKey;
use crate::identity::Needs;
use crate::letters;
use crate::methods::now_ms;
use crate::state::store::said::Said;

/// The least time between two events that tell more of an answer: what OpenClaw's clients are used to.
const PACE: Duration = Duration::from_millis(150);
/// At least so many times as long as it takes to tell of an answer, it goes on untold.
const UNTOLD: u32 = 4;

/// Tells of one run.
#[derive(Debug)]
pub(super) struct Told {
    post: Post,
    run: String,
    session: SessionKey,
    seq: u64,
    started_at_ms: u64,
    text: String,
    /// How much of the text was told, in bytes.
    told: usize,
    tell_from: Option<Instant>,
    /// Where it is kept until its end is in the database.
    kept: Option<Said>,
}

impl Told {
    pub(super) const fn new(post: Post, run: String, session: SessionKey) -> Self {
        Self {
            post,
            run,
            session,
            seq: 0,
            started_at_ms: 0,
            text: String::new(),
            told: 0,
            tell_from: None,
            kept: None,
        }
    }

    /// Of a run that another generation had begun, and told of up to here.
    pub(super) fn resumed(
        post: Post,
        run: String,
        session: SessionKey,
        (seq, text): (u64, String),
    ) -> Self {
        let told = text.len();
        Self { seq, text, told, ..Self::new(post, run, session) }
    }

    /// From now on what is told is kept here first.
    pub(super) fn keep(&mut self, kept: Said) {
        self.kept = Some(kept);
    }

    fn keep_piece(&mut self, from: usize) {
        if let Some(kept) = &mut self.kept {
            kept.append(self.seq + 1, &self.text[from..]);
        }
    }

    pub(super) fn started(&mut self) {
        self.started_at_ms = now_ms();
        self.keep_piece(0);
        let data = json!({"phase": "start", "startedAt": self.started_at_ms});
        self.agent("lifecycle", &data);
    }

    /// More of the answer.
    pub(super) fn piece(&mut self, piece: &str) {
        self.text.push_str(piece);
        if self.tell_from.is_none_or(|from| from <= Instant::now()) {
            self.tell_text();
        }
    }

    fn tell_text(&mut self) {
        if self.told == self.text.len() {
            return;
        }
        self.keep_piece(self.told);
        let delta = &self.text[self.told..];
        let begun_at = Instant::now();
        let told = json!({"text": self.text, "delta": delta});
        let mut chat = json!({"deltaText": delta, "message": self.message()});
        self.told = self.text.len();
        self.agent("assistant", &told);
        self.chat("delta", &mut chat);
        self.tell_from = Some(begun_at + PACE.max(begun_at.elapsed() * (UNTOLD + 1)));
    }

    /// It has ended, in this way.
    pub(super) fn ended(&mut self, outcome: &Outcome) {
        // The database has it.
        if let Some(kept) = self.kept.take() {
            kept.forget();
        }
        match outcome {
            Outcome::Finished(_) => self.finished(),
            Outcome::Aborted => self.aborted(),
            Outcome::LaneCleared => self.failed(&lane_cleared(&self.session)),
            Outcome::Failed(reason) => self.failed(reason),
        }
    }

    /// The whole answer is there.
    fn finished(&mut self) {
        self.tell_text();
        self.agent("lifecycle", &json!({"phase": "end", "endedAt": now_ms()}));
        let mut last = match self.text.is_empty() {
            true => json!({}),
            false => json!({"message": self.message()}),
        };
        self.chat("final", &mut last);
    }

    /// Somebody has ended it.
    fn aborted(&mut self) {
        self.chat("aborted", &mut json!({"stopReason": "rpc"}));
        let data = json!({
            "phase": "end", "status": "cancelled", "aborted": true, "stopReason": "rpc",
            "startedAt": self.started_at(), "endedAt": now_ms(),
        });
        self.agent("lifecycle", &data);
    }

    /// It has failed.
    fn failed(&mut self, reason: &str) {
        self.tell_text();
        let data = json!({
            "phase": "error", "startedAt": self.started_at(), "endedAt": now_ms(), "error": reason,
        });
        self.agent("lifecycle", &data);
        self.chat("error", &mut json!({"errorMessage": reason}));
    }

    /// The answer so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn started_at(&self) -> u64 {
        if self.started_at_ms == 0 { now_ms() } else { self.started_at_ms }
    }

    fn message(&self) -> Value {
        json!({
            "role": "assistant",
            "content": [{"type": "text", "text": self.text}],
            "timestamp": now_ms(),
        })
    }

    fn agent(&mut self, stream: &str, data: &Value) {
        self.seq += 1;
        let payload = json!({
            "runId": self.run, "stream": stream, "data": data,
            "sessionKey": self.session.as_str(), "seq": self.seq, "ts": now_ms(),
        });
        letters::publish(&self.post, "agent", Needs::Read, &payload);
    }

    fn chat(&self, state: &str, payload: &mut Value) {
        payload["runId"] = json!(self.run);
        payload["sessionKey"] = json!(self.session.as_str());
        payload["seq"] = json!(self.seq.max(1));
        payload["state"] = json!(state);
        letters::publish(&self.post, "chat", Needs::Read, payload);
    }
}

/// What is said of those that waited in a lane that was cleared.
pub(crate) fn lane_cleared(session: &SessionKey) -> String {
    format!("Command lane \"session:{}\" cleared", session.as_str())
}
