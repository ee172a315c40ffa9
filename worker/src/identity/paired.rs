//! The devices that were approved, and their tokens: `devices/paired.json`.
//!
//! **Invariants**
//! - The format is that of the gateway this one is compatible with; fields that are not known here are
//!   kept as they are.
//! - A token is never formatted, and is compared in a time that depends on lengths alone.
//! - A token carries no scope that its device was not approved for.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::rights;

/// How much randomness a token holds, in bytes.
const TOKEN_BYTES: usize = 32;

/// All of them, by their ids.
pub(crate) type Paired = BTreeMap<String, PairedDevice>;

/// One device that was approved.
// What is flattened is what other programs have written here: it must survive us.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PairedDevice {
    /// The SHA-256 of its public key, in hexadecimal.
    pub(crate) device_id: String,
    /// The key in base64url.
    pub(crate) public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_mode: Option<String>,
    /// Where it was when it asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_ip: Option<String>,
    /// The role it was approved for last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) approved_scopes: Option<Vec<String>>,
    /// By role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<BTreeMap<String, RoleToken>>,
    #[serde(default)]
    pub(crate) created_at_ms: u64,
    #[serde(default)]
    pub(crate) approved_at_ms: u64,
    #[serde(flatten)]
    pub(crate) unknown: Map<String, Value>,
}

/// What a device may prove itself with in one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoleToken {
    pub(crate) token: DeviceToken,
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    #[serde(default)]
    pub(crate) created_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotated_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at_ms: Option<u64>,
    #[serde(flatten)]
    pub(crate) unknown: Map<String, Value>,
}

/// A secret of one device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DeviceToken(String);

/// Why a device's own token does not let it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefused {
    /// There is none, or another one, or it was revoked.
    #[error("device token mismatch")]
    Mismatch,
    /// It is the token, and does not carry what is asked for.
    #[error("device token scope mismatch")]
    Scope,
}

impl fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceToken(…)")
    }
}

impl DeviceToken {
    /// One that nobody knows.
    pub(crate) fn random() -> Self {
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).expect("the connection's nonce was random as well");
        Self(BASE64URL_NOPAD.encode(&random))
    }

    /// Whether `presented` is this token. The time it takes depends on the lengths alone.
    pub(crate) fn is(&self, presented: &str) -> bool {
        let equal: bool = self.0.as_bytes().ct_eq(presented.as_bytes()).into();
        // Somebody may have emptied it in the file.
        equal && !presented.trim().is_empty()
    }

    /// To be told to its device.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl RoleToken {
    /// A token in the place of `former`, if there was one.
    pub(crate) fn issued(
        role: &str,
        scopes: Vec<String>,
        former: Option<&Self>,
        now_ms: u64,
    ) -> Self {
        Self {
            token: DeviceToken::random(),
            role: role.to_owned(),
            scopes,
            created_at_ms: former.map_or(now_ms, |former| former.created_at_ms),
            rotated_at_ms: former.map(|_| now_ms),
            revoked_at_ms: None,
            last_used_at_ms: former.and_then(|former| former.last_used_at_ms),
            unknown: former.map(|former| former.unknown.clone()).unwrap_or_default(),
        }
    }

    /// When this very token came to be.
    pub(crate) fn issued_at_ms(&self) -> u64 {
        self.rotated_at_ms.unwrap_or(self.created_at_ms)
    }

    pub(crate) const fn is_active(&self) -> bool {
        // Zero is how a program without a clock would write "never".
        matches!(self.revoked_at_ms, None | Some(0))
    }
}

impl PairedDevice {
    /// Every role it was approved for.
    pub(crate) fn roles(&self) -> Vec<String> {
        rights::merged([self.roles.as_deref().unwrap_or_default(), self.role.as_slice()])
    }

    /// Every scope it was approved for; `None` when nobody wrote any down.
    pub(crate) fn approved(&self) -> Option<&[String]> {
        self.approved_scopes.as_deref().or(self.scopes.as_deref())
    }

    pub(crate) fn token(&self, role: &str) -> Option<&RoleToken> {
        self.tokens.as_ref()?.get(role)
    }

    /// Whether it may be connected in this role: approved, and its token not revoked.
    pub(crate) fn acts_as(&self, role: &str) -> bool {
        self.token(role).is_some_and(|token| token.role == role && token.is_active())
            && self.roles().iter().any(|approved| approved == role)
    }

    /// Whether it may stay connected in this role, when its token was issued at that time as it was let in.
    /// An approval brings a later one and disturbs nobody.
    pub(crate) fn keeps(&self, role: &str, issued_at_ms: Option<u64>) -> bool {
        let same = |at_ms| self.token(role).is_some_and(|token| token.issued_at_ms() == at_ms);
        self.acts_as(role)
            && issued_at_ms.is_none_or(|at_ms| same(at_ms) || self.approved_at_ms > at_ms)
    }

    /// Judges its own token.
    ///
    /// # Errors
    /// [`TokenRefused`].
    pub(crate) fn check_token(
        &self,
        presented: &str,
        role: &str,
        asked: &[String],
    ) -> Result<&RoleToken, TokenRefused> {
        let token = self.token(role).filter(|token| token.is_active());
        let token =
            token.filter(|token| token.token.is(presented)).ok_or(TokenRefused::Mismatch)?;
        let carries = self.may_carry(role, &token.scopes)
            && rights::allow(role, &rights::normalized(asked), &token.scopes);
        if carries { Ok(token) } else { Err(TokenRefused::Scope) }
    }

