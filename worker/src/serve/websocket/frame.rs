//! The frames of the protocol: one text message each, JSON.
//!
//! ```text
//! client: {"type":"req","id","method","params"?}
//! worker: {"type":"res","id","ok":true,"payload"} or {"type":"res","id","ok":false,"error"}
//!         {"type":"event","event","payload","seq"?,"stateVersion"?}
//! ```

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::methods::Refusal;
use crate::methods::shape::{Field, Shape};

/// A request, borrowed from the message it came in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    /// What the response will be known by.
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    /// What is asked for.
    #[serde(borrow)]
    pub(super) method: Cow<'a, str>,
    /// With which parameters.
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
}

/// Why a message is no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotARequest {
    /// It is not even JSON.
    #[error("not JSON")]
    NotJson,
    /// It is JSON of another shape.
    #[error("{what}")]
    Misshapen {
        /// Its id, if it had one.
        id: Option<String>,
        /// What is wrong with it.
        what: String,
    },
}

static REQUEST: Shape = Shape::Object(&[
    Field::required("type", Shape::OneOf(&["req"])),
    Field::required("id", Shape::Text),
    Field::required("method", Shape::Text),
    Field::optional("params", Shape::Anything),
]);

impl<'a> Request<'a> {
    /// Reads a message.
    pub(super) fn parse(message: &'a str) -> Result<Self, NotARequest> {
        match serde_json::from_str::<Self>(message) {
            Ok(request) if request.is_complete() => Ok(request),
            // The reason is looked for a second time, so that good requests do not pay for it.
            Ok(_) | Err(_) => Err(NotARequest::explain(message)),
        }
    }

    fn is_complete(&self) -> bool {
        self.kind == "req" && !self.id.is_empty() && !self.method.is_empty()
    }
}

impl NotARequest {
    fn explain(message: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(message) else {
            return Self::NotJson;
        };
        let what = match REQUEST.check(&value) {
            Ok(()) => "not readable".to_owned(),
            Err(violations) => violations.to_string(),
        };
        let id = value["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
        Self::Misshapen { id, what }
    }

    /// What its refusal is known by.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Misshapen { id: Some(id), .. } => id,
            Self::Misshapen { id: None, .. } | Self::NotJson => "invalid",
        }
    }
}

/// The answer to a request.
pub(super) fn response(id: &str, payload: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Response<'a, P> {
        r#type: &'static str,
        id: &'a str,
        ok: bool,
        payload: &'a P,
    }
    written(&Response { r#type: "res", id, ok: true, payload })
}

/// Why a request is not answered.
pub(super) fn refusal(id: &str, error: &Refusal) -> String {
    #[derive(Serialize)]
    struct Response<'a> {
        r#type: &'static str,
        id: &'a str,
        ok: bool,
        error: &'a Refusal,
    }
    written(&Response { r#type: "res", id, ok: false, error })
}

/// How often what clients may have cached has changed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct StateVersion {
    presence: u64,
    health: u64,
}

impl StateVersion {
    /// Nothing changes yet while a worker lives.
    pub(super) const FIRST: Self = Self { presence: 1, health: 1 };
}

/// Something that happened. Only a client that has connected counts events by `seq`.
pub(super) fn event(
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

fn written(frame: &impl Serialize) -> String {
    serde_json::to_string(frame).expect("our own values have string keys")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_read_without_copying_it() {
        let message = r#"{"type":"req","id":"1","method":"health","params":{"probe":true}}"#;
        let request = Request::parse(message).unwrap();
        assert!(matches!(request.id, Cow::Borrowed("1")));
        assert!(matches!(request.method, Cow::Borrowed("health")));
        assert_eq!(request.params.unwrap().get(), r#"{"probe":true}"#);
        let escaped = Request::parse(r#"{"type":"req","id":"\u0031","method":"health"}"#).unwrap();
        assert_eq!(escaped.id, "1");
    }

    #[test]
    fn what_is_no_request_is_explained() {
        assert_eq!(Request::parse("garbage").unwrap_err(), NotARequest::NotJson);
        assert_eq!(Request::parse("garbage").unwrap_err().id(), "invalid");
        assert_eq!(Request::parse(r#"{"type":"req","id":"7"}"#).unwrap_err().id(), "7");
        for (message, complaint) in [
            (r#"[]"#, "must be object"),
            (r#"{"type":"req","id":"7"}"#, "must have required property 'method'"),
            (r#"{"type":"req","id":7,"method":"m"}"#, "at /id: must be string"),
            (
                r#"{"type":"req","id":"","method":"m"}"#,
                "at /id: must NOT have fewer than 1 characters",
            ),
            (
                r#"{"type":"res","id":"7","method":"m"}"#,
                "at /type: must be equal to one of the allowed values",
            ),
            (r#"{"type":"req","id":"7","method":"m","x":1}"#, "at root: unexpected property 'x'"),
        ] {
            assert_eq!(Request::parse(message).unwrap_err().to_string(), complaint);
        }
    }

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
