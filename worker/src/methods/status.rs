//! `status`: what runs and what was said. No tasks are kept yet, and the counts say so.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Knowledge, Refusal, VERSION, row};
use crate::agents::{DEFAULT_AGENT, clock_ms};

pub(super) fn answer(knowledge: &Knowledge) -> Result<Box<RawValue>, Refusal> {
    let path = knowledge.sessions_path(DEFAULT_AGENT);
    let seen = knowledge.runs.overview().seen();
    let answers = row::answers_for(knowledge, DEFAULT_AGENT);
    let now = clock_ms();
    let recent: Vec<Value> =
        seen.recent.iter().map(|session| row::in_status(knowledge, session, now)).collect();
    let of_default: Vec<Value> = seen
        .recent
        .iter()
        .filter(|session| session.agent_id == DEFAULT_AGENT)
        .map(|session| row::in_status(knowledge, session, now))
        .collect();
    super::payload(&json!({
        "runtimeVersion": VERSION,
        "heartbeat": {
            "defaultAgentId": DEFAULT_AGENT,
            "agents": [{
                "agentId": DEFAULT_AGENT, "enabled": false, "every": "0m", "everyMs": null,
            }],
        },
        "channelSummary": [],
        "queuedSystemEvents": [],
        "tasks": {
            "total": 0, "active": 0, "terminal": 0, "failures": 0,
            "byStatus": {
                "queued": 0, "running": 0, "succeeded": 0, "failed": 0, "timed_out": 0,
                "cancelled": 0, "lost": 0,
            },
            "byRuntime": {"subagent": 0, "acp": 0, "cli": 0, "cron": 0},
        },
        "taskAudit": {
            "total": 0, "warnings": 0, "errors": 0,
            "byCode": {
                "stale_queued": 0, "stale_running": 0, "lost": 0, "delivery_failed": 0,
                "missing_cleanup": 0, "inconsistent_timestamps": 0,
            },
        },
        "sessions": {
            "paths": [path],
            "count": seen.count,
            "defaults": {"model": answers.shown().1, "contextTokens": null},
            "recent": recent,
            "byAgent": [{
                "agentId": DEFAULT_AGENT, "path": path, "count": seen.count_of_default,
                "recent": of_default,
            }],
        },
    }))
}
