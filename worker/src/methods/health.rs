//! `health`: the gateway as its clients look at it. It has no channels, plugins or heartbeat yet, and says so.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Knowledge, Refusal, now_ms};
use crate::agents::DEFAULT_AGENT;

pub(super) fn answer(knowledge: &Knowledge) -> Result<Box<RawValue>, Refusal> {
    super::payload(&report(knowledge))
}

pub(super) fn report(knowledge: &Knowledge) -> Value {
    let sessions = json!({
        "path": knowledge.sessions_path(DEFAULT_AGENT),
        "count": 0,
        "recent": [],
    });
    json!({
        "ok": true,
        "ts": now_ms(),
        "durationMs": 0,
        "plugins": {"loaded": [], "errors": []},
        "modelPricing": {"state": "disabled", "sources": []},
        "channels": {},
        "channelOrder": [],
        "channelLabels": {},
        "heartbeatSeconds": 0,
        "defaultAgentId": DEFAULT_AGENT,
        "agents": [{
            "agentId": DEFAULT_AGENT,
            "isDefault": true,
            "heartbeat": {"enabled": false, "every": "0m", "everyMs": null, "target": "none"},
            "sessions": sessions,
        }],
        "sessions": sessions,
    })
}
