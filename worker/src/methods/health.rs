//! `health`: the gateway as its clients look at it. It has no channels or heartbeat yet, and says so.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Knowledge, Refusal, now_ms, row};
use crate::agents::{DEFAULT_AGENT, clock_ms};
use crate::plugins::Catalogue;
use crate::state::store::sessions::Session;

/// How many of the sessions that were used last are shown.
const RECENT: usize = 5;
/// What OpenClaw says of plugins that are from a state directory.
const ORIGIN: &str = "global";

pub(super) fn answer(knowledge: &Knowledge) -> Result<Box<RawValue>, Refusal> {
    super::payload(&report(knowledge))
}

pub(super) fn report(knowledge: &Knowledge) -> Value {
    let seen = knowledge.runs.overview().seen();
    let now = clock_ms();
    let recent = |of_default: &dyn Fn(&&Session) -> bool| -> Vec<Value> {
        let chosen = seen.recent.iter().filter(of_default).take(RECENT);
        chosen.map(|session| row::recent(session, now)).collect()
    };
    let path = knowledge.sessions_path(DEFAULT_AGENT);
    let sessions = json!({"path": path, "count": seen.count, "recent": recent(&|_| true)});
    let of_default = json!({
        "path": path,
        "count": seen.count_of_default,
        "recent": recent(&|session| session.agent_id == DEFAULT_AGENT),
    });
    json!({
        "ok": true,
        "ts": now_ms(),
        "durationMs": 0,
        "plugins": plugins(knowledge.registry.load().plugins()),
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
            "sessions": of_default,
        }],
        "sessions": sessions,
    })
}

/// The plugins that may be called, and those that cannot be, as OpenClaw lists them.
fn plugins(catalogue: &Catalogue) -> Value {
    let (mut loaded, mut errors) = (Vec::new(), Vec::new());
    for plugin in catalogue.plugins() {
        match plugin.resting() {
            None => loaded.push(&*plugin.declaration().id),
            // It is loaded, and does not run at the moment.
            Some(reason) => errors.push((&*plugin.declaration().id, true, reason)),
        }
    }
    errors.extend(catalogue.left_out().iter().map(|one| (&*one.id, false, one.reason.clone())));
    loaded.sort_unstable();
    errors.sort_unstable();
    let error = |(id, activated, reason)| json!({"id": id, "origin": ORIGIN, "activated": activated, "error": reason});
    json!({"loaded": loaded, "errors": errors.into_iter().map(error).collect::<Vec<_>>()})
}
