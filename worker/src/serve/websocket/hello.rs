//! `hello-ok`: the first answer of a connected client's life.

use handoff::message::millis;
use serde_json::{Value, json};

use super::socket::MAX_MESSAGE;
use super::standing::Standing;
use crate::frames::StateVersion;
use crate::methods::{VERSION, system_presence};
use crate::serve::Gateway;

/// What a client that was let in is answered.
pub(super) fn hello(gateway: &Gateway, standing: &Standing) -> Value {
    let Standing { protocol, role, scopes, issued, .. } = standing;
    let mut snapshot = json!({
        "presence": [
            system_presence::gateway(),
            standing.attendee().present(),
        ],
        "health": gateway.knowledge.health(),
        "stateVersion": StateVersion::FIRST,
        "uptimeMs": gateway.uptime_ms(),
        "sessionDefaults": {
            "defaultAgentId": "main", "mainKey": "main", "mainSessionKey": "agent:main:main",
            "scope": "per-sender",
        },
    });
    // Where things lie on this machine is an administrator's business.
    if scopes.administer() {
        snapshot["stateDir"] = json!(gateway.knowledge.state_dir);
        snapshot["authMode"] = json!("token");
    }
    let mut auth = json!({"role": role, "scopes": scopes.names()});
    if let Some(issued) = issued {
        auth["scopes"] = json!(issued.scopes);
        auth["deviceToken"] = json!(issued.token.reveal());
        auth["issuedAtMs"] = json!(issued.issued_at_ms);
    }
    json!({
        "type": "hello-ok",
        "protocol": protocol,
        "server": {"version": VERSION, "connId": uuid::Uuid::new_v4()},
        "features": gateway.registry().features(),
        "snapshot": snapshot,
        "auth": auth,
        "policy": {
            "maxPayload": MAX_MESSAGE,
            "maxBufferedBytes": gateway.limits.max_buffered_bytes,
            "tickIntervalMs": millis(gateway.limits.tick_interval),
        },
    })
}
