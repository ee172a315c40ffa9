//! The frames of the protocol: one text message each, JSON.
//!
//! ```text
//! client: {"type":"req","id","method","params"?}
//! worker: {"type":"res","id","ok":true,"payload"} or {"type":"res","id","ok":false,"error"}
//!         {"type":"event","event","payload","seq"?,"stateVersion"?}
//! ```

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::shape::{Field, Shape};

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

#[cfg(test)]
mod tests {
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

    proptest::proptest! {
        #![proptest_config(crate::fuzzed::config())]

        #[test]
        fn no_message_makes_a_reader_panic_and_whatever_is_wrong_is_said(
            message in crate::fuzzed::nearly("frames"),
        ) {
            match Request::parse(&message) {
                Ok(request) => assert!(request.params.is_none_or(|params| !params.get().is_empty())),
                Err(refused) => assert!(!refused.id().is_empty() && !refused.to_string().is_empty()),
            }
        }
    }
}
