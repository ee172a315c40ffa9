//! What whoever may approve devices is told of them, as it happens.

use handoff::migrate::Post;
use serde_json::{Value, json};

use crate::identity::Needs;
use crate::letters;
use crate::methods::now_ms;

/// A device waits for an approval.
pub(crate) const REQUESTED: &str = "device.pair.requested";
/// It waits no longer.
pub(crate) const RESOLVED: &str = "device.pair.resolved";

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The device may connect.
    Approved,
    /// It may ask again.
    Rejected,
}

/// Tells of a request that nobody knew.
pub(crate) fn requested(post: &Post, request: &Value) {
    letters::publish(post, REQUESTED, Needs::Pairing, request);
}

/// Tells what became of a request.
pub(crate) fn resolved(post: &Post, request_id: &str, device_id: &str, decision: Decision) {
    let decision = match decision {
        Decision::Approved => "approved",
        Decision::Rejected => "rejected",
    };
    let payload = json!({
        "requestId": request_id, "deviceId": device_id, "decision": decision, "ts": now_ms(),
    });
    letters::publish(post, RESOLVED, Needs::Pairing, &payload);
}
