//! Files that are replaced whole, and stay replaced after a power failure.
//!
//! ```text
//! lock ─► write beside it ─► sync the file ─► rename over it ─► sync the directory ─► unlock
//! ```
//!
//! **Invariants**
//! - A reader sees the one content or the other, never a part.
//! - A link keeps being a link: what it leads to is replaced.
//! - A lock belongs to the open file: it ends with its holder, however that ends.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait before a lock is asked for again.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The right to replace a file, among all who ask for it.
#[derive(Debug)]
pub(crate) struct Lock {
    // Closing it unlocks it.
    _file: File,
}

/// Locks the file at `path`, which need not exist, against other holders of this lock. It blocks for up to
/// `patience`.
///
/// # Errors
/// `TimedOut` when somebody else held it all the time; those of making its file.
pub(crate) fn lock(path: &Path, patience: Duration) -> io::Result<Lock> {
    let path = followed(path);
    let (directory, name) = parts(&path)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let lock_path = directory.join(format!(".{}.holdfast-lock", name.to_string_lossy()));
    // It is never removed: two could then hold locks on two files of one name.
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock_path)?;
    let give_up_at = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) if Instant::now() >= give_up_at => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            #[expect(clippy::disallowed_methods, reason = "only who may block asks for a lock")]
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Replaces the content of the file at `path`, or makes the file, 0600.
///
/// # Errors
/// Those of writing beside it, synchronizing and renaming; the file is then as it was.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = followed(path);
    let (directory, _) = parts(&path)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    if let Ok(replaced) = std::fs::metadata(&path) {
        file.as_file().set_permissions(Permissions::from_mode(replaced.mode() & 0o7777))?;
        // Only root may give files away; for anybody else the writer becomes the owner.
        let _ =
            std::os::unix::fs::fchown(file.as_file(), Some(replaced.uid()), Some(replaced.gid()));
    }
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|refused| refused.error)?;
    File::open(directory)?.sync_all()
}

/// Where a path leads, when it leads somewhere.
fn followed(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn parts(path: &Path) -> io::Result<(&Path, &std::ffi::OsStr)> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    Ok((directory.unwrap_or_else(|| Path::new(".")), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_link_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        replace(&file, b"1").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        replace(&link, b"2").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"2");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing stays behind");
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::create_dir(&file).unwrap();
        std::fs::write(file.join("inside"), "").unwrap();
        replace(&file, b"1").unwrap_err();
        assert!(file.join("inside").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing stays behind");
    }

    #[test]
    fn a_lock_has_one_holder_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let held = lock(&file, PATIENCE).unwrap();
        assert_eq!(lock(&link, Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(held);
        lock(&link, Duration::ZERO).unwrap();
    }

    #[test]
    fn who_waits_for_a_lock_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let _held = lock(&file, PATIENCE).unwrap();
                        let count: u32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
                        replace(&file, (count + 1).to_string().as_bytes()).unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "40");
    }
}
