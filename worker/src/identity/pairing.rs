//! Whether a device that has proven who it is may connect: a policy over two tables, without files or clocks.
//!
//! ```text
//!                      ┌ unknown ─────── not-paired ───────┐            approved by itself, when it
//! own token? ─► judge ─┼ other machine ─ metadata-upgrade ─┼─► request ─ is on this machine and gets
//!                      ├ other role ──── role-upgrade ─────┤            no scope it did not have
//!                      ├ more scopes ─── scope-upgrade ────┘ else: waits, the client is refused
//!                      └ as approved ─► its token for this role
//! ```
//!
//! **Invariants**
//! - Whoever is known never gets a further scope without somebody who holds that scope approving it.

use std::net::IpAddr;

use super::Locality;
use super::approval::approve;
use super::device::{Device, machine_word};
use super::paired::{DeviceToken, Paired, PairedDevice, RoleToken, TokenRefused};
use super::pending::{self, Pending, PendingRequest};
use super::requirement::{PairingRequired, Reason};
use super::rights;

/// How exactly it is known when a token was used last, in ms: not every handshake is worth a write.
const USED_RESOLUTION_MS: u64 = 60_000;
/// The apps whose users see and update the machine they run on.
const NATIVE_APPS: [&str; 3] = ["openclaw-android", "openclaw-ios", "openclaw-macos"];

/// Both tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tables {
    pub(crate) paired: Paired,
    pub(crate) pending: Pending,
}

/// A device that wants to connect, and as what.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) device: Device,
    pub(crate) role: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) client_mode: String,
    pub(crate) display_name: Option<String>,
    pub(crate) platform: String,
    pub(crate) device_family: Option<String>,
    pub(crate) locality: Locality,
    /// Where it is, for whoever may approve it.
    pub(crate) remote_ip: Option<IpAddr>,
    pub(crate) proof: Proof,
}

/// What a client has shown beside its device's signature.
#[derive(Clone)]
pub(crate) enum Proof {
    /// The token that everybody knows; it was the right one.
    SharedToken,
    /// What may be its device's own token. Nobody has looked at it.
    OwnToken(String),
}

/// A device that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Its token, unless it needs none.
    pub(crate) issued: Option<Issued>,
    /// The request that was approved for it just now, by itself.
    pub(crate) approved: Option<String>,
}

impl Admitted {
    const fn without_token(approved: Option<String>) -> Self {
        Self { issued: None, approved }
    }
}

/// A token that its device is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) token: DeviceToken,
    pub(crate) scopes: Vec<String>,
    pub(crate) issued_at_ms: u64,
}

/// Why a device may not connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its own token is not its own token.
    Token(TokenRefused),
    /// Somebody has to approve it first.
    Pairing(Box<PairingRequired>),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SharedToken => "SharedToken",
            Self::OwnToken(_) => "OwnToken(…)",
        })
    }
}

impl Ask {
    fn known<'a>(&self, paired: &'a Paired) -> Option<&'a PairedDevice> {
        let known = paired.get(self.device.id());
        known.filter(|known| known.public_key == self.device.public_key())
    }

    /// A program of this machine's own gateway, which knows the shared token: nobody needs to approve it.
    fn is_local_backend(&self) -> bool {
        self.client_id == "gateway-client"
            && self.client_mode == "backend"
            && self.locality == Locality::Local
            && matches!(self.proof, Proof::SharedToken)
    }

    fn is_native_app(&self) -> bool {
        self.client_mode == "ui" && NATIVE_APPS.contains(&&*self.client_id)
    }

    fn exceeds(&self, known: &PairedDevice) -> bool {
        !rights::allow(&self.role, &self.scopes, known.approved().unwrap_or_default())
    }

    /// Whether a request for this reason may be approved without anybody looking at it.
    fn is_silent(&self, reason: Reason, known: Option<&PairedDevice>) -> bool {
        let harmless = match reason {
            Reason::NotPaired | Reason::RoleUpgrade => true,
            Reason::MetadataUpgrade => self.is_native_app(),
            Reason::ScopeUpgrade => false,
        };
        // A greater role must not be a way to greater scopes.
        harmless
            && self.locality == Locality::Local
            && !known.is_some_and(|known| self.exceeds(known))
    }

    fn request(&self, reason: Reason, known: Option<&PairedDevice>, now_ms: u64) -> PendingRequest {
        PendingRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            device_id: self.device.id().to_owned(),
            public_key: self.device.public_key().to_owned(),
            display_name: self.display_name.clone(),
            platform: Some(self.platform.clone()),
            device_family: self.device_family.clone(),
            client_id: Some(self.client_id.clone()),
            client_mode: Some(self.client_mode.clone()),
            role: Some(self.role.clone()),
            roles: Some(vec![self.role.clone()]),
            scopes: Some(rights::merged([&*self.scopes])),
            remote_ip: self.remote_ip.map(|address| address.to_string()),
            silent: self.is_silent(reason, known),
            is_repair: known.is_some(),
            ts: now_ms,
            unknown: serde_json::Map::new(),
        }
    }

    fn uses_token_anew(&self, known: &PairedDevice, now_ms: u64) -> bool {
        let last_used_at_ms = known.token(&self.role).and_then(|token| token.last_used_at_ms);
        matches!(self.proof, Proof::OwnToken(_))
            && last_used_at_ms.is_none_or(|at_ms| now_ms.abs_diff(at_ms) >= USED_RESOLUTION_MS)
    }
}

