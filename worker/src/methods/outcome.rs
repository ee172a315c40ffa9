//! How a run has ended, as those are answered who asked for it, ask again, or wait for it.

use serde_json::{Value, json};

use super::{Refusal, Reply};
use crate::agents::{Ended, Outcome, SessionKey, lane_cleared};

/// A final answer: a payload, and why it is a failure if it is one.
pub(super) struct Final {
    payload: Value,
    refusal: Option<Refusal>,
}

impl Final {
    /// To `agent`: with the answer.
    pub(super) fn of_agent(run: &str, session: &SessionKey, outcome: Outcome) -> Self {
        match outcome {
            Outcome::Finished(text) => Self::went_well(json!({
                "runId": run, "status": "ok", "summary": "completed",
                "result": {
                    "payloads": [{"text": text, "mediaUrl": null}], "meta": {"aborted": false},
                },
            })),
            Outcome::Aborted => Self::went_well(json!({
                "runId": run, "status": "aborted", "summary": "aborted", "stopReason": "rpc",
            })),
            Outcome::LaneCleared => {
                let reason = format!("CommandLaneClearedError: {}", lane_cleared(session));
                Self::failed(run, reason)
            }
            Outcome::Failed(reason) => Self::failed(run, reason),
        }
    }

    /// To a repeat of `chat.send`: without the answer, which was told by events.
    pub(super) fn of_chat(run: &str, session: &SessionKey, outcome: Outcome) -> Self {
        match outcome {
            Outcome::Finished(_) => Self::went_well(json!({"runId": run, "status": "ok"})),
            Outcome::Aborted => {
                Self::went_well(json!({"runId": run, "status": "aborted", "stopReason": "rpc"}))
            }
            Outcome::LaneCleared | Outcome::Failed(_) => Self::of_agent(run, session, outcome),
        }
    }

    const fn went_well(payload: Value) -> Self {
        Self { payload, refusal: None }
    }

    fn failed(run: &str, reason: String) -> Self {
        let payload = json!({"runId": run, "status": "error", "summary": reason});
        Self { payload, refusal: Some(Refusal::unavailable(reason)) }
    }

    /// Answers with it.
    pub(super) fn answer(self, reply: Reply) {
        match self.refusal {
            None => reply.payload(&self.payload),
            Some(refusal) => reply.failure(&self.payload, &refusal),
        }
    }
}

/// To `agent.wait`. An aborted run counts as one that ran out of time there.
pub(super) fn waited_for(run: &str, ended: &Ended) -> Value {
    let Ended { outcome, started_at_ms, ended_at_ms } = ended;
    let mut payload = json!({"runId": run, "startedAt": started_at_ms, "endedAt": ended_at_ms});
    match outcome {
        Outcome::Finished(_) => payload["status"] = json!("ok"),
        Outcome::Aborted => {
            payload["status"] = json!("timeout");
            payload["stopReason"] = json!("rpc");
        }
        Outcome::LaneCleared => {
            payload["status"] = json!("error");
            payload["error"] = json!("Command lane cleared");
        }
        Outcome::Failed(reason) => {
            payload["status"] = json!("error");
            payload["error"] = json!(reason);
        }
    }
    payload
}

/// A run has ended in a way that this version has no words for.
pub(super) fn unreadable() -> Refusal {
    Refusal::unavailable("this message was answered by a newer gateway; how is not known here")
}
