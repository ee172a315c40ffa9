//! The state directory: one private folder that all generations share.
//!
//! **Invariants**
//! - It is created for its owner alone, 0700; one that exists keeps its mode.
//! - A file in it appears whole or not at all, also after a power failure.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirUnusable {
    /// Neither named nor derivable.
    #[error("there is no home directory; name one with --state-dir or HOLDFAST_STATE_DIR")]
    NoHome,
    /// It does not exist and cannot be made.
    #[error("could not create the state directory {}", path.display())]
    Create {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing can be written in it.
    #[error("could not write in the state directory {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The state directory, known to exist and to be writable.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens the directory at `path`, or `~/.holdfast`, creating it when it does not exist.
    ///
    /// # Errors
    /// [`DirUnusable`]; the configuration has to change.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self, DirUnusable> {
        let path = match path {
            Some(path) => path,
            None => std::env::home_dir().ok_or(DirUnusable::NoHome)?.join(".holdfast"),
        };
        let create = || -> io::Result<PathBuf> {
            DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
            // What is shown to people and kept in commands still holds after a change of directory.
            std::fs::canonicalize(&path)
        };
        let path = create().map_err(|source| DirUnusable::Create { path: path.clone(), source })?;
        // Asking for permission says less than trying: read-only mounts, quotas, ACLs.
        tempfile::tempfile_in(&path)
            .map_err(|source| DirUnusable::Write { path: path.clone(), source })?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file `name` with this content, 0600, unless it exists: whoever is first wins.
    ///
    /// # Errors
    /// Those of writing, synchronizing and linking; that somebody else was first is none.
    pub(crate) fn create_once(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(self.path.join(name)) {
            Ok(_) => File::open(&self.path)?.sync_all(),
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(refused) => Err(refused.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_directory_and_its_files_belong_to_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path().join("a/b"))).unwrap();
        state.create_once("x", b"1").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join("x")), 0o600);
    }

    #[test]
    fn a_file_that_exists_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path().to_owned())).unwrap();
        state.create_once("x", b"1").unwrap();
        state.create_once("x", b"2").unwrap();
        assert_eq!(std::fs::read(state.path().join("x")).unwrap(), b"1");
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 1, "nothing stays behind");
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let refused = StateDir::open(Some(path.clone())).unwrap_err();
        assert!(matches!(&refused, DirUnusable::Create { path: named, .. } if *named == path));
    }
}
