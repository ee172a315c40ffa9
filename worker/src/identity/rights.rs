//! What scopes mean to a role: which include others, and whether those asked for are among those allowed.
//!
//! ```text
//! operator.admin ⊃ every operator.*        operator.write ⊃ operator.read
//! any other role: its own scopes (`node.x`), each by its name
//! ```

/// The role of people and their programs.
pub(crate) const OPERATOR: &str = "operator";
const ADMIN: &str = "operator.admin";
const WRITE: &str = "operator.write";
const READ: &str = "operator.read";
const OPERATOR_PREFIX: &str = "operator.";

/// Every name of the lists once, trimmed, in the order in which it was met.
pub(crate) fn merged<'a>(lists: impl IntoIterator<Item = &'a [String]>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in lists.into_iter().flatten() {
        let name = name.trim();
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Every name once, sorted, with the scopes that are included.
pub(crate) fn normalized(scopes: &[String]) -> Vec<String> {
    let mut names = merged([scopes]);
    let holds = |name: &str| names.iter().any(|held| held == name);
    let included: &[&str] = if holds(ADMIN) {
        &[READ, WRITE]
    } else if holds(WRITE) {
        &[READ]
    } else {
        &[]
    };
    names.extend(included.iter().map(|name| (*name).to_owned()));
    names.sort_unstable();
    names.dedup();
    names
}

/// Of these scopes those that a token of this role can carry.
pub(crate) fn of_role(role: &str, scopes: &[String]) -> Vec<String> {
    let mut scopes = normalized(scopes);
    scopes.retain(|scope| scope.starts_with(OPERATOR_PREFIX) == (role == OPERATOR));
    scopes
}

/// Whether each scope that is asked for is among those allowed, or included in one.
pub(crate) fn allow(role: &str, asked: &[String], allowed: &[String]) -> bool {
    missing(role, asked, allowed).is_none()
}

/// The first scope asked for that is not allowed.
pub(crate) fn missing<'a>(role: &str, asked: &'a [String], allowed: &[String]) -> Option<&'a str> {
    let holds = |name: &str| allowed.iter().any(|held| held.trim() == name);
    let satisfied = |scope: &str| {
        if role != OPERATOR {
            return belongs(role, scope) && holds(scope);
        }
        scope.starts_with(OPERATOR_PREFIX)
            && (holds(ADMIN) || holds(scope) || (scope == READ && holds(WRITE)))
    };
    asked.iter().map(|scope| scope.trim()).find(|scope| !scope.is_empty() && !satisfied(scope))
}

/// The first scope asked for that belongs to none of the roles.
pub(crate) fn foreign<'a>(roles: &[String], asked: &'a [String]) -> Option<&'a str> {
    let native = |scope: &str| roles.iter().any(|role| belongs(role, scope));
    asked.iter().map(|scope| scope.trim()).find(|scope| !scope.is_empty() && !native(scope))
}

fn belongs(role: &str, scope: &str) -> bool {
    scope.strip_prefix(role).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_greater_scope_includes_the_lesser_and_names_are_sorted() {
        for (scopes, expected) in [
            ("operator.admin", "operator.admin operator.read operator.write"),
            ("operator.write", "operator.read operator.write"),
            ("operator.read operator.read", "operator.read"),
            (
                "operator.talk.secrets operator.approvals",
                "operator.approvals operator.talk.secrets",
            ),
            ("", ""),
        ] {
            assert_eq!(normalized(&names(scopes)), names(expected), "{scopes}");
        }
    }

    #[test]
    fn what_is_allowed_is_what_is_held_or_included() {
        for (role, asked, allowed, missed) in [
            ("operator", "", "", None),
            ("operator", "operator.read", "", Some("operator.read")),
            ("operator", "operator.read", "operator.write", None),
            ("operator", "operator.write", "operator.read", Some("operator.write")),
            ("operator", "operator.pairing operator.read", "operator.admin", None),
            ("operator", "operator.pairing", "operator.write", Some("operator.pairing")),
            ("operator", "node.camera", "operator.admin node.camera", Some("node.camera")),
            ("node", "node.camera", "node.camera", None),
            ("node", "node.camera", "operator.admin", Some("node.camera")),
            ("node", "operator.read", "operator.read", Some("operator.read")),
        ] {
            assert_eq!(
                missing(role, &names(asked), &names(allowed)),
                missed,
                "{asked} of {allowed}"
            );
        }
    }

    #[test]
    fn a_scope_of_no_requested_role_is_foreign() {
        assert_eq!(foreign(&names("operator node"), &names("operator.read node.x")), None);
        assert_eq!(foreign(&names("node"), &names("operator.read")), Some("operator.read"));
        assert_eq!(foreign(&names("operator"), &names("operators.read")), Some("operators.read"));
    }

    #[test]
    fn a_token_carries_the_scopes_of_its_role_alone() {
        let scopes = names("operator.write node.camera");
        assert_eq!(of_role("operator", &scopes), names("operator.read operator.write"));
        assert_eq!(of_role("node", &scopes), names("node.camera"));
    }
}
