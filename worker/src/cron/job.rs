//! A scheduled job: its definition as clients write it, and the job as clients see it.
//!
//! **Invariants**
//! - Reading is lenient, for a newer worker may have written the definition; what clients send is checked by `request`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::schedule::{Schedule, ScheduleInvalid, Timetable};
use crate::state::store::cron_jobs::StoredJob;

/// What a client has asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Definition {
    /// What people call it.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) description: Option<String>,
    /// Whose it is; the default agent's when `None`.
    pub(crate) agent_id: Option<String>,
    /// The session that it was made in.
    pub(crate) session_key: Option<String>,
    /// Whether it is forgotten once it went well.
    pub(crate) delete_after_run: Option<bool>,
    /// When it runs.
    pub(crate) schedule: Schedule,
    /// Where it runs: `main`, `isolated`, `current` or `session:<id>`.
    pub(crate) session_target: String,
    /// When a `main` job's event is looked at.
    pub(crate) wake_mode: WakeMode,
    /// What it does.
    pub(crate) payload: Payload,
    /// Where its answer goes.
    pub(crate) delivery: Option<Value>,
    /// Who hears of failures.
    pub(crate) failure_alert: Option<Value>,
    /// What becomes of a run that nobody was there to begin.
    #[serde(default)]
    pub(crate) missed_runs: MissedRuns,
}

/// When a `main` job's event is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WakeMode {
    /// With the next heartbeat.
    NextHeartbeat,
    /// At once.
    Now,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Payload {
    /// Says something to the main session.
    SystemEvent {
        /// What.
        text: String,
    },
    /// Has an agent take a turn.
    AgentTurn {
        /// What it is told.
        message: String,
        /// With which model.
        model: Option<String>,
        /// And which ones if that fails.
        fallbacks: Option<Vec<String>>,
        /// How hard it thinks.
        thinking: Option<String>,
        /// How long it may take.
        timeout_seconds: Option<f64>,
        /// The only tools that it has.
        tools_allow: Option<Vec<String>>,
        /// Whether it begins with less context.
        light_context: Option<bool>,
    },
}

/// What becomes of a run that nobody was there to begin within a minute of its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MissedRuns {
    /// One run makes up for all that were missed, as soon as somebody is there.
    #[default]
    Once,
    /// It is recorded as skipped, and the job waits for its next time.
    Skip,
}

/// Why a job that is kept cannot be run by this worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Its definition says what this worker does not know.
    #[error("this worker does not understand the definition")]
    Definition {
        /// Where.
        source: serde_json::Error,
    },
    /// Its schedule does.
    #[error(transparent)]
    Schedule(ScheduleInvalid),
}

/// A job that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// As it is kept.
    pub(crate) stored: StoredJob,
    /// What it does.
    pub(crate) definition: Definition,
    /// When it does.
    pub(crate) timetable: Timetable,
}

impl Job {
    /// Understands a job.
    ///
    /// # Errors
    /// [`Unreadable`]
    pub(crate) fn read(stored: StoredJob) -> Result<Self, Unreadable> {
        let definition: Definition = serde_json::from_str(&stored.definition)
            .map_err(|source| Unreadable::Definition { source })?;
        let timetable = definition
            .schedule
            .timetable(&stored.id.0, stored.created_at_ms)
            .map_err(Unreadable::Schedule)?;
        Ok(Self { stored, definition, timetable })
    }
}

/// A job as clients see it.
pub(crate) fn view(job: &StoredJob) -> Value {
    let mut view: Map<String, Value> = serde_json::from_str(&job.definition).unwrap_or_default();
    view.insert("id".to_owned(), job.id.0.clone().into());
    view.insert("enabled".to_owned(), job.enabled.into());
    view.insert("createdAtMs".to_owned(), job.created_at_ms.into());
    view.insert("updatedAtMs".to_owned(), job.updated_at_ms.into());
    view.insert("state".to_owned(), state(job));
    Value::Object(view)
}

fn state(job: &StoredJob) -> Value {
    let past = &job.past;
    let status = past.status.map(|status| status.as_str());
    // Counts appear with the first run, as clients know it.
    let counted = |count: i64| past.status.map(|_| count);
    sparse(json!({
        "nextRunAtMs": job.next.map(|next| next.at_ms),
        "runningAtMs": job.running.as_ref().map(|running| running.at_ms),
        "lastRunAtMs": past.run_at_ms,
        "lastRunStatus": status,
        "lastStatus": status,
        "lastError": past.error,
        "lastDurationMs": past.duration_ms,
        "consecutiveErrors": counted(past.consecutive_errors),
        "consecutiveSkipped": counted(past.consecutive_skipped),
    }))
}

/// Without the fields that are `null`: clients know them as missing.
pub(super) fn sparse(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::cron_jobs::{JobId, NextRun, Past};

    fn stored(definition: &str) -> StoredJob {
        StoredJob {
            id: JobId("j1".to_owned()),
            definition: definition.to_owned(),
            enabled: true,
            revision: 1,
            created_at_ms: 5,
            updated_at_ms: 6,
            next: Some(NextRun { at_ms: 10, set_at_ms: 5 }),
            requested: None,
            running: None,
            past: Past::default(),
        }
    }

    const RECORDED: &str = r#"{"name": "t1", "schedule": {"kind": "every", "everyMs": 3600000, "anchorMs": 5},
        "sessionTarget": "isolated", "wakeMode": "now", "payload": {"kind": "agentTurn", "message": "hi"},
        "delivery": {"mode": "announce"}}"#;

    #[test]
    fn clients_see_what_they_asked_for_and_how_it_stands() {
        let expected = json!({
            "id": "j1", "name": "t1", "enabled": true, "createdAtMs": 5, "updatedAtMs": 6,
            "schedule": {"kind": "every", "everyMs": 3600000, "anchorMs": 5},
            "sessionTarget": "isolated", "wakeMode": "now",
            "payload": {"kind": "agentTurn", "message": "hi"}, "delivery": {"mode": "announce"},
            "state": {"nextRunAtMs": 10},
        });
        assert_eq!(view(&stored(RECORDED)), expected);
    }

    #[test]
    fn what_a_newer_worker_has_added_is_shown_and_does_no_harm() {
        let newer = RECORDED.replace("\"name\"", "\"novelty\": 1, \"name\"");
        let job = Job::read(stored(&newer)).unwrap();
        assert_eq!(job.definition.missed_runs, MissedRuns::Once);
        assert_eq!(view(&job.stored)["novelty"], 1);
        let strange = RECORDED.replace("agentTurn", "moonPhase");
        assert!(matches!(Job::read(stored(&strange)), Err(Unreadable::Definition { .. })));
        assert_eq!(view(&stored(&strange))["payload"]["kind"], "moonPhase");
    }
}