/// Whether a device is as it was approved, and if not, what somebody has to approve.
fn judge<'a>(paired: &'a Paired, ask: &Ask) -> Result<&'a PairedDevice, Reason> {
    let known = ask.known(paired).ok_or(Reason::NotPaired)?;
    let moved = |approved: Option<&String>, claimed: Option<&str>| {
        let approved = machine_word(approved.map_or("", String::as_str));
        !approved.is_empty() && approved != machine_word(claimed.unwrap_or_default())
    };
    if moved(known.platform.as_ref(), Some(&ask.platform))
        || moved(known.device_family.as_ref(), ask.device_family.as_deref())
    {
        return Err(Reason::MetadataUpgrade);
    }
    if !known.acts_as(&ask.role) {
        return Err(Reason::RoleUpgrade);
    }
    if ask.exceeds(known) {
        return Err(Reason::ScopeUpgrade);
    }
    Ok(known)
}

fn check_own_token(paired: &Paired, ask: &Ask) -> Result<(), TokenRefused> {
    match &ask.proof {
        Proof::SharedToken => Ok(()),
        Proof::OwnToken(presented) => {
            let known = ask.known(paired).ok_or(TokenRefused::Mismatch)?;
            known.check_token(presented, &ask.role, &ask.scopes).map(drop)
        }
    }
}

/// The answer as the table stands; `None` when something has to be approved or issued first.
pub(crate) fn standing(paired: &Paired, ask: &Ask) -> Option<Result<Admitted, Refused>> {
    if let Err(refused) = check_own_token(paired, ask) {
        return Some(Err(Refused::Token(refused)));
    }
    match judge(paired, ask) {
        Ok(known) => {
            let token = known.sufficient_token(&ask.role, &ask.scopes)?;
            Some(Ok(Admitted { issued: Some(Issued::of(token)), approved: None }))
        }
        Err(Reason::NotPaired) if ask.is_local_backend() => Some(Ok(Admitted::without_token(None))),
        Err(_) => None,
    }
}

/// Whether the table has to be written, if only to say that this device was here.
pub(crate) fn is_news(paired: &Paired, ask: &Ask, now_ms: u64) -> bool {
    ask.known(paired).is_some_and(|known| {
        known.display_name != ask.display_name
            || known.client_id.as_ref() != Some(&ask.client_id)
            || known.client_mode.as_ref() != Some(&ask.client_mode)
            || ask.uses_token_anew(known, now_ms)
    })
}

/// Judges a device, and writes down what follows.
///
/// # Errors
/// [`Refused`]. A request may wait in the tables then.
pub(crate) fn admit(tables: &mut Tables, ask: &Ask, now_ms: u64) -> Result<Admitted, Refused> {
    check_own_token(&tables.paired, ask).map_err(Refused::Token)?;
    let approved = match judge(&tables.paired, ask) {
        Ok(_) => None,
        Err(Reason::NotPaired) if ask.is_local_backend() => {
            return Ok(Admitted::without_token(None));
        }
        Err(reason) => Some(pair(tables, ask, reason, now_ms)?),
    };
    let Some(known) = tables.paired.get_mut(ask.device.id()) else {
        return Ok(Admitted::without_token(approved));
    };
    known.display_name.clone_from(&ask.display_name);
    known.client_id = Some(ask.client_id.clone());
    known.client_mode = Some(ask.client_mode.clone());
    let used = ask.uses_token_anew(known, now_ms);
    if used && let Some(token) = known.tokens.as_mut().and_then(|held| held.get_mut(&ask.role)) {
        token.last_used_at_ms = Some(now_ms);
    }
    if known.sufficient_token(&ask.role, &ask.scopes).is_none() {
        if !known.may_carry(&ask.role, &ask.scopes) {
            return Ok(Admitted::without_token(approved));
        }
        let scopes = rights::normalized(&ask.scopes);
        known.hold(RoleToken::issued(&ask.role, scopes, known.token(&ask.role), now_ms));
    }
    Ok(Admitted { issued: known.token(&ask.role).map(Issued::of), approved })
}

