//! Files of records that several generations, and people with editors, read and write.
//!
//! ```text
//! lock (flock, at most 3 s) ─► read ─► change ─► temporary file, fsync ─► rename ─► fsync of the folder
//! ```
//!
//! **Invariants**
//! - A file is whole at every moment: a crash leaves the former one.
//! - Whoever changes a file holds the lock since before it read it. Reading alone needs no lock.
//! - A file that cannot be understood is never overwritten.
//! - Everything here blocks; none of it belongs on the runtime's threads.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How the names of files begin that nobody reads yet.
const DRAFT: &str = ".draft-";
/// Whoever holds this file's lock may change the others.
const LOCK: &str = ".lock";
/// How long to wait for another writer: it holds the lock for two fsyncs, so after this it hangs.
const LOCK_WAIT: Duration = Duration::from_secs(3);
/// How often to look whether it is free. There is no wait for a lock that ends by itself.
const LOCK_LOOK: Duration = Duration::from_millis(2);

/// Why a file of records cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerUnusable {
    /// It is there and cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not what it should be; the source says where.
    #[error("could not understand {}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// The lock cannot be taken.
    #[error("could not lock {}", path.display())]
    Lock {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else has the lock and keeps it.
    #[error("{} was locked for {waited:?}", path.display())]
    Busy {
        /// Which.
        path: PathBuf,
        /// How long it was tried.
        waited: Duration,
    },
    /// It cannot be written.
    #[error("could not write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// By what a file is known to have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    size: u64,
    modified_ns: (i64, i64),
}

/// A folder of such files.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    lock_wait: Duration,
}

/// The right to change the files of a folder, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    ledger: &'a Ledger,
    /// The lock is the open file.
    _lock: File,
}

impl Ledger {
    /// The folder `dir`, which may not exist yet.
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir, lock_wait: LOCK_WAIT }
    }

    /// The same folder, for a test that waits in vain.
    #[cfg(test)]
    pub(crate) fn impatient(self) -> Self {
        Self { lock_wait: Duration::from_millis(20), ..self }
    }

    /// What the file `name` is known by at present; `None` when there is none.
    ///
    /// # Errors
    /// [`LedgerUnusable::Read`].
    pub(crate) fn stamp(&self, name: &str) -> Result<Option<Stamp>, LedgerUnusable> {
        let path = self.dir.join(name);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LedgerUnusable::Read { path, source }),
        }
    }

    /// What the file `name` holds, and what it was known by before it was read; a file that does not
    /// exist holds nothing.
    ///
    /// # Errors
    /// [`LedgerUnusable::Read`], [`LedgerUnusable::Malformed`].
    pub(crate) fn read<T: DeserializeOwned + Default>(
        &self,
        name: &str,
    ) -> Result<(Option<Stamp>, T), LedgerUnusable> {
        let path = self.dir.join(name);
        let read = || -> io::Result<(Stamp, Vec<u8>)> {
            let mut file = File::open(&path)?;
            // First the stamp: what is written from now on must look like a change.
            let stamp = Stamp::of(&file.metadata()?);
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            Ok((stamp, content))
        };
        match read() {
            Ok((stamp, content)) => match serde_json::from_slice(&content) {
                Ok(records) => Ok((Some(stamp), records)),
                Err(source) => Err(LedgerUnusable::Malformed { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((None, T::default())),
            Err(source) => Err(LedgerUnusable::Read { path, source }),
        }
    }

    /// Waits, for so long, until nobody else changes these files.
    ///
    /// # Errors
    /// [`LedgerUnusable::Lock`], [`LedgerUnusable::Busy`].
    pub(crate) fn lock(&self) -> Result<Held<'_>, LedgerUnusable> {
        let path = self.dir.join(LOCK);
        let open = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).open(&path)
        };
        let file = open().map_err(|source| LedgerUnusable::Lock { path: path.clone(), source })?;
        let until = Instant::now() + self.lock_wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Held { ledger: self, _lock: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    #[expect(clippy::disallowed_methods, reason = "no runtime's thread is here")]
                    std::thread::sleep(LOCK_LOOK);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(LedgerUnusable::Busy { path, waited: self.lock_wait });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(LedgerUnusable::Lock { path, source });
                }
            }
        }
    }
}

