//! Where a program under `relay` listens: a port of 127.0.0.1 that is free now, or a Unix socket in a directory that
//! only this user may enter.
//!
//! A port is found and let go of again before the program takes it: held, most programs could not bind it. Whoever
//! takes it in between is found out, because only a listener of the program's own counts as ready.
//!
//! **Invariants**
//! - The directory of a Unix socket goes with its owner.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use handoff::Address;

use crate::adapter::flags::Private;

/// How many directories of earlier adapters with this pid may lie in the way.
const ATTEMPTS: u32 = 100;

/// The place.
#[derive(Debug)]
pub(super) struct PrivateAddress {
    pub(super) address: Address,
    _directory: Option<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
}

impl PrivateAddress {
    /// Chooses one.
    ///
    /// # Errors
    /// When there is no free port, or no directory can be made.
    pub(super) fn choose(kind: Private) -> io::Result<Self> {
        match kind {
            Private::Tcp => {
                let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
                Ok(Self { address: Address::Tcp(free), _directory: None })
            }
            Private::Unix => {
                let directory = Directory::make()?;
                let address = Address::Unix(directory.path.join("program.sock"));
                Ok(Self { address, _directory: Some(directory) })
            }
        }
    }

    /// The port or the path, as the program is told it.
    pub(super) fn port(&self) -> OsString {
        match &self.address {
            Address::Tcp(address) => address.port().to_string().into(),
            Address::Unix(path) => path.as_os_str().to_owned(),
        }
    }

    /// The host, if it has one.
    pub(super) fn host(&self) -> Option<OsString> {
        match &self.address {
            Address::Tcp(address) => Some(address.ip().to_string().into()),
            Address::Unix(_) => None,
        }
    }
}

impl Directory {
    fn make() -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
        let above = runtime.map_or_else(std::env::temp_dir, PathBuf::from);
        let own = std::process::id();
        for attempt in 0..ATTEMPTS {
            let path = above.join(format!("holdfast-relay-{own}-{attempt}"));
            // It fails where anything is, a link too: nobody is led into a directory of another's.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What stays behind in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_port_that_was_chosen_can_be_bound() {
        let chosen = PrivateAddress::choose(Private::Tcp).unwrap();
        let Address::Tcp(address) = &chosen.address else { panic!("{chosen:?}") };
        assert_eq!(chosen.port(), *address.port().to_string());
        assert_eq!(chosen.host().unwrap(), "127.0.0.1");
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn a_directory_is_its_owners_alone_and_goes_with_it() {
        let chosen = PrivateAddress::choose(Private::Unix).unwrap();
        let path = PathBuf::from(chosen.port());
        let directory = path.parent().unwrap().to_owned();
        assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(chosen.host(), None);
        drop(chosen);
        assert!(!directory.exists());
    }
}