/// Asks for an approval, and gives it when nobody has to look. The id of the request that was approved.
fn pair(tables: &mut Tables, ask: &Ask, reason: Reason, now_ms: u64) -> Result<String, Refused> {
    let known = ask.known(&tables.paired).cloned();
    let request = ask.request(reason, known.as_ref(), now_ms);
    let waited: Vec<_> = tables.pending.keys().cloned().collect();
    let request_id = pending::ask(&mut tables.pending, request);
    if tables.pending[&request_id].silent
        && approve(tables, &request_id, &ask.scopes, now_ms).is_ok()
    {
        return Ok(request_id);
    }
    let is_news = !waited.contains(&request_id);
    let news = is_news.then(|| tables.pending[&request_id].clone());
    let known = known.unwrap_or_default();
    Err(Refused::Pairing(Box::new(PairingRequired {
        reason,
        request_id,
        news,
        device_id: ask.device.id().to_owned(),
        role: ask.role.clone(),
        scopes: rights::merged([&*ask.scopes]),
        approved_roles: known.roles(),
        approved_scopes: known.approved().unwrap_or_default().to_vec(),
    })))
}

impl Issued {
    fn of(token: &RoleToken) -> Self {
        Self {
            token: token.token.clone(),
            scopes: token.scopes.clone(),
            issued_at_ms: token.issued_at_ms(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::identity::device::tests::proven;

    pub(crate) const NOW_MS: u64 = 1_795_224_764_600;

    /// What the recorded CLI asks for, on the device of this seed.
    pub(crate) fn ask(seed: u8, scopes: &str) -> Ask {
        Ask {
            device: proven(seed),
            role: "operator".to_owned(),
            scopes: scopes.split_whitespace().map(str::to_owned).collect(),
            client_id: "cli".to_owned(),
            client_mode: "cli".to_owned(),
            display_name: None,
            platform: "linux".to_owned(),
            device_family: None,
            locality: Locality::Local,
            remote_ip: None,
            proof: Proof::SharedToken,
        }
    }

    /// Tables in which the device of seed 1 was paired for these scopes.
    pub(crate) fn paired_for(scopes: &str) -> Tables {
        let mut tables = Tables::default();
        admit(&mut tables, &ask(1, scopes), NOW_MS).unwrap();
        tables
    }

    pub(crate) fn names(list: &str) -> Vec<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    fn reason(refused: Result<Admitted, Refused>) -> Reason {
        match refused {
            Err(Refused::Pairing(required)) => required.reason,
            other => panic!("{other:?} needs no pairing"),
        }
    }

    #[test]
    fn a_first_pairing_on_this_machine_is_approved_by_itself_and_issues_a_token() {
        let mut tables = Tables::default();
        let asked = ask(1, "operator.admin");
        let issued = admit(&mut tables, &asked, NOW_MS).unwrap().issued.unwrap();
        // As recorded: the token carries what the scope includes, the approval does not.
        assert_eq!(issued.scopes, names("operator.admin operator.read operator.write"));
        let device = &tables.paired[asked.device.id()];
        assert_eq!(device.approved_scopes, Some(names("operator.admin")));
        assert_eq!((device.created_at_ms, device.approved_at_ms), (NOW_MS, NOW_MS));
        assert!(tables.pending.is_empty());
        // It stays the same token, for all that it carries.
        for scopes in ["operator.admin", "operator.read", "operator.pairing", ""] {
            let again = standing(&tables.paired, &ask(1, scopes)).unwrap().unwrap();
            assert_eq!(again.issued, Some(issued.clone()), "{scopes}");
        }
    }

    #[test]
    fn who_is_elsewhere_waits_for_an_approval() {
        let mut tables = Tables::default();
        let asked = Ask { locality: Locality::Remote, ..ask(1, "operator.read") };
        assert_eq!(reason(admit(&mut tables, &asked, NOW_MS)), Reason::NotPaired);
        assert!(tables.paired.is_empty());
        let request_id = tables.pending.keys().next().unwrap().clone();
        // Not even by coming from this machine afterwards: somebody was asked to look.
        assert_eq!(reason(admit(&mut tables, &ask(1, "operator.read"), NOW_MS)), Reason::NotPaired);
        assert_eq!(tables.pending.len(), 1);
        approve(&mut tables, &request_id, &names("operator.admin"), NOW_MS).unwrap();
        assert!(admit(&mut tables, &asked, NOW_MS).is_ok());
    }

    #[test]
    fn whoever_is_known_gets_nothing_more_by_itself() {
        type Change = fn(&mut Ask);
        let cases: [(Change, Reason); 7] = [
            (|a| a.scopes = names("operator.write"), Reason::ScopeUpgrade),
            (|a| a.scopes = names("operator.read operator.pairing"), Reason::ScopeUpgrade),
            (|a| a.scopes = names("node.camera"), Reason::ScopeUpgrade),
            (|a| a.platform = "darwin".to_owned(), Reason::MetadataUpgrade),
            (|a| (a.role, a.scopes) = ("node".to_owned(), names("node.x")), Reason::RoleUpgrade),
            (
                |a| {
                    a.role = "node".to_owned();
                    a.scopes = Vec::new();
                    a.locality = Locality::Remote;
                },
                Reason::RoleUpgrade,
            ),
            (
                |a| (a.client_id, a.platform) = ("openclaw-ios".to_owned(), "ios".to_owned()),
                Reason::MetadataUpgrade,
            ),
        ];
        for (number, (change, expected)) in cases.into_iter().enumerate() {
            let mut tables = paired_for("operator.read");
            let paired = tables.paired.clone();
            let mut asked = ask(1, "operator.read");
            change(&mut asked);
            assert_eq!(standing(&tables.paired, &asked), None);
            assert_eq!(reason(admit(&mut tables, &asked, NOW_MS)), expected, "case {number}");
            assert_eq!(tables.paired, paired, "case {number}");
            assert_eq!(tables.pending.len(), 1);
        }
    }

    #[test]
    fn what_gives_nothing_more_is_approved_by_itself_on_this_machine() {
        let mut tables = paired_for("operator.read");
        let node = Ask { role: "node".to_owned(), ..ask(1, "") };
        assert_eq!(admit(&mut tables, &node, NOW_MS).unwrap().issued.unwrap().scopes, names(""));
        let mut app = ask(1, "operator.read");
        app.client_mode = "ui".to_owned();
        app.client_id = "openclaw-macos".to_owned();
        app.platform = "macos 27".to_owned();
        admit(&mut tables, &app, NOW_MS).unwrap();
        let device = &tables.paired[app.device.id()];
        assert_eq!(device.roles(), names("operator node"));
        assert_eq!(device.platform.as_deref(), Some("macos 27"));
        // A revoked token is such a case as well: whoever knows the shared token could pair anew.
        let id = app.device.id().to_owned();
        let token = tables.paired[&id].token("operator").unwrap().clone();
        let revoked = RoleToken { revoked_at_ms: Some(NOW_MS), ..token.clone() };
        tables.paired.get_mut(&id).unwrap().hold(revoked);
        let own = Ask { proof: Proof::OwnToken(token.token.reveal().to_owned()), ..app.clone() };
        let refused = admit(&mut tables, &own, NOW_MS);
        assert_eq!(refused, Err(Refused::Token(TokenRefused::Mismatch)));
        let anew = admit(&mut tables, &app, NOW_MS).unwrap().issued.unwrap();
        assert_ne!(anew.token, token.token);
    }

    #[test]
    fn an_own_token_is_noted_once_a_minute_and_a_new_name_at_once() {
        let mut tables = paired_for("operator.read");
        let token = tables.paired.values().next().unwrap().token("operator").unwrap().clone();
        let own = Ask {
            proof: Proof::OwnToken(token.token.reveal().to_owned()),
            ..ask(1, "operator.read")
        };
        assert!(!is_news(&tables.paired, &ask(1, "operator.read"), NOW_MS));
        assert!(is_news(&tables.paired, &own, NOW_MS));
        admit(&mut tables, &own, NOW_MS).unwrap();
        assert!(!is_news(&tables.paired, &own, NOW_MS + 59_999));
        assert!(is_news(&tables.paired, &own, NOW_MS + 60_000));
        let renamed = Ask { display_name: Some("desk".to_owned()), ..own };
        assert!(is_news(&tables.paired, &renamed, NOW_MS));
        admit(&mut tables, &renamed, NOW_MS).unwrap();
        let device = tables.paired.values().next().unwrap();
        assert_eq!(device.display_name.as_deref(), Some("desk"));
        assert_eq!(device.token("operator").unwrap().last_used_at_ms, Some(NOW_MS));
    }
}
