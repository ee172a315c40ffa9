//! Who is alive among those who share the database.
//!
//! A generation that is killed says nothing, and what it had claimed would stay claimed for ever. So each holds a
//! lock on a file of its own, `holders/<name>`, and the kernel drops the lock with the process. No message from
//! the front is needed, no heartbeat, and it is as true after a power failure.
//!
//! **Invariants**
//! - A name is used once: it belongs to one life of one generation.
//! - A file appears under its name only when it is locked already.
//! - When it is not clear whether somebody is alive, they are.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Who has claimed something: one life of one generation, `g7-<uuid>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder(String);

impl Holder {
    /// Its name, as the database has it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Our own lock. Dropped, it says that we are gone.
#[derive(Debug)]
pub(super) struct Presence {
    holder: Holder,
    dir: PathBuf,
    _locked: File,
}

impl Presence {
    /// Says that a new holder is alive, from now until this is dropped or the process has ended.
    ///
    /// # Errors
    /// Those of making and locking a file in `state`.
    pub(super) fn announce(state: &Path, label: &str) -> io::Result<Self> {
        let dir = state.join("holders");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let label: String = label.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        let holder = Holder(format!("{label}-{}", uuid::Uuid::new_v4()));
        let file = tempfile::Builder::new().prefix(".new-").tempfile_in(&dir)?;
        file.as_file().lock()?;
        let locked = file.persist_noclobber(dir.join(holder.as_str())).map_err(|e| e.error)?;
        Ok(Self { holder, dir, _locked: locked })
    }

    /// Our own name.
    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Where those who share the database keep what runs say as they do.
    pub(super) fn said_dir(&self) -> PathBuf {
        self.dir.with_file_name("said")
    }

    /// Whether whoever goes by `name` still lives.
    pub(super) fn is_alive(&self, name: &str) -> bool {
        if name == self.holder.as_str() {
            return true;
        }
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return false;
        }
        match File::open(self.dir.join(name)) {
            // Shared, so that two who ask at once do not take each other for the owner.
            Ok(file) => file.try_lock_shared().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Whether anybody else lives. Removes what the dead have left.
    pub(super) fn others_are_alive(&self) -> bool {
        let Ok(entries) = fs::read_dir(&self.dir) else { return true };
        let mut others = false;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with('.') || name == self.holder.as_str() {
                continue;
            }
            if self.is_alive(name) {
                others = true;
            } else {
                // Somebody else may have removed it first; it is gone either way.
                let _ = fs::remove_file(entry.path());
            }
        }
        others
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A file that stays is a dead holder's: the lock is what counts.
        let _ = fs::remove_file(self.dir.join(self.holder.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_alive_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Presence::announce(dir.path(), "g7").unwrap();
        assert!(ours.is_alive(ours.holder().as_str()));
        assert!(!ours.others_are_alive());
        let theirs = Presence::announce(dir.path(), "g8").unwrap();
        let name = theirs.holder().clone();
        assert!(ours.is_alive(name.as_str()) && ours.others_are_alive());
        drop(theirs);
        assert!(!ours.is_alive(name.as_str()) && !ours.others_are_alive());
    }

    #[test]
    fn one_that_was_killed_leaves_a_file_and_is_dead_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Presence::announce(dir.path(), "g7").unwrap();
        let left = dir.path().join("holders/g6-x");
        fs::write(&left, "").unwrap();
        assert!(!ours.is_alive("g6-x"));
        assert!(!ours.others_are_alive());
        assert!(!left.exists(), "it was swept away");
    }

    #[test]
    fn names_that_are_no_names_are_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Presence::announce(dir.path(), "g/../7").unwrap();
        assert!(ours.holder().as_str().starts_with("g7-"));
        for name in ["", ".", "..", "../x", "/etc/passwd"] {
            assert!(!ours.is_alive(name));
        }
    }
}
