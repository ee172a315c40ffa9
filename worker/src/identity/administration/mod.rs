//! What people do with devices: list, approve, reject, remove, rotate and revoke.
//!
//! **Invariants**
//! - Who came with a device's own token sees and changes that device alone, unless it administers.
//! - Results have the shape clients know; a refusal's words are those clients know.
//! - A token leaves only to the device it belongs to.

use serde::Serialize;
use serde_json::Value;

use super::approval::{self, ApprovalRefused};
use super::devices::Devices;
use super::ledger::LedgerUnusable;
use super::paired::{PairedDevice, RoleToken};
use super::pairing::Tables;
use super::rights;

/// Who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// The device whose own token let the caller in; `None` with the shared token.
    pub(crate) device_id: Option<String>,
    /// What the caller holds.
    pub(crate) scopes: Vec<String>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdministrationRefused {
    /// The request cannot be approved.
    #[error(transparent)]
    Approval(#[from] ApprovalRefused),
    /// There is no such request, or no longer.
    #[error("unknown requestId")]
    UnknownRequest,
    /// There is no such device.
    #[error("unknown deviceId")]
    UnknownDevice,
    /// It is somebody else's device, or beyond what the caller holds.
    #[error("{what} denied")]
    Denied {
        /// What was asked for.
        what: &'static str,
    },
    /// The tables cannot be used. The client is told no path.
    #[error("device pairing is unavailable")]
    Unusable(#[from] LedgerUnusable),
}

/// Both tables as they are shown: `device.pair.list`.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    /// The newest first.
    pending: Vec<Value>,
    /// The one that was approved last first.
    paired: Vec<Value>,
}

/// A request that was approved: `device.pair.approve`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Approved {
    pub(crate) request_id: String,
    /// As others may see it.
    pub(crate) device: Value,
}

/// A request that was rejected: `device.pair.reject`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rejected {
    pub(crate) request_id: String,
    pub(crate) device_id: String,
}

/// A device that is gone: `device.pair.remove`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Removed {
    device_id: String,
}

/// A token that was replaced: `device.token.rotate`.
// The token may be in here, so there is no `Debug`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rotated {
    device_id: String,
    role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    scopes: Vec<String>,
    rotated_at_ms: u64,
}

/// A token that opens nothing any more: `device.token.revoke`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenRevoked {
    device_id: String,
    role: String,
    revoked_at_ms: u64,
}

const APPROVAL: &str = "device pairing approval";
const REJECTION: &str = "device pairing rejection";
const REMOVAL: &str = "device pairing removal";
const ROTATION: &str = "device token rotation";
const REVOCATION: &str = "device token revocation";

impl Caller {
    fn administers(&self) -> bool {
        self.scopes.iter().any(|scope| scope == "operator.admin")
    }

    /// The only device this caller may see and change, if there is such a limit.
    fn confined_to(&self) -> Option<&str> {
        self.device_id.as_deref().filter(|_| !self.administers())
    }

    fn may_touch(&self, device_id: &str) -> bool {
        self.confined_to().is_none_or(|own| own == device_id)
    }

    fn check_request(
        &self,
        tables: &Tables,
        request_id: &str,
        what: &'static str,
    ) -> Result<(), AdministrationRefused> {
        let Some(own) = self.confined_to() else { return Ok(()) };
        // Whether there is somebody else's request is nobody else's business.
        match tables.pending.get(request_id) {
            Some(request) if request.device_id == own => Ok(()),
            Some(_) | None => Err(AdministrationRefused::Denied { what }),
        }
    }
}

