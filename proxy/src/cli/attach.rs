//! The flags about workers that no front has started: where a front takes them, and where a worker finds its front.

use std::path::PathBuf;

use clap::Args;
use nix::unistd::Group;

use super::Failed;
use super::run::mode;
use crate::attach::{Admission, AttachFailed, AttachSocket, Attachments};

/// What a front is told.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Workers that are started elsewhere")]
pub(super) struct AttachFlags {
    /// Take workers that connect to this socket, from other containers for example: `holdfast-worker --attach PATH`,
    /// `holdfast adapter ... --attach PATH`. Without a program the front starts none itself
    #[arg(long, value_name = "PATH", env = "HOLDFAST_ATTACH")]
    attach: Option<PathBuf>,
    /// Users whose workers may attach besides root and the front's own user; by number
    #[arg(long, value_name = "UID", env = "HOLDFAST_ATTACH_UID", value_delimiter = ',')]
    attach_uid: Vec<u32>,
    /// The mode of the attach socket's file, in octal
    #[arg(long, value_name = "MODE", env = "HOLDFAST_ATTACH_MODE", default_value = "0600")]
    #[arg(value_parser = mode)]
    attach_mode: u32,
    /// The group of the attach socket's file, by name or number
    #[arg(long, value_name = "GROUP", env = "HOLDFAST_ATTACH_GROUP")]
    attach_group: Option<String>,
    /// A file with a token, 16 characters at least, that lets workers attach whose user the kernel cannot name here
    /// (65534)
    #[arg(long, value_name = "PATH", env = "HOLDFAST_ATTACH_TOKEN_FILE")]
    attach_token_file: Option<PathBuf>,
}

/// A group that is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGroup {
    #[error("there is no group {name:?} (--attach-group)")]
    Unknown { name: String },
    #[error("could not look up the group {name:?}")]
    LookUp { name: String, source: nix::Error },
}

/// Why workers cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOpened {
    #[error(transparent)]
    Group(#[from] NoGroup),
    #[error("workers cannot attach")]
    Socket(#[source] AttachFailed),
}

impl AttachFlags {
    pub(super) const fn is_wanted(&self) -> bool {
        self.attach.is_some()
    }

    /// Whether the flags make sense together.
    pub(super) fn check(&self) -> Result<(), Failed> {
        let alone = !self.attach_uid.is_empty()
            || self.attach_group.is_some()
            || self.attach_token_file.is_some();
        if self.attach.is_none() && alone {
            let meant = "--attach-uid, --attach-group and --attach-token-file are about the socket of --attach PATH";
            return Err(Failed::Usage { meant: meant.to_owned() });
        }
        Ok(())
    }

    pub(super) fn admission(&self) -> Result<Option<Admission>, NoGroup> {
        let Some(path) = &self.attach else { return Ok(None) };
        let group = self.attach_group.as_deref().map(group).transpose()?;
        Ok(Some(Admission {
            path: std::path::absolute(path).unwrap_or_else(|_| path.clone()),
            mode: self.attach_mode,
            group,
            users: self.attach_uid.clone(),
            token_file: self.attach_token_file.clone(),
        }))
    }

    /// Opens the socket, if there is to be one.
    pub(super) fn open(&self) -> Result<Option<Attachments>, NotOpened> {
        let Some(admission) = self.admission()? else { return Ok(None) };
        let socket = AttachSocket::open(&admission).map_err(NotOpened::Socket)?;
        Ok(Some(Attachments::new(socket, admission)))
    }
}

fn group(name: &str) -> Result<u32, NoGroup> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(NoGroup::Unknown { name: name.to_owned() }),
        Err(source) => Err(NoGroup::LookUp { name: name.to_owned(), source }),
    }
}
