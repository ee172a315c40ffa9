//! `gateway.restart.preflight` and `gateway.restart.request`: what a takeover would have to drain, and asking for
//! one.
//!
//! A restart is a takeover here: whoever asks keeps the connection, and what is under way is finished where it is
//! or moves. So the counts delay nobody; they say what the incumbent's drain would wait for.
//!
//! **Invariants**
//! - What is counted is under way in this generation, or was counted a moment ago by the one beside it; one that
//!   does not say is not guessed at.
//! - A second wish while one waits or a successor is there joins it.

use std::sync::Arc;

use handoff::migrate::Neighbour;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;

use super::{Call, Knowledge, Refusal};
use crate::agents::IN_CENSUS;
use crate::neighbourhood::{Account, Engaged};
use crate::shape::{Field, Shape};

pub(super) static PREFLIGHT_PARAMS: Shape = Shape::Object(&[]);
pub(super) static REQUEST_PARAMS: Shape = Shape::Object(&[
    Field::optional("reason", Shape::AnyText),
    // Nothing is deferred here that could be skipped.
    Field::optional("skipDeferral", Shape::Flag),
]);
pub(super) const PREFLIGHT: &str = "gateway.restart.preflight";
pub(super) const REQUEST: &str = "gateway.restart.request";
/// The longest reason that is passed on, in characters.
const LONGEST_REASON: usize = 200;

#[derive(Deserialize)]
struct Request {
    reason: Option<String>,
}

pub(super) async fn preflight(knowledge: Arc<Knowledge>, call: Call) {
    call.reply.payload(&report(engaged(&knowledge).await));
}

pub(super) async fn request(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = match call.read() {
        Ok(request) => wish(&knowledge, &call.client, request).await,
        Err(refusal) => Err(refusal),
    };
    call.reply.outcome(outcome);
}

async fn wish(
    knowledge: &Knowledge,
    client: &str,
    Request { reason }: Request,
) -> Result<Value, Refusal> {
    let Some(wants_takeover) = &knowledge.wants_takeover else {
        let words = "this worker has no front that could start its successor; restart it by whatever started it";
        return Err(Refusal::unavailable(words));
    };
    knowledge.take_write(client, REQUEST)?;
    let preflight = report(engaged(knowledge).await);
    let reason = reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    let reason = reason.map_or_else(
        || "a client has asked for it".to_owned(),
        |reason| reason.chars().take(LONGEST_REASON).collect(),
    );
    let joined = if knowledge.neighbourhood.has_successor() {
        true
    } else {
        match wants_takeover.try_send(reason.clone()) {
            Ok(()) => false,
            Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Closed(_)) => {
                return Err(Refusal::unavailable("this worker is leaving; its successor serves"));
            }
        }
    };
    Ok(json!({
        "ok": true,
        "status": if joined { "coalesced" } else { "scheduled" },
        "preflight": preflight,
        "restart": {
            "ok": true,
            "pid": std::process::id(),
            "delayMs": 0,
            "reason": reason,
            "mode": "supervisor",
            "coalesced": joined,
            "cooldownMsApplied": 0,
        },
    }))
}

impl Knowledge {
    /// What is under way here.
    fn engaged(&self) -> Engaged {
        let (waiting, running) = self.runs.tally();
        let others = [IN_CENSUS, PREFLIGHT, REQUEST];
        let replies = self.runs.census().replies_due(&others);
        let [waiting, running, replies] = [waiting, running, replies].map(|count| count as u64);
        Engaged { waiting, running, replies }
    }

    /// The generation beside has said something; answers whether it was to this one as a whole.
    pub(crate) fn heard(&self, neighbour: Neighbour, text: &str) -> bool {
        self.neighbourhood.heard(neighbour, text, || Account {
            engaged: self.engaged(),
            present: self.attendance.present(),
        })
    }
}

/// What is under way here, and beside as far as that is known.
async fn engaged(knowledge: &Knowledge) -> Engaged {
    let mut engaged = knowledge.engaged();
    for account in knowledge.neighbourhood.accounts().await {
        engaged = engaged.and(account.engaged);
    }
    engaged
}

fn report(Engaged { waiting, running, replies }: Engaged) -> Value {
    let counts = [
        ("queue", waiting + running, "runs that wait or go on"),
        ("reply", replies, "answers that somebody waits for"),
        ("embedded-run", running, "runs that go on"),
    ];
    let blockers = counts.into_iter().filter(|(_, count, _)| *count > 0);
    let blockers: Vec<Value> = blockers
        .map(|(kind, count, what)| {
            json!({"kind": kind, "count": count, "message": format!("{what}: {count}")})
        })
        .collect();
    let total: u64 = counts.iter().map(|(_, count, _)| count).sum();
    let summary = if total == 0 {
        "nothing is under way".to_owned()
    } else {
        format!(
            "under way, and not cut by a takeover: {running} runs, {waiting} that wait, {replies} answers"
        )
    };
    json!({
        "safe": total == 0,
        "counts": {
            "queueSize": waiting + running,
            "pendingReplies": replies,
            "embeddedRuns": running,
            "activeTasks": 0,
            "totalActive": total,
        },
        "blockers": blockers,
        "summary": summary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_under_way_is_safe_as_recorded() {
        let expected = json!({
            "safe": true,
            "counts": {
                "queueSize": 0, "pendingReplies": 0, "embeddedRuns": 0, "activeTasks": 0,
                "totalActive": 0,
            },
            "blockers": [],
            "summary": "nothing is under way",
        });
        assert_eq!(report(Engaged::default()), expected);
    }

    #[test]
    fn what_is_under_way_is_counted_as_recorded() {
        let report = report(Engaged { waiting: 1, running: 1, replies: 2 });
        let counts = json!({
            "queueSize": 2, "pendingReplies": 2, "embeddedRuns": 1, "activeTasks": 0,
            "totalActive": 5,
        });
        assert_eq!((&report["safe"], &report["counts"]), (&json!(false), &counts));
        let kinds: Vec<_> = report["blockers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|blocker| (blocker["kind"].as_str().unwrap(), blocker["count"].as_u64().unwrap()))
            .collect();
        assert_eq!(kinds, [("queue", 2), ("reply", 2), ("embedded-run", 1)]);
    }
}