impl Devices {
    /// What there is, as far as the caller may see it.
    ///
    /// # Errors
    /// [`AdministrationRefused::Unusable`].
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        now_ms: u64,
    ) -> Result<Listed, AdministrationRefused> {
        let tables = self.tables(now_ms).await?;
        let mut pending: Vec<_> = tables.pending.values().collect();
        pending.retain(|request| caller.may_touch(&request.device_id));
        pending.sort_by_key(|request| std::cmp::Reverse(request.ts));
        let mut paired: Vec<_> = tables.paired.values().collect();
        paired.retain(|device| caller.may_touch(&device.device_id));
        paired.sort_by_key(|device| std::cmp::Reverse(device.approved_at_ms));
        let shown = |request| serde_json::to_value(request).expect("it has string keys");
        Ok(Listed {
            pending: pending.into_iter().map(shown).collect(),
            paired: paired.into_iter().map(PairedDevice::redacted).collect(),
        })
    }

    /// Approves a request. Connections of the device stay as they are.
    ///
    /// # Errors
    /// [`AdministrationRefused`].
    pub(crate) async fn approve(
        &self,
        request_id: String,
        caller: Caller,
        now_ms: u64,
    ) -> Result<Approved, AdministrationRefused> {
        self.change(now_ms, move |tables| {
            caller.check_request(tables, &request_id, APPROVAL)?;
            let device = approval::approve(tables, &request_id, &caller.scopes, now_ms)?.redacted();
            Ok(Approved { request_id, device })
        })
        .await?
    }

    /// Forgets a request.
    ///
    /// # Errors
    /// [`AdministrationRefused`].
    pub(crate) async fn reject(
        &self,
        request_id: String,
        caller: Caller,
        now_ms: u64,
    ) -> Result<Rejected, AdministrationRefused> {
        self.change(now_ms, move |tables| {
            caller.check_request(tables, &request_id, REJECTION)?;
            let request = tables.pending.remove(&request_id);
            let request = request.ok_or(AdministrationRefused::UnknownRequest)?;
            Ok(Rejected { request_id, device_id: request.device_id })
        })
        .await?
    }

    /// Forgets a device, its tokens and its requests.
    ///
    /// # Errors
    /// [`AdministrationRefused`].
    pub(crate) async fn remove(
        &self,
        device_id: String,
        caller: Caller,
        now_ms: u64,
    ) -> Result<Removed, AdministrationRefused> {
        self.change(now_ms, move |tables| {
            let device_id = device_id.trim().to_owned();
            if !caller.may_touch(&device_id) {
                return Err(AdministrationRefused::Denied { what: REMOVAL });
            }
            tables.paired.remove(&device_id).ok_or(AdministrationRefused::UnknownDevice)?;
            tables.pending.retain(|_, request| request.device_id != device_id);
            Ok(Removed { device_id })
        })
        .await?
    }

    /// Gives a device another token for a role, with the scopes it had or with these.
    ///
    /// # Errors
    /// [`AdministrationRefused`].
    pub(crate) async fn rotate(
        &self,
        (device_id, role): (String, String),
        scopes: Option<Vec<String>>,
        caller: Caller,
        now_ms: u64,
    ) -> Result<Rotated, AdministrationRefused> {
        self.change(now_ms, move |tables| {
            let denied = || AdministrationRefused::Denied { what: ROTATION };
            let device = held_by(tables, &device_id, &role, &caller).ok_or_else(denied)?;
            let held = device.token(&role);
            let scopes = scopes.as_deref().or_else(|| held.map(|held| &*held.scopes));
            let scopes = scopes.or(device.scopes.as_deref()).unwrap_or_default();
            let scopes = rights::normalized(scopes);
            if !device.may_carry(&role, &scopes) || !rights::allow(&role, &scopes, &caller.scopes) {
                return Err(denied());
            }
            let token = RoleToken {
                rotated_at_ms: Some(now_ms),
                ..RoleToken::issued(&role, scopes, held, now_ms)
            };
            device.hold(token.clone());
            let own = caller.device_id.as_ref() == Some(&device.device_id);
            Ok(Rotated {
                device_id: device.device_id.clone(),
                role,
                token: own.then(|| token.token.reveal().to_owned()),
                scopes: token.scopes,
                rotated_at_ms: now_ms,
            })
        })
        .await?
    }

    /// Has a device's token for a role open nothing any more.
    ///
    /// # Errors
    /// [`AdministrationRefused`].
    pub(crate) async fn revoke(
        &self,
        (device_id, role): (String, String),
        caller: Caller,
        now_ms: u64,
    ) -> Result<TokenRevoked, AdministrationRefused> {
        self.change(now_ms, move |tables| {
            let denied = || AdministrationRefused::Denied { what: REVOCATION };
            let device = held_by(tables, &device_id, &role, &caller).ok_or_else(denied)?;
            let held = device.token(&role).ok_or_else(denied)?;
            if !rights::allow(&role, &rights::normalized(&held.scopes), &caller.scopes) {
                return Err(denied());
            }
            device.hold(RoleToken { revoked_at_ms: Some(now_ms), ..held.clone() });
            Ok(TokenRevoked { device_id: device.device_id.clone(), role, revoked_at_ms: now_ms })
        })
        .await?
    }
}

/// The device, when it was approved for this role and the caller may touch it.
fn held_by<'a>(
    tables: &'a mut Tables,
    device_id: &str,
    role: &str,
    caller: &Caller,
) -> Option<&'a mut PairedDevice> {
    let device_id = device_id.trim();
    let device = tables.paired.get_mut(device_id).filter(|_| caller.may_touch(device_id))?;
    device.roles().iter().any(|approved| approved == role).then_some(device)
}

#[cfg(test)]
mod tests;
