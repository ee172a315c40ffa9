//! `system-presence`: the gateway itself, and who is connected to it, in both generations while two live.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, Knowledge, VERSION, now_ms};
use crate::attendance::MOST_TOLD;
use crate::shape::Shape;

pub(super) static PARAMS: Shape = Shape::Object(&[]);

/// The gateway itself, as the first of those present.
pub(crate) fn gateway() -> Value {
    json!({
        "host": "holdfast", "version": VERSION, "platform": std::env::consts::OS,
        "mode": "gateway", "reason": "self", "ts": now_ms(),
        "text": format!("Gateway: holdfast · app {VERSION} · mode gateway · reason self"),
    })
}

pub(super) async fn list(knowledge: Arc<Knowledge>, call: Call) {
    let mut present = knowledge.attendance.present();
    for account in knowledge.neighbourhood.accounts().await {
        present.extend(account.present);
    }
    present.sort_by_key(|present| std::cmp::Reverse(present.ts));
    present.truncate(MOST_TOLD);
    let present = present.iter().map(|present| json!(present));
    let all: Vec<Value> = std::iter::once(gateway()).chain(present).collect();
    call.reply.payload(&all);
}
