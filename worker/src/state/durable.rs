//! Files that are replaced whole, and stay replaced after a power failure.
//!
//! ```text
//! lock ─► write beside it ─► sync the file ─► rename over it ─► sync the directory ─► unlock
//!         └────────── beside ──────────┘     └──────── put in place ────────┘
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

/// The content that a file will have, where it outlasts a power failure and nobody sees it. It goes when it is
/// not put in place.
#[derive(Debug)]
pub(crate) struct Beside {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

/// Writes beside the file at `path` what is to be its content; a file that is not there yet will be 0600.
///
/// # Errors
/// Those of writing and synchronizing.
pub(crate) fn beside(path: &Path, content: &[u8]) -> io::Result<Beside> {
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
    Ok(Beside { file, path })
}

impl Beside {
    /// Makes it the file's content.
    ///
    /// # Errors
    /// Those of renaming, and the file is then as it was; those of synchronizing the directory.
    pub(crate) fn put_in_place(self) -> io::Result<()> {
        let Self { file, path } = self;
        file.persist(&path).map_err(|refused| refused.error)?;
        File::open(parts(&path)?.0)?.sync_all()
    }
}

/// Makes a directory and those above it that are not there, for `mode`. What it answers is to be synchronized, as late
/// as possible: what is written meanwhile is often synchronized along with it.
///
/// # Errors
/// Those of making directories.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<Made> {
    let is_missing = |directory: &&Path| !directory.as_os_str().is_empty() && !directory.exists();
    let missing = path.ancestors().take_while(is_missing);
    let above = missing.map(|directory| parts(directory).map(|(above, _)| above.to_owned()));
    let above = above.collect::<io::Result<_>>()?;
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    Ok(Made { above })
}

/// Directories that may have been made, and may be gone after a power failure.
#[derive(Debug)]
#[must_use]
pub(crate) struct Made {
    /// Those that they were made in.
    above: Vec<PathBuf>,
}

impl Made {
    /// Has them outlast a power failure.
    ///
    /// # Errors
    /// Those of synchronizing.
    pub(crate) fn sync(self) -> io::Result<()> {
        self.above.iter().try_for_each(|directory| File::open(directory)?.sync_all())
    }
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

    fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
        beside(path, content)?.put_in_place()
    }

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
    fn what_is_beside_a_file_is_not_seen_and_goes_unless_it_is_put_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        replace(&file, b"1").unwrap();
        drop(beside(&file, b"2").unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing stays behind");
        let three = beside(&file, b"3").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"1");
        three.put_in_place().unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"3");
    }

    #[test]
    fn each_directory_that_is_made_is_kept_by_the_one_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        let made = make_directory(&deep, 0o700).unwrap();
        assert_eq!(made.above, [dir.path().join("a/b"), dir.path().join("a"), dir.path().into()]);
        made.sync().unwrap();
        assert_eq!(std::fs::metadata(&deep).unwrap().mode() & 0o777, 0o700);
        let again = make_directory(&deep, 0o700).unwrap();
        assert!(again.above.is_empty(), "there was nothing to make");
        again.sync().unwrap();
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
