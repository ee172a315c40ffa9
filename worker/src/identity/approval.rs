//! Approving what a device asks for: what it may do from now on, and the tokens that say so.
//!
//! **Invariants**
//! - Nobody approves what they could not do themselves.
//! - An approval adds to what was approved before; it never takes anything away.

use super::paired::{PairedDevice, RoleToken};
use super::pairing::Tables;
use super::pending::PendingRequest;
use super::rights::{self, OPERATOR};

/// Why a request is not approved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApprovalRefused {
    /// There is no such request, or no longer.
    #[error("unknown requestId")]
    Unknown,
    /// It asks for a scope that belongs to none of its roles.
    #[error("invalid scope for requested roles: {scope}")]
    ForeignScope {
        /// Which.
        scope: String,
    },
    /// Whoever approves does not hold what would be given.
    #[error("missing scope: {scope}")]
    CallerLacks {
        /// Which.
        scope: String,
    },
}

/// Approves a request for somebody who holds these scopes, and issues a token for each of its roles.
///
/// # Errors
/// [`ApprovalRefused`]; nothing has changed then.
pub(crate) fn approve<'a>(
    tables: &'a mut Tables,
    request_id: &str,
    caller_scopes: &[String],
    now_ms: u64,
) -> Result<&'a PairedDevice, ApprovalRefused> {
    let request = tables.pending.get(request_id).ok_or(ApprovalRefused::Unknown)?;
    let asked_roles = request.roles();
    if let Some(scope) = rights::foreign(&asked_roles, request.scopes()) {
        return Err(ApprovalRefused::ForeignScope { scope: scope.to_owned() });
    }
    let former = tables.paired.get(&request.device_id);
    let former = former.filter(|former| former.public_key == request.public_key);
    let mut tokens = Vec::new();
    for role in &asked_roles {
        let scopes = token_scopes(role, request, former);
        if role == OPERATOR && !scopes.is_empty() {
            let given = rights::merged([&*rights::of_role(role, request.scopes()), &scopes]);
            if let Some(scope) = rights::missing(role, &given, caller_scopes) {
                return Err(ApprovalRefused::CallerLacks { scope: scope.to_owned() });
            }
        }
        let held = former.and_then(|former| former.token(role));
        tokens.push(RoleToken::issued(role, scopes, held, now_ms));
    }
    let former = former.cloned().unwrap_or_default();
    let approved = former.approved().unwrap_or_default();
    let approved = rights::merged([approved, request.scopes()]);
    let request = request.clone();
    let mut device = PairedDevice {
        device_id: request.device_id.clone(),
        roles: Some(rights::merged([&*former.roles(), &*asked_roles])),
        public_key: request.public_key,
        display_name: request.display_name,
        platform: request.platform,
        device_family: request.device_family,
        client_id: request.client_id,
        client_mode: request.client_mode,
        remote_ip: request.remote_ip,
        role: request.role,
        scopes: Some(approved.clone()),
        approved_scopes: Some(approved),
        created_at_ms: if former.device_id.is_empty() { now_ms } else { former.created_at_ms },
        approved_at_ms: now_ms,
        ..former
    };
    for token in tokens {
        device.hold(token);
    }
    tables.pending.remove(request_id);
    tables.paired.insert(request.device_id.clone(), device);
    Ok(&tables.paired[&request.device_id])
}

/// What the token of an approved request carries: what the former one did, and what is newly approved.
fn token_scopes(
    role: &str,
    request: &PendingRequest,
    former: Option<&PairedDevice>,
) -> Vec<String> {
    let asked = rights::of_role(role, request.scopes());
    let approved = former.and_then(PairedDevice::approved).unwrap_or_default();
    let held = former.and_then(|former| former.token(role)).map(|token| &*token.scopes);
    let (Some(held), false) = (held, asked.is_empty()) else {
        return match held {
            Some(held) => rights::of_role(role, held),
            None if asked.is_empty() => rights::of_role(role, approved),
            None => asked,
        };
    };
    let baseline = rights::of_role(role, approved);
    let added: Vec<_> = asked.into_iter().filter(|scope| !baseline.contains(scope)).collect();
    rights::of_role(role, &rights::merged([held, &*added]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::pairing::tests::{NOW_MS, ask, names, paired_for};
    use crate::identity::pairing::{Ask, Refused, admit};

    /// The id of the request that it takes to admit this device.
    fn asked(tables: &mut Tables, ask: &Ask) -> String {
        match admit(tables, ask, NOW_MS + 1) {
            Err(Refused::Pairing(required)) => required.request_id,
            other => panic!("{other:?} needs no pairing"),
        }
    }

    #[test]
    fn an_approved_upgrade_adds_to_what_there_was_and_replaces_the_token() {
        let mut tables = paired_for("operator.read");
        let first = tables.paired.values().next().unwrap().clone();
        let id = &asked(&mut tables, &ask(1, "operator.pairing"));
        // Nobody gives what they do not hold.
        for holds in ["", "operator.read", "operator.write operator.approvals"] {
            let lacks = approve(&mut tables, id, &names(holds), NOW_MS + 2).unwrap_err();
            assert_eq!(lacks.to_string(), "missing scope: operator.pairing", "{holds}");
        }
        approve(&mut tables, id, &names("operator.pairing operator.read"), NOW_MS + 2).unwrap();
        let device = tables.paired.values().next().unwrap();
        assert_eq!(device.approved_scopes, Some(names("operator.read operator.pairing")));
        assert_eq!((device.created_at_ms, device.approved_at_ms), (NOW_MS, NOW_MS + 2));
        let token = device.token("operator").unwrap();
        assert_eq!(token.scopes, names("operator.pairing operator.read"));
        assert_eq!((token.created_at_ms, token.rotated_at_ms), (NOW_MS, Some(NOW_MS + 2)));
        assert_ne!(token.token, first.token("operator").unwrap().token);
        assert_eq!(
            approve(&mut tables, id, &names("operator.admin"), NOW_MS),
            Err(ApprovalRefused::Unknown)
        );
    }

    #[test]
    fn a_scope_of_another_role_is_approved_by_nobody() {
        let mut tables = Tables::default();
        let id = asked(&mut tables, &ask(1, "operator.read node.camera"));
        let refused = approve(&mut tables, &id, &names("operator.admin"), NOW_MS).unwrap_err();
        assert_eq!(refused.to_string(), "invalid scope for requested roles: node.camera");
    }
}
