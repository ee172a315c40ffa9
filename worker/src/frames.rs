//! The frames that clients are sent: one text message each, JSON.

use serde::Serialize;

use crate::refusal::Refusal;

/// The answer to a request.
pub(crate) fn response(id: &str, payload: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Response<'a, P> {
        r#type: &'static str,
        id: &'a str,
        ok: bool,
        payload: &'a P,
    }
    written(&Response { r#type: "res", id, ok: true, payload })
}

/// What goes on the wire of an event that lacks its end, as [`event`] makes it without a number.
pub(crate) fn numbered(opened: &str, seq: u64) -> String {
    format!("{opened},\"seq\":{seq}}}")
}

/// Why a request is not answered.
pub(crate) fn refusal(id: &str, error: &Refusal) -> String {
    #[derive(Serialize)]
    struct Response<'a> {
        r#type: &'static str,
        id: &'a str,
        ok: bool,
        error: &'a Refusal,
    }
    written(&Response { r#type: "res", id, ok: false, error })
}

/// Why a request is not answered, with what is known of it all the same.
pub(crate) fn failure(id: &str, payload: &impl Serialize, error: &Refusal) -> String {
    #[derive(Serialize)]
    struct Response<'a, P> {
        r#type: &'static str,
        id: &'a str,
        ok: bool,
        payload: &'a P,
        error: &'a Refusal,
    }
    written(&Response { r#type: "res", id, ok: false, payload, error })
}

/// How often what clients may have cached has changed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct StateVersion {
    presence: u64,
    health: u64,
}

impl StateVersion {
    /// Nothing changes yet while a worker lives.
    pub(crate) const FIRST: Self = Self { presence: 1, health: 1 };
}

/// Something that happened. Only a client that has connected counts events by `seq`.
pub(crate) fn event(
    name: &'static str,
    payload: &impl Serialize,
    seq: Option<u64>,
    state_version: Option<StateVersion>,
) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Event<'a, P> {
        r#type: &'static str,
        event: &'static str,
        payload: &'a P,
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        state_version: Option<StateVersion>,
    }
    written(&Event { r#type: "event", event: name, payload, seq, state_version })
}

/// A value as JSON text.
pub(crate) fn written(frame: &impl Serialize) -> String {
    serde_json::to_string(frame).expect("our own values have string keys")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn frames_have_the_recorded_shapes() {
        let read = |frame: String| serde_json::from_str::<Value>(&frame).unwrap();
        assert_eq!(
            read(response("1", &json!({"a": 1}))),
            json!({"type": "res", "id": "1", "ok": true, "payload": {"a": 1}})
        );
        assert_eq!(
            read(refusal("1", &Refusal::invalid("no"))),
            json!({"type": "res", "id": "1", "ok": false,
                "error": {"code": "INVALID_REQUEST", "message": "no"}})
        );
        assert_eq!(
            read(event("tick", &json!({"ts": 1}), Some(4), None)),
            json!({"type": "event", "event": "tick", "payload": {"ts": 1}, "seq": 4})
        );
        assert_eq!(
            read(event("health", &json!({}), Some(1), Some(StateVersion::FIRST)))["stateVersion"],
            json!({"presence": 1, "health": 1})
        );
    }
}
