//! Where a shared database may lie: on a file system of this machine.
//!
//! On a network file system a database that two processes share breaks without an error: [`handoff::filesystem`].

use std::io;
use std::path::Path;

use handoff::filesystem;

/// Why a directory cannot hold the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsuitable {
    /// It lies on another machine.
    #[error(
        "{path} is on a network file system ({kind}), where two processes cannot share a database safely; \
         put the state directory on a local disk"
    )]
    Network {
        /// The directory.
        path: String,
        /// What kind.
        kind: String,
    },
    /// It could not be asked.
    #[error("could not ask what file system {path} is on")]
    Unknown {
        /// The directory.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Refuses a directory on a network file system.
///
/// # Errors
/// [`Unsuitable`]; the configuration has to change.
pub(super) fn check(path: &Path) -> Result<(), Unsuitable> {
    let shown = || path.display().to_string();
    match filesystem::network(path) {
        Ok(None) => Ok(()),
        Ok(Some(kind)) => Err(Unsuitable::Network { path: shown(), kind }),
        Err(source) => Err(Unsuitable::Unknown { path: shown(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_directory_can_be_asked_about() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path()).unwrap();
        let gone = check(&dir.path().join("gone")).unwrap_err();
        assert!(matches!(gone, Unsuitable::Unknown { .. }));
    }
}
