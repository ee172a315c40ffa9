//! `connect`: the first request of every client, and the only one that is judged before it may ask
//! for anything.
//!
//! ```text
//! shape → protocol → role → origin ─┬─ no device ─► shared token ────────────────────────────────┬─► scopes
//!                                   └─ a device ──► signature → shared or own token → pairing ──┘
//! ```
//!
//! **Invariants**
//! - Words, codes and their order are those real clients know.
//! - A client that proves nothing but the token, and is neither a backend on this machine nor a
//!   device, is let in without any scope.

mod params;
mod rejection;

use std::net::IpAddr;
use std::time::Instant;

use handoff::migrate::Post;
use serde_json::json;

pub(super) use rejection::{Rejection, not_connect};

use self::params::{Auth, ClientParams, DeviceParams, Params};
use self::rejection::{Unauthorized, misplaced, unknowable, unpaired, unproven};
use super::farewell::Close;
use crate::attendance::Client;
use crate::identity::{
    Ask, Claim, Device, Devices, Fingerprint, Issued, Locality, PageOrigin, Proof, Refused, Scopes,
    SharedToken, Statement, TokenRefused,
};
use crate::methods::devices::announce::{self, Decision};
use crate::methods::{Code, Refusal};

/// The protocols that are spoken, the oldest first.
const PROTOCOLS: std::ops::RangeInclusive<u64> = 3..=4;

/// What a client is judged by, beside what it says.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    pub(super) token: &'a SharedToken,
    pub(super) devices: &'a Devices,
    /// Where whoever may approve devices is told of them.
    pub(super) post: &'a Post,
    pub(super) locality: Locality,
    /// Which page it says to be, if it is a browser's.
    pub(super) origin: PageOrigin,
    /// Where it is, when that is told.
    pub(super) remote_ip: Option<IpAddr>,
    /// What it was challenged with.
    pub(super) nonce: &'a str,
    /// The wall clock.
    pub(super) now_ms: u64,
}

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Admission {
    /// The protocol spoken from now on.
    pub(super) protocol: u64,
    pub(super) client: Client,
    pub(super) role: String,
    /// What it may ask for: what it has asked to, and no more than its device was approved for.
    pub(super) scopes: Scopes,
    pub(super) device: Option<AdmittedDevice>,
    /// The shared token it has shown, unless its device has shown one of its own.
    pub(super) shared_token: Option<Fingerprint>,
    pub(super) admitted_at: Instant,
}

/// The device of a client that was let in.
#[derive(Debug)]
pub(super) struct AdmittedDevice {
    pub(super) id: String,
    /// Whether it was let in by its own token, and not by the shared one.
    pub(super) own_token: OwnToken,
    /// What it is told to come with from now on.
    pub(super) issued: Option<Issued>,
}

/// Whether a device was let in by a token of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnToken {
    Shown,
    NotShown,
}

/// Judges a client by what it says of itself and can prove.
///
/// Not cancel safe: a device that was paired meanwhile stays paired.
pub(super) async fn admit(params: &str, gate: &Gate<'_>) -> Result<Admission, Rejection> {
    let params = Params::read(params).map_err(|what| {
        Rejection::policy(Refusal::invalid(format!("invalid connect params: {what}")))
    })?;
    let protocol = choose(params.min_protocol, params.max_protocol).ok_or_else(|| {
        let details =
            json!({"expectedProtocol": PROTOCOLS.end(), "minimumProbeProtocol": PROTOCOLS.start()});
        let refusal = Refusal::invalid("protocol mismatch").with_details(details);
        Rejection { close: Close::protocol(&refusal.message), refusal }
    })?;
    let role = params.role.clone().unwrap_or_else(|| "operator".to_owned());
    if !["operator", "node"].contains(&role.as_str()) {
        return Err(Rejection::policy(Refusal::invalid("invalid role")));
    }
    let visitor = Visitor::of(&params.client);
    may_be_there(visitor, gate.origin)?;
    let shared = match Auth::of(params.auth.token.as_ref()) {
        Some(presented) if gate.token.is(presented.as_bytes()) => Ok(()),
        Some(_) => Err(Unauthorized::TokenMismatch),
        None => Err(Unauthorized::TokenMissing),
    };
    let (scopes, device) = match &params.device {
        None => (without_device(&params, &role, shared, gate)?, None),
        Some(device) => {
            let device = with_device(&params, device, &role, shared, gate).await?;
            (Scopes::new(params.scopes), Some(device))
        }
    };
    let ClientParams { id, display_name, version, platform, mode, .. } = params.client;
    let client = Client { id, display_name, version, platform, mode };
    let by_own_token = device.as_ref().is_some_and(|device| device.own_token == OwnToken::Shown);
    let shared_token = (!by_own_token).then(|| gate.token.fingerprint());
    Ok(Admission {
        protocol,
        client,
        role,
        scopes,
        device,
        shared_token,
        admitted_at: Instant::now(),
    })
}

/// What a client is as far as browsers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visitor {
    /// A page, and it has to say which.
    Page,
    /// A user interface that may be one.
    Interface,
    /// Any other program.
    Program,
}

impl Visitor {
    fn of(client: &ClientParams) -> Self {
        match (client.id.as_str(), client.mode.as_str()) {
            ("openclaw-control-ui" | "webchat-ui", _) | (_, "webchat") => Self::Page,
            ("openclaw-tui", _) => Self::Interface,
            _ => Self::Program,
        }
    }
}

