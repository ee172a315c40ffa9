//! What a device is told that somebody has to approve first: the words, reasons and hints that real
//! clients know.

use serde_json::{Value, json};

use super::pending::PendingRequest;

/// A request waits for somebody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pairing required: {}", reason.requirement())]
pub(crate) struct PairingRequired {
    pub(super) reason: Reason,
    pub(super) request_id: String,
    /// The request, when it was not waiting before.
    pub(super) news: Option<PendingRequest>,
    pub(super) device_id: String,
    pub(super) role: String,
    pub(super) scopes: Vec<String>,
    pub(super) approved_roles: Vec<String>,
    pub(super) approved_scopes: Vec<String>,
}

/// What somebody has to approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    NotPaired,
    RoleUpgrade,
    ScopeUpgrade,
    MetadataUpgrade,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::NotPaired => "not-paired",
            Self::RoleUpgrade => "role-upgrade",
            Self::ScopeUpgrade => "scope-upgrade",
            Self::MetadataUpgrade => "metadata-upgrade",
        }
    }

    const fn requirement(self) -> &'static str {
        match self {
            Self::NotPaired => "device is not approved yet",
            Self::RoleUpgrade => "device is asking for a higher role than currently approved",
            Self::ScopeUpgrade => "device is asking for more scopes than currently approved",
            Self::MetadataUpgrade => "device identity changed and must be re-approved",
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::NotPaired => "Approve this device from the pending pairing requests.",
            Self::RoleUpgrade => {
                "Review the requested role upgrade, then approve the pending request."
            }
            Self::ScopeUpgrade => "Review the requested scopes, then approve the pending upgrade.",
            Self::MetadataUpgrade => {
                "Review the refreshed device details, then approve the pending request."
            }
        }
    }
}

impl PairingRequired {
    /// What a program can act on.
    pub(crate) fn details(&self) -> Value {
        let mut details = json!({
            "code": "PAIRING_REQUIRED",
            "reason": self.reason.name(),
            "requestId": self.request_id,
            "remediationHint": self.reason.hint(),
            "deviceId": self.device_id,
            "requestedRole": self.role,
            "requestedScopes": self.scopes,
        });
        for (name, approved) in
            [("approvedRoles", &self.approved_roles), ("approvedScopes", &self.approved_scopes)]
        {
            if !approved.is_empty() {
                details[name] = json!(approved);
            }
        }
        details
    }

    /// The request as whoever may approve it is told of it; `None` when they know it already.
    pub(crate) fn news(&self) -> Option<Value> {
        let shown = |request| serde_json::to_value(request).expect("it has string keys");
        self.news.as_ref().map(shown)
    }

    /// Why the connection is closed.
    pub(crate) fn close_reason(&self) -> String {
        format!("{self} (requestId: {})", self.request_id)
    }
}
