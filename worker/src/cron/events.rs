//! What is told of a job as it happens: the payload of the event `cron`.

use serde_json::{Value, json};

use super::job::{sparse, view};
use crate::state::store::cron_jobs::{RunId, StoredJob};
use crate::state::store::cron_runs::RunOutcome;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// A job was made.
    Added(StoredJob),
    /// A job was changed.
    Updated(StoredJob),
    /// A job was removed.
    Removed(StoredJob),
    /// A run has begun.
    Started {
        /// Of this job.
        job: StoredJob,
        /// Which.
        run_id: RunId,
        /// When.
        at_ms: i64,
    },
    /// A run is at its end, or was skipped.
    Finished {
        /// Of this job, as it was left, or as it was before it went.
        job: StoredJob,
        /// Which.
        run_id: RunId,
        /// When it had begun.
        at_ms: i64,
        /// How long it took.
        duration_ms: i64,
        /// What came of it.
        outcome: RunOutcome,
    },
}

impl Event {
    /// As it goes over the wire.
    pub(crate) fn payload(&self) -> Value {
        let told = |action: &str, job: &StoredJob| {
            json!({
                "jobId": job.id.0, "action": action, "job": view(job),
                "nextRunAtMs": job.next.map(|next| next.at_ms),
            })
        };
        let payload = match self {
            Self::Added(job) => told("added", job),
            Self::Updated(job) => told("updated", job),
            Self::Removed(job) => told("removed", job),
            Self::Started { job, run_id, at_ms } => {
                let mut payload = told("started", job);
                payload["runId"] = json!(run_id.0);
                payload["runAtMs"] = json!(at_ms);
                payload
            }
            Self::Finished { job, run_id, at_ms, duration_ms, outcome } => {
                let mut payload = told("finished", job);
                payload["runId"] = json!(run_id.0);
                payload["runAtMs"] = json!(at_ms);
                payload["durationMs"] = json!(duration_ms);
                payload["status"] = json!(outcome.status.as_str());
                payload["error"] = json!(outcome.error);
                payload["summary"] = json!(outcome.summary);
                payload["sessionId"] = json!(outcome.session_id);
                payload["sessionKey"] = json!(outcome.session_key);
                payload
            }
        };
        sparse(payload)
    }
}