impl Held<'_> {
    /// Replaces the file `name`.
    ///
    /// # Errors
    /// [`LedgerUnusable::Write`].
    pub(crate) fn write(&self, name: &str, records: &impl Serialize) -> Result<(), LedgerUnusable> {
        let dir = &self.ledger.dir;
        let path = dir.join(name);
        let replace = || -> io::Result<()> {
            remove_drafts(dir)?;
            draft(dir, records)?.persist(&path)?;
            File::open(dir)?.sync_all()
        };
        replace().map_err(|source| LedgerUnusable::Write { path: path.clone(), source })
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Removes what writers have left that were killed: nobody else writes while the lock is held.
fn remove_drafts(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The records on disk under a name that nobody reads yet, 0600.
fn draft(dir: &Path, records: &impl Serialize) -> io::Result<tempfile::NamedTempFile> {
    let mut content = serde_json::to_vec_pretty(records)?;
    content.push(b'\n');
    let mut file = tempfile::Builder::new().prefix(DRAFT).tempfile_in(dir)?;
    file.write_all(&content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    type Records = BTreeMap<String, u32>;

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(dir.path().join("devices"));
        (dir, ledger)
    }

    fn records(value: u32) -> Records {
        BTreeMap::from([("x".to_owned(), value)])
    }

    #[test]
    fn what_was_written_is_read_and_belongs_to_its_owner_alone() {
        let (_dir, ledger) = ledger();
        assert_eq!(ledger.read::<Records>("a.json").unwrap(), (None, Records::new()));
        ledger.lock().unwrap().write("a.json", &records(1)).unwrap();
        let (stamp, read) = ledger.read::<Records>("a.json").unwrap();
        assert_eq!((read, stamp), (records(1), ledger.stamp("a.json").unwrap()));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&ledger.dir), 0o700);
        assert_eq!(mode(&ledger.dir.join("a.json")), 0o600);
        assert_eq!(mode(&ledger.dir.join(LOCK)), 0o600);
    }

    #[test]
    fn a_crash_between_writing_and_renaming_leaves_the_former_file() {
        let (_dir, ledger) = ledger();
        let held = ledger.lock().unwrap();
        held.write("a.json", &records(1)).unwrap();
        // All that has happened when the process dies there.
        let (_, left_behind) = draft(&ledger.dir, &records(2)).unwrap().keep().unwrap();
        drop(held);
        assert_eq!(ledger.read::<Records>("a.json").unwrap().1, records(1));
        ledger.lock().unwrap().write("a.json", &records(3)).unwrap();
        assert_eq!(ledger.read::<Records>("a.json").unwrap().1, records(3));
        assert!(!left_behind.exists());
    }

    #[test]
    fn every_replacement_and_every_edit_changes_the_stamp() {
        let (_dir, ledger) = ledger();
        let held = ledger.lock().unwrap();
        held.write("a.json", &records(1)).unwrap();
        let first = ledger.stamp("a.json").unwrap();
        held.write("a.json", &records(2)).unwrap();
        let second = ledger.stamp("a.json").unwrap();
        assert_ne!(first, second);
        std::fs::write(ledger.dir.join("a.json"), "{}").unwrap();
        assert_ne!(ledger.stamp("a.json").unwrap(), second);
        std::fs::remove_file(ledger.dir.join("a.json")).unwrap();
        assert_eq!(ledger.stamp("a.json").unwrap(), None);
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_named_with_the_place() {
        let (_dir, ledger) = ledger();
        drop(ledger.lock().unwrap());
        std::fs::write(ledger.dir.join("a.json"), "{\n  \"x\": no\n}").unwrap();
        let refused = ledger.read::<Records>("a.json").unwrap_err();
        let words = handoff::chain(&refused).to_string();
        assert!(words.contains("a.json") && words.contains("line 2 column"), "{words}");
    }

    #[test]
    fn the_lock_is_held_by_one_and_waited_for_in_vain_for_so_long() {
        let (_dir, ledger) = ledger();
        let held = ledger.lock().unwrap();
        let refused = ledger.clone().impatient().lock().unwrap_err();
        assert!(matches!(refused, LedgerUnusable::Busy { .. }), "{refused}");
        drop(held);
        ledger.lock().unwrap();
    }
}