    /// Its token for this role, when that one carries what is asked for and what it carries is approved.
    pub(crate) fn sufficient_token(&self, role: &str, asked: &[String]) -> Option<&RoleToken> {
        self.token(role).filter(|token| {
            token.is_active()
                && self.may_carry(role, &token.scopes)
                && rights::allow(role, &rights::normalized(asked), &token.scopes)
        })
    }

    /// Whether a token of this role may carry these scopes.
    pub(crate) fn may_carry(&self, role: &str, scopes: &[String]) -> bool {
        self.approved().is_some_and(|approved| {
            rights::allow(role, &rights::normalized(scopes), &rights::normalized(approved))
        })
    }

    /// Puts a token in its place.
    pub(crate) fn hold(&mut self, token: RoleToken) {
        self.tokens.get_or_insert_default().insert(token.role.clone(), token);
    }

    /// As others may see it: without tokens, and with what is known of them.
    pub(crate) fn redacted(&self) -> Value {
        let shown = Self { approved_scopes: None, tokens: None, ..self.clone() };
        let mut shown = serde_json::to_value(shown).expect("it has string keys");
        let tokens = self.tokens.as_ref().filter(|tokens| !tokens.is_empty());
        if let Some(tokens) = tokens {
            shown["tokens"] = tokens.values().map(summary).collect();
        }
        shown
    }
}

fn summary(token: &RoleToken) -> Value {
    let mut summary = serde_json::json!({
        "role": token.role, "scopes": token.scopes, "createdAtMs": token.created_at_ms,
    });
    for (name, at_ms) in [
        ("rotatedAtMs", token.rotated_at_ms),
        ("revokedAtMs", token.revoked_at_ms),
        ("lastUsedAtMs", token.last_used_at_ms),
    ] {
        if let Some(at_ms) = at_ms {
            summary[name] = at_ms.into();
        }
    }
    summary
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// As the real gateway writes it, with what a later version might add.
    pub(crate) fn file() -> Value {
        json!({"d1": {
            "deviceId": "d1", "publicKey": "k1", "platform": "linux", "clientId": "cli",
            "clientMode": "cli", "role": "operator", "roles": ["operator"],
            "scopes": ["operator.read"], "approvedScopes": ["operator.read"],
            "tokens": {"operator": {"token": "secret-1", "role": "operator",
                "scopes": ["operator.read"], "createdAtMs": 5, "addedLater": [1]}},
            "createdAtMs": 4, "approvedAtMs": 4, "lastSeenReason": "x", "nested": {"a": null},
        }})
    }

    pub(crate) fn paired(file: &Value) -> Paired {
        serde_json::from_value(file.clone()).unwrap()
    }

    fn names(list: &str) -> Vec<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_read_is_written_again_with_every_field() {
        assert_eq!(serde_json::to_value(paired(&file())).unwrap(), file());
        let least = json!({"d1": {"deviceId": "d1", "publicKey": "k1"}});
        let written = serde_json::to_value(paired(&least)).unwrap();
        assert_eq!(written["d1"]["deviceId"], "d1");
    }

    #[test]
    fn a_token_is_never_formatted_and_never_listed() {
        let device = &paired(&file())["d1"];
        assert!(!format!("{device:?}").contains("secret-1"));
        let listed = device.redacted();
        assert!(!listed.to_string().contains("secret-1"), "{listed}");
        assert_eq!(
            listed["tokens"],
            json!([
                {"role": "operator", "scopes": ["operator.read"], "createdAtMs": 5}
            ])
        );
        assert_eq!(listed.get("approvedScopes"), None);
        assert_eq!(listed["lastSeenReason"], "x");
    }

    #[test]
    fn a_token_opens_its_role_and_its_scopes_and_nothing_else() {
        use TokenRefused::{Mismatch, Scope};
        let device = &paired(&file())["d1"];
        let judged = |presented: &str, role: &str, asked: &str| {
            device.check_token(presented, role, &names(asked)).map(|token| token.created_at_ms)
        };
        assert_eq!(judged("secret-1", "operator", "operator.read"), Ok(5));
        assert_eq!(judged("secret-1", "operator", ""), Ok(5));
        assert_eq!(judged("secret-1", "operator", "operator.write"), Err(Scope));
        assert_eq!(judged("secret-1", "node", ""), Err(Mismatch));
        for wrong in ["", "secret-", "secret-11", "SECRET-1"] {
            assert_eq!(judged(wrong, "operator", ""), Err(Mismatch), "{wrong}");
        }
        // More than was approved, written there by hand.
        let mut raised = file();
        raised["d1"]["tokens"]["operator"]["scopes"] = json!(["operator.admin"]);
        let device = &paired(&raised)["d1"];
        assert_eq!(device.check_token("secret-1", "operator", &[]), Err(Scope));
        let mut revoked = file();
        revoked["d1"]["tokens"]["operator"]["revokedAtMs"] = json!(9);
        let device = &paired(&revoked)["d1"];
        assert_eq!(device.check_token("secret-1", "operator", &[]), Err(Mismatch));
        let mut emptied = file();
        emptied["d1"]["tokens"]["operator"]["token"] = json!("");
        assert_eq!(paired(&emptied)["d1"].check_token("", "operator", &[]), Err(Mismatch));
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (one, other) = (DeviceToken::random(), DeviceToken::random());
        assert_ne!(one.reveal(), other.reveal());
        // As many characters as the recorded ones.
        assert_eq!(one.reveal().len(), "oUGa1VPndWUItTzbcYX06bec_63kacaWHgCfs4hpzUw".len());
    }
}
