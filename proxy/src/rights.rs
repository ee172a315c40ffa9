//! As whom workers run: the front's own user, or another one when the front is root's.
//!
//! ```text
//! front (root) ── spawn ──► stage: groups, gid, uid, no_new_privs ── execve ──► the worker
//! ```
//!
//! The stage is this binary once more, in the process that becomes the worker: what is given up there needs no unsafe
//! code between fork and exec, and why it failed is told over the worker's link.
//!
//! **Invariants**
//! - Nothing of root's is left: supplementary groups first, then the group, then the user, real, effective and saved.
//! - Whoever cannot be is refused before any port is opened, by the name that was given.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use handoff::fd_passing;
use handoff::message::ToFront;
use nix::unistd::{Gid, Group, Uid, User};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd as _;

/// The command that is the stage.
pub(crate) const STAGE: &str = "worker-stage";
/// The exit code of a shell whose program cannot be executed.
const NOT_EXECUTED: u8 = 127;

/// What a worker may do that this front could have it do otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rights {
    identity: Option<Identity>,
    new_privileges: NewPrivileges,
}

/// Whether a worker's programs may gain rights by set-user-ID bits and the like (PR_SET_NO_NEW_PRIVS(2const)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NewPrivileges {
    #[default]
    Gained,
    Never,
}

/// Another user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Numbers", into = "Numbers")]
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// What the user database says of it.
    known: Option<(String, PathBuf)>,
}

/// An identity as it is written down for another image of the front.
#[derive(Serialize, Deserialize)]
struct Numbers {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    known: Option<(String, PathBuf)>,
}

impl From<Numbers> for Identity {
    fn from(Numbers { uid, gid, groups, known }: Numbers) -> Self {
        let groups = groups.into_iter().map(Gid::from_raw).collect();
        Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups, known }
    }
}

impl From<Identity> for Numbers {
    fn from(Identity { uid, gid, groups, known }: Identity) -> Self {
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Self { uid: uid.as_raw(), gid: gid.as_raw(), groups, known }
    }
}

/// Why workers cannot run as wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RightsRefused {
    #[error(
        "workers run as another user or group only if the front is started as root, and it runs as user {uid}"
    )]
    NotRoot { uid: Uid },
    #[error("there is no user {name:?}")]
    NoUser { name: String },
    #[error("there is no group {name:?}")]
    NoGroup { name: String },
    #[error(
        "user {uid} is not in the user database, so its group has to be named: --user {uid}:GROUP"
    )]
    GroupUnknown { uid: Uid },
    #[error("--user names the group {first:?} and --group {second:?}; name one")]
    TwoGroups { first: String, second: String },
    #[error("could not look {name:?} up")]
    LookUp { name: String, source: io::Error },
    #[error("could not prepare the state directory {}", path.display())]
    Prepare { path: PathBuf, source: io::Error },
    #[error(
        "workers run as {who}, and that user cannot write in {}: it belongs to user {owner}, mode {mode:04o}. Give it \
         to them (chown), or name another one by HOLDFAST_STATE_DIR", path.display()
    )]
    StateDirectory { path: PathBuf, who: String, owner: u32, mode: u32 },
    #[error("workers run as {who}, and that user cannot enter {}, which leads to {}", at.display(), path.display())]
    Unreachable { path: PathBuf, at: PathBuf, who: String },
}

