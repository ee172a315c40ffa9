//! Why a request got no answer, as clients are told.

use serde::Serialize;

/// Why a request got no answer, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Refusal {
    /// What kind of refusal.
    pub(crate) code: Code,
    /// The reason in words.
    pub(crate) message: String,
    /// What a program can act on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<serde_json::Value>,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    /// The request itself is wrong.
    InvalidRequest,
    /// The client's device is not known.
    NotPaired,
    /// Right request, wrong moment.
    Unavailable,
}

impl Refusal {
    /// The request itself is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidRequest, message: message.into(), details: None }
    }

    /// Right request, wrong moment.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: Code::Unavailable, message: message.into(), details: None }
    }

    /// With what a program can act on.
    pub(crate) fn with_details(self, details: serde_json::Value) -> Self {
        Self { details: Some(details), ..self }
    }
}
