//! What clients ask for by name over a WebSocket.
//!
//! A method is a function of what the worker knows; who may call it stands beside it in the one
//! table, [`BUNDLED`].

mod health;
pub(crate) mod shape;
mod status;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::identity::Needs;

/// The version clients are told: of this worker, never of the gateway it is compatible with.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A method that clients can call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method {
    /// Its name on the wire.
    pub(crate) name: &'static str,
    /// What a caller must hold.
    pub(crate) needs: Needs,
    /// What it does.
    pub(crate) answer: fn(&Knowledge) -> Result<Box<RawValue>, Refusal>,
}

/// The methods that come with the worker.
pub(crate) const BUNDLED: [Method; 2] = [
    Method { name: "health", needs: Needs::Nothing, answer: health::answer },
    Method { name: "status", needs: Needs::Read, answer: status::answer },
];

/// What methods know about the worker.
#[derive(Debug)]
pub(crate) struct Knowledge {
    /// The state directory.
    pub(crate) state_dir: PathBuf,
}

impl Knowledge {
    /// What the worker says of its health, as the snapshot and the `health` event have it too.
    pub(crate) fn health(&self) -> serde_json::Value {
        health::report(self)
    }

    /// Where an agent's sessions are listed.
    fn sessions_path(&self, agent: &str) -> PathBuf {
        self.state_dir.join("agents").join(agent).join("sessions/sessions.json")
    }
}

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

    /// With what a program can act on.
    pub(crate) fn with_details(self, details: serde_json::Value) -> Self {
        Self { details: Some(details), ..self }
    }
}

/// The wall clock in ms, as the protocol's timestamps are.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A method's answer in its wire form.
fn payload(value: &impl Serialize) -> Result<Box<RawValue>, Refusal> {
    serde_json::value::to_raw_value(value).map_err(|error| Refusal {
        code: Code::Unavailable,
        message: format!("could not write the answer: {error}"),
        details: None,
    })
}