impl Rights {
    /// Finds out who is meant: names, or numbers.
    ///
    /// # Errors
    /// [`RightsRefused`], with the name.
    pub(crate) fn of(
        user: Option<&str>,
        group: Option<&str>,
        new_privileges: NewPrivileges,
    ) -> Result<Self, RightsRefused> {
        if user.is_none() && group.is_none() {
            return Ok(Self { identity: None, new_privileges });
        }
        if !Uid::effective().is_root() {
            return Err(RightsRefused::NotRoot { uid: Uid::effective() });
        }
        let (user, own_group) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, own_group)) => (Some(user), Some(own_group).filter(|g| !g.is_empty())),
            None => (None, None),
        };
        let group = match (own_group, group) {
            (Some(first), Some(second)) if first != second => {
                let (first, second) = (first.to_owned(), second.to_owned());
                return Err(RightsRefused::TwoGroups { first, second });
            }
            (first, second) => first.or(second),
        };
        let gid = group.map(gid_of).transpose()?;
        let identity = match user {
            None => {
                let gid = gid.unwrap_or_else(Gid::effective);
                Identity { uid: Uid::effective(), gid, groups: vec![gid], known: None }
            }
            Some(user) => identity_of(user, gid)?,
        };
        Ok(Self { identity: Some(identity), new_privileges })
    }

    /// Whether workers are simply the front's children.
    pub(crate) fn are_the_fronts(&self) -> bool {
        *self == Self::default()
    }

    /// The user and group that workers run as, when they are not the front's: whose what they leave in the file system is.
    pub(crate) fn owner(&self) -> Option<(Uid, Gid)> {
        self.identity.as_ref().map(|identity| (identity.uid, identity.gid))
    }

    /// The words of the stage that makes them so.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<String> = vec![STAGE.to_owned()];
        if let Some(identity) = &self.identity {
            words.extend(["--uid".to_owned(), identity.uid.to_string()]);
            words.extend(["--gid".to_owned(), identity.gid.to_string()]);
            for group in &identity.groups {
                words.extend(["--with-group".to_owned(), group.to_string()]);
            }
        }
        if self.new_privileges == NewPrivileges::Never {
            words.push("--no-new-privs".to_owned());
        }
        words.push("--".to_owned());
        words.into_iter().map(Into::into).collect()
    }

    /// What their environment says of them, as a login would.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let known = self.identity.as_ref().and_then(|identity| identity.known.as_ref());
        let Some((name, home)) = known else { return Vec::new() };
        vec![("HOME", home.into()), ("USER", name.into()), ("LOGNAME", name.into())]
    }

    /// Sees to it that they can write in their state directory. One that is missing is made, and theirs.
    ///
    /// # Errors
    /// [`RightsRefused`], with what stands in the way.
    pub(crate) fn prepare_state_directory(&self, path: &Path) -> Result<(), RightsRefused> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let prepare = |source| RightsRefused::Prepare { path: path.to_owned(), source };
        if !path.exists() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(prepare)?;
            let (uid, gid) = (identity.uid.as_raw(), identity.gid.as_raw());
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(prepare)?;
        }
        let full = path.canonicalize().map_err(prepare)?;
        for at in full.ancestors().skip(1) {
            let found = std::fs::metadata(at).map_err(prepare)?;
            if !identity.may(&found, 0o1) {
                let (path, at) = (path.to_owned(), at.to_owned());
                return Err(RightsRefused::Unreachable { path, at, who: identity.to_string() });
            }
        }
        let found = std::fs::metadata(path).map_err(prepare)?;
        if identity.may(&found, 0o3) {
            return Ok(());
        }
        Err(RightsRefused::StateDirectory {
            path: path.to_owned(),
            who: identity.to_string(),
            owner: found.uid(),
            mode: found.mode() & 0o7777,
        })
    }
}

impl Identity {
    /// Whether its file mode bits grant this: 1 to enter, 2 to write, 4 to list.
    fn may(&self, found: &std::fs::Metadata, wanted: u32) -> bool {
        let granted = if self.uid.is_root() {
            0o7
        } else if found.uid() == self.uid.as_raw() {
            found.mode() >> 6
        } else if found.gid() == self.gid.as_raw()
            || self.groups.iter().any(|group| group.as_raw() == found.gid())
        {
            found.mode() >> 3
        } else {
            found.mode()
        };
        granted & wanted == wanted
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.known {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "user {}", self.uid),
        }
    }
}

fn identity_of(user: &str, gid: Option<Gid>) -> Result<Identity, RightsRefused> {
    let look_up =
        |errno: nix::Error| RightsRefused::LookUp { name: user.to_owned(), source: errno.into() };
    let number = user.parse().ok().map(Uid::from_raw);
    let known = match number {
        Some(uid) => User::from_uid(uid).map_err(look_up)?,
        None => User::from_name(user).map_err(look_up)?,
    };
    match (known, number) {
        (Some(known), _) => {
            let gid = gid.unwrap_or(known.gid);
            let name = CString::new(known.name.clone())
                .map_err(|_| RightsRefused::NoUser { name: user.to_owned() })?;
            let groups = nix::unistd::getgrouplist(&name, gid).map_err(look_up)?;
            Ok(Identity { uid: known.uid, gid, groups, known: Some((known.name, known.dir)) })
        }
        (None, Some(uid)) => {
            let gid = gid.ok_or(RightsRefused::GroupUnknown { uid })?;
            Ok(Identity { uid, gid, groups: vec![gid], known: None })
        }
        (None, None) => Err(RightsRefused::NoUser { name: user.to_owned() }),
    }
}

