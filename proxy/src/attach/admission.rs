//! Who may attach: users that are named, and whoever knows the token where the kernel cannot tell users apart.
//!
//! **Invariants**
//! - A user is who the kernel says (SO_PEERCRED in unix(7)), never who the caller says.
//! - The token is compared in a time that tells nothing of it, and never logged.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// What the kernel calls every user that has no name in this process's user namespace (`overflowuid` in
/// user_namespaces(7)).
const UNMAPPED: u32 = 65_534;
/// The shortest token: what is shorter can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// What the operator decided about workers that attach.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Admission {
    pub(crate) path: PathBuf,
    /// Of the socket's file.
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
    /// Besides the front's own user and root.
    pub(crate) users: Vec<u32>,
    pub(crate) token_file: Option<PathBuf>,
}

/// Why a caller may not attach.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("user {user} may not attach to this front (--attach-uid)")]
    User { user: u32 },
    #[error(
        "the kernel cannot tell here which user it is ({UNMAPPED}): it has to know a token (--attach-token-file)"
    )]
    Unmapped,
    #[error("the token is not this front's")]
    Token,
    #[error("the front could not read the token from {}", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the front's token in {} is shorter than {SHORTEST_TOKEN} characters", path.display())]
    ShortToken { path: PathBuf },
}

impl Admission {
    /// Whether this user may attach, who says this token.
    pub(crate) fn judge(&self, user: u32, token: Option<&str>) -> Result<(), Refused> {
        if user == UNMAPPED {
            return match token {
                Some(token) if self.token_file.is_some() => self.compare(token),
                Some(_) | None => Err(Refused::Unmapped),
            };
        }
        let known = [0, Uid::effective().as_raw()];
        if known.contains(&user) || self.users.contains(&user) {
            Ok(())
        } else {
            Err(Refused::User { user })
        }
    }

    /// The file is read each time: a token may be changed while the front runs.
    fn compare(&self, token: &str) -> Result<(), Refused> {
        let Some(path) = &self.token_file else { return Err(Refused::Unmapped) };
        let wanted = fs::read_to_string(path)
            .map_err(|source| Refused::TokenFile { path: path.clone(), source })?;
        let wanted = wanted.trim();
        if wanted.len() < SHORTEST_TOKEN {
            return Err(Refused::ShortToken { path: path.clone() });
        }
        if bool::from(wanted.as_bytes().ct_eq(token.as_bytes())) {
            Ok(())
        } else {
            Err(Refused::Token)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(token: Option<&str>) -> (tempfile::TempDir, Admission) {
        let directory = tempfile::tempdir().unwrap();
        let token_file = token.map(|token| {
            let path = directory.path().join("token");
            fs::write(&path, format!("{token}\n")).unwrap();
            path
        });
        let path = directory.path().join("attach.sock");
        (directory, Admission { path, mode: 0o600, group: None, users: vec![4242], token_file })
    }

    #[test]
    fn the_fronts_user_root_and_who_is_named_may_attach_and_nobody_else() {
        let (_directory, admission) = admission(None);
        for user in [0, Uid::effective().as_raw(), 4242] {
            assert!(admission.judge(user, None).is_ok(), "{user}");
        }
        for user in [4243, UNMAPPED] {
            assert!(admission.judge(user, Some("any token there is")).is_err(), "{user}");
        }
    }

    #[test]
    fn a_user_without_a_name_needs_the_token_and_nobody_else_does() {
        let (_directory, admission) = admission(Some("0123456789abcdef"));
        assert!(admission.judge(UNMAPPED, Some("0123456789abcdef")).is_ok());
        for token in [None, Some(""), Some("0123456789abcdeF"), Some("0123456789abcdef0")] {
            assert!(admission.judge(UNMAPPED, token).is_err(), "{token:?}");
        }
        assert!(admission.judge(4242, None).is_ok());
        let refused = admission.judge(4243, Some("0123456789abcdef"));
        assert!(matches!(refused, Err(Refused::User { user: 4243 })), "{refused:?}");
    }

    #[test]
    fn a_token_that_can_be_guessed_opens_nothing() {
        for token in ["", "short"] {
            let (_directory, admission) = admission(Some(token));
            let refused = admission.judge(UNMAPPED, Some(token));
            assert!(matches!(refused, Err(Refused::ShortToken { .. })), "{refused:?}");
        }
    }
}
