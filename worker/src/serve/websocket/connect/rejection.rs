//! Clients that are not let in: the words, codes and closes that real clients know.

use serde_json::json;
use tracing::error;

use super::params::Params;
use crate::identity::{DeviceRefused, LedgerUnusable, PairingRequired};
use crate::methods::{Code, Refusal};
use crate::serve::websocket::farewell::Close;

/// A client that was not let in: what it is told, and how its connection is closed.
#[derive(Debug, PartialEq)]
pub(in super::super) struct Rejection {
    pub(in super::super) refusal: Refusal,
    pub(in super::super) close: Close,
}

impl Rejection {
    /// Against the rules; the close gives the same reason.
    pub(super) fn policy(refusal: Refusal) -> Self {
        let close = Close::policy(&refusal.message);
        Self { refusal, close }
    }
}

/// The first request was something else than `connect`.
pub(in super::super) fn not_connect() -> Rejection {
    Rejection::policy(Refusal::invalid("invalid handshake: first request must be connect"))
}

/// Which token was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unauthorized {
    TokenMissing,
    TokenMismatch,
    DeviceTokenMismatch,
    ScopeMismatch,
    BootstrapTokenInvalid,
}

impl Unauthorized {
    pub(super) fn rejection(self, params: &Params) -> Rejection {
        let Params { client, auth, .. } = params;
        let hint = if client.mode == "cli" {
            "set gateway.remote.token to match gateway.auth.token"
        } else if ["openclaw-control-ui", "openclaw-tui", "webchat-ui"].contains(&&*client.id)
            || client.mode == "webchat"
        {
            "open the dashboard URL and paste the token in Control UI settings"
        } else {
            "provide gateway auth token"
        };
        let given = |field: &Option<String>| field.as_ref().is_some_and(|field| !field.is_empty());
        let can_retry = self == Self::TokenMismatch
            && params.device.is_some()
            && given(&auth.token)
            && !given(&auth.device_token)
            && !given(&auth.password);
        let (reason, code, words, next) = match self {
            Self::TokenMissing => (
                "token_missing",
                "AUTH_TOKEN_MISSING",
                format!("gateway token missing ({hint})"),
                "update_auth_configuration",
            ),
            Self::TokenMismatch => (
                "token_mismatch",
                "AUTH_TOKEN_MISMATCH",
                format!("gateway token mismatch ({hint})"),
                if can_retry { "retry_with_device_token" } else { "update_auth_credentials" },
            ),
            Self::DeviceTokenMismatch => (
                "device_token_mismatch",
                "AUTH_DEVICE_TOKEN_MISMATCH",
                "device token mismatch (rotate/reissue device token)".to_owned(),
                "update_auth_credentials",
            ),
            Self::ScopeMismatch => (
                "scope_mismatch",
                "AUTH_SCOPE_MISMATCH",
                "device token scope mismatch (re-pair or approve scope upgrade)".to_owned(),
                "review_auth_configuration",
            ),
            Self::BootstrapTokenInvalid => (
                "bootstrap_token_invalid",
                "AUTH_BOOTSTRAP_TOKEN_INVALID",
                "bootstrap token invalid or expired (scan a fresh setup code)".to_owned(),
                "review_auth_configuration",
            ),
        };
        let refusal = Refusal::invalid(format!("unauthorized: {words}"));
        Rejection::policy(refusal.with_details(json!({
            "code": code,
            "authReason": reason,
            "canRetryWithDeviceToken": can_retry,
            "recommendedNextStep": next,
        })))
    }
}

/// A browser's page that may not connect.
pub(super) fn misplaced(reason: &'static str) -> Rejection {
    let refusal = Refusal::invalid(
        "origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)",
    );
    let details = json!({"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": reason});
    Rejection::policy(refusal.with_details(details))
}

pub(super) fn unproven(refused: DeviceRefused) -> Rejection {
    let (code, reason) = refused.details();
    let refusal = Refusal::invalid(refused.to_string());
    Rejection::policy(refusal.with_details(json!({"code": code, "reason": reason})))
}

pub(super) fn unpaired(required: &PairingRequired) -> Rejection {
    let refusal = Refusal {
        code: Code::NotPaired,
        message: required.to_string(),
        details: Some(required.details()),
        retry_after_ms: None,
    };
    Rejection { refusal, close: Close::policy(&required.close_reason()) }
}

/// The client is told no path; whoever can repair the file finds it in the log.
pub(super) fn unknowable(unusable: &LedgerUnusable) -> Rejection {
    error!(reason = %handoff::chain(unusable), "the table of devices cannot be used");
    Rejection {
        refusal: Refusal::unavailable(Close::DEVICES_UNUSABLE.reason()),
        close: Close::DEVICES_UNUSABLE,
    }
}
