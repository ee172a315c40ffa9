//! Why a request got no answer, as clients are told.

use std::time::Duration;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

/// Why a request got no answer, as it goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    /// What kind of refusal.
    pub(crate) code: Code,
    /// The reason in words.
    pub(crate) message: String,
    /// What a program can act on.
    pub(crate) details: Option<serde_json::Value>,
    /// In how long it is worth asking again, in ms, where that is known.
    pub(crate) retry_after_ms: Option<u64>,
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = 2
            + usize::from(self.details.is_some())
            + 2 * usize::from(self.retry_after_ms.is_some());
        let mut refusal = serializer.serialize_struct("Refusal", fields)?;
        refusal.serialize_field("code", &self.code)?;
        refusal.serialize_field("message", &self.message)?;
        if let Some(details) = &self.details {
            refusal.serialize_field("details", details)?;
        }
        if let Some(after) = self.retry_after_ms {
            refusal.serialize_field("retryable", &true)?;
            refusal.serialize_field("retryAfterMs", &after)?;
        }
        refusal.end()
    }
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        Self {
            code: Code::InvalidRequest,
            message: message.into(),
            details: None,
            retry_after_ms: None,
        }
    }

    /// Right request, wrong moment.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: Code::Unavailable, ..Self::invalid(message) }
    }

    /// With what a program can act on.
    pub(crate) fn with_details(self, details: serde_json::Value) -> Self {
        Self { details: Some(details), ..self }
    }

    /// Worth asking again after this time.
    pub(crate) fn retry_after(self, after: Duration) -> Self {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self { retry_after_ms: Some(ms), ..self }
    }
}