impl Gate<'_> {
    /// Where a client counts as being: a browser on this machine runs pages of others too, so that a program
    /// which is said to be in one is trusted no more than one elsewhere.
    fn locality_of(&self, visitor: Visitor) -> Locality {
        match (visitor, self.origin) {
            (_, PageOrigin::Absent) | (Visitor::Page | Visitor::Interface, _) => self.locality,
            (Visitor::Program, _) => Locality::Remote,
        }
    }
}

/// Whether a browser's page may connect, or somebody who should be one and says no origin.
fn may_be_there(visitor: Visitor, origin: PageOrigin) -> Result<(), Rejection> {
    match (visitor, origin) {
        (_, PageOrigin::Allowed) => Ok(()),
        (Visitor::Interface | Visitor::Program, PageOrigin::Absent) => Ok(()),
        (Visitor::Page, PageOrigin::Absent) | (_, PageOrigin::Invalid) => {
            Err(misplaced("origin missing or invalid"))
        }
        (_, PageOrigin::Foreign) => Err(misplaced("origin not allowed")),
    }
}

/// What a client may do that shows the shared token and nothing else.
fn without_device(
    params: &Params,
    role: &str,
    shared: Result<(), Unauthorized>,
    gate: &Gate<'_>,
) -> Result<Scopes, Rejection> {
    let client = &params.client;
    let backend = client.id == "gateway-client" && client.mode == "backend";
    let operator = role == "operator";
    let locality = gate.locality_of(Visitor::of(client));
    if backend && operator && shared.is_ok() && locality == Locality::Local {
        return Ok(Scopes::new(params.scopes.clone()));
    }
    if ["openclaw-control-ui", "openclaw-tui"].contains(&client.id.as_str()) {
        let words = "control ui requires device identity (use HTTPS or localhost secure context)";
        let details = json!({"code": "CONTROL_UI_DEVICE_IDENTITY_REQUIRED"});
        return Err(Rejection::policy(Refusal::invalid(words).with_details(details)));
    }
    let shows_any = params.auth.token.as_ref().is_some_and(|token| !token.is_empty())
        || params.auth.password.as_ref().is_some_and(|password| !password.is_empty());
    match shared {
        Ok(()) if operator => Ok(Scopes::default()),
        Err(why) if shows_any => Err(why.rejection(params)),
        // A node acts for a device, so a token alone does not make one.
        Ok(()) | Err(_) => Err(Rejection::policy(Refusal {
            code: Code::NotPaired,
            message: "device identity required".to_owned(),
            details: Some(json!({"code": "DEVICE_IDENTITY_REQUIRED"})),
            retry_after_ms: None,
        })),
    }
}

/// Has a device prove who it is, and asks whether it may do what it asks for.
async fn with_device(
    params: &Params,
    claimed: &DeviceParams,
    role: &str,
    shared: Result<(), Unauthorized>,
    gate: &Gate<'_>,
) -> Result<AdmittedDevice, Rejection> {
    let Params { client, scopes, auth, .. } = params;
    let claim = Claim {
        id: &claimed.id,
        public_key: &claimed.public_key,
        signature: &claimed.signature,
        signed_at_ms: claimed.signed_at,
        nonce: &claimed.nonce,
    };
    let statement = Statement {
        client_id: &client.id,
        client_mode: &client.mode,
        role,
        scopes,
        token: auth.signed(),
        platform: &client.platform,
        device_family: client.device_family.as_deref(),
    };
    let device = Device::prove(&claim, &statement, gate.nonce, gate.now_ms).map_err(unproven)?;
    let own = Auth::of(auth.device_token.as_ref());
    let (proof, own_token, otherwise) = match shared {
        Ok(()) => (Proof::SharedToken, OwnToken::NotShown, Unauthorized::TokenMismatch),
        Err(why) => {
            // Nobody issues these here.
            let bootstraps = Auth::of(auth.bootstrap_token.as_ref()).is_some();
            let why = if bootstraps { Unauthorized::BootstrapTokenInvalid } else { why };
            let presented = own.or_else(|| Auth::of(auth.token.as_ref()));
            let Some(presented) = presented else { return Err(why.rejection(params)) };
            let otherwise = if own.is_some() { Unauthorized::DeviceTokenMismatch } else { why };
            (Proof::OwnToken(presented.to_owned()), OwnToken::Shown, otherwise)
        }
    };
    let ask = Ask {
        device,
        role: role.to_owned(),
        scopes: scopes.clone(),
        client_id: client.id.clone(),
        client_mode: client.mode.clone(),
        display_name: client.display_name.clone(),
        platform: client.platform.clone(),
        device_family: client.device_family.clone(),
        locality: gate.locality_of(Visitor::of(client)),
        remote_ip: gate.remote_ip,
        proof,
    };
    match gate.devices.admit(ask, gate.now_ms).await {
        Ok(Ok(admitted)) => {
            if let Some(request_id) = &admitted.approved {
                announce::resolved(gate.post, request_id, &claimed.id, Decision::Approved);
            }
            Ok(AdmittedDevice { id: claimed.id.clone(), own_token, issued: admitted.issued })
        }
        Ok(Err(Refused::Token(TokenRefused::Scope))) => {
            Err(Unauthorized::ScopeMismatch.rejection(params))
        }
        Ok(Err(Refused::Token(TokenRefused::Mismatch))) => Err(otherwise.rejection(params)),
        Ok(Err(Refused::Pairing(required))) => {
            if let Some(request) = required.news() {
                announce::requested(gate.post, &request);
            }
            Err(unpaired(&required))
        }
        Err(unusable) => Err(unknowable(&unusable)),
    }
}

/// The newest protocol that both sides speak.
fn choose(least: u64, most: u64) -> Option<u64> {
    PROTOCOLS.rev().find(|protocol| (least..=most).contains(protocol))
}

#[cfg(test)]
mod tests;