fn gid_of(group: &str) -> Result<Gid, RightsRefused> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(group)
        .map_err(|errno| RightsRefused::LookUp { name: group.to_owned(), source: errno.into() })?;
    found.map(|g| g.gid).ok_or_else(|| RightsRefused::NoGroup { name: group.to_owned() })
}

/// Become a worker with other rights: for holdfast itself
#[derive(Debug, Args)]
pub(crate) struct Stage {
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    #[arg(long)]
    gid: Option<u32>,
    #[arg(long)]
    with_group: Vec<u32>,
    #[arg(long)]
    no_new_privs: bool,
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

impl Stage {
    /// Becomes the worker, or tells the front why not.
    pub(crate) fn perform(self) -> ExitCode {
        let reason = match self.give_up_rights() {
            Err(errno) => format!("its rights could not be given up: {}", io::Error::from(errno)),
            Ok(()) => {
                let source = Command::new(&self.program[0]).args(&self.program[1..]).exec();
                let who = Uid::effective();
                format!(
                    "{} could not be executed by user {who}: {source}",
                    self.program[0].display()
                )
            }
        };
        // A front that is gone needs no reason.
        let link = io::stdin().as_fd().try_clone_to_owned().map(UnixDatagram::from);
        if let (Ok(link), Ok(packet)) = (link, serde_json::to_vec(&ToFront::Refuse { reason })) {
            let _ = fd_passing::send(&link, &packet, &[]);
        }
        ExitCode::from(NOT_EXECUTED)
    }

    fn give_up_rights(&self) -> nix::Result<()> {
        if let (Some(uid), Some(gid)) = (self.uid, self.gid) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let groups: Vec<Gid> = self.with_group.iter().copied().map(Gid::from_raw).collect();
            nix::unistd::setgroups(&groups)?;
            nix::unistd::setresgid(gid, gid, gid)?;
            nix::unistd::setresuid(uid, uid, uid)?;
        }
        if self.no_new_privs {
            nix::sys::prctl::set_no_new_privs()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_there_is_refused_by_name() {
        if !Uid::effective().is_root() {
            let refused = Rights::of(Some("nobody"), None, NewPrivileges::Gained).unwrap_err();
            assert!(matches!(refused, RightsRefused::NotRoot { .. }));
            return;
        }
        let refused = |user: Option<&str>, group: Option<&str>| {
            Rights::of(user, group, NewPrivileges::Gained).unwrap_err().to_string()
        };
        assert!(refused(Some("no-such-user"), None).contains("no user \"no-such-user\""));
        assert!(refused(Some("root:no-such-group"), None).contains("no group \"no-such-group\""));
        assert!(refused(Some("54321"), None).contains("--user 54321:GROUP"));
        assert!(refused(Some("root:1"), Some("2")).contains("name one"));
        let number = Rights::of(Some("54321:54322"), None, NewPrivileges::Gained).unwrap();
        assert_eq!(number.owner(), Some((Uid::from_raw(54321), Gid::from_raw(54322))));
        let group = Rights::of(None, Some("54322"), NewPrivileges::Gained).unwrap();
        assert_eq!(group.owner(), Some((Uid::effective(), Gid::from_raw(54322))));
    }

    #[test]
    fn a_state_directory_is_made_for_them_and_anothers_is_refused() {
        if !Uid::effective().is_root() {
            return;
        }
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let directory = tempfile::tempdir().unwrap();
        mode(directory.path(), 0o755);
        let rights = Rights::of(Some("54321:54322"), None, NewPrivileges::Gained).unwrap();
        let theirs = directory.path().join("theirs");
        rights.prepare_state_directory(&theirs).unwrap();
        assert_eq!(std::fs::metadata(&theirs).unwrap().uid(), 54321);
        let roots = directory.path().join("roots");
        std::fs::create_dir(&roots).unwrap();
        mode(&roots, 0o755);
        let refused = rights.prepare_state_directory(&roots).unwrap_err().to_string();
        assert!(refused.contains("user 54321") && refused.contains("chown"), "{refused}");
        mode(directory.path(), 0o700);
        let refused = rights.prepare_state_directory(&theirs).unwrap_err();
        assert!(matches!(refused, RightsRefused::Unreachable { .. }), "{refused}");
    }

    #[test]
    fn without_a_wish_nothing_is_given_up() {
        assert!(Rights::of(None, None, NewPrivileges::Gained).unwrap().are_the_fronts());
        let rights = Rights::of(None, None, NewPrivileges::Never).unwrap();
        assert_eq!(rights.words(), ["worker-stage", "--no-new-privs", "--"]);
    }
}
