//! The files of an agent that clients may read and write: a few known names in its workspace, and nothing else.
//!
//! ```text
//! workspace ─► opened once ─► openat(name, no links) ─► read
//!                                └─► written beside it ─► synced ─► renamed over it
//! ```
//!
//! **Invariants**
//! - A name is one of [`NAMES`], and is never followed anywhere: a link in its place is refused.
//! - A reader sees the one content or the other, never a part; no more than [`LARGEST`] bytes of it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::durable::{self, Made};

/// The files that agents are told by, in the order in which clients list them.
pub(crate) const NAMES: [&str; 8] = [
    "AGENTS.md",
    "SOUL.md",
    "TOOLS.md",
    IDENTITY,
    "USER.md",
    "HEARTBEAT.md",
    "BOOTSTRAP.md",
    "MEMORY.md",
];
/// Who an agent is.
pub(crate) const IDENTITY: &str = "IDENTITY.md";
/// The longest file, in bytes.
pub(crate) const LARGEST: u64 = 1024 * 1024;
/// What others may do with a new file.
const MODE: u32 = 0o644;

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileRefused {
    /// It is not one of [`NAMES`].
    #[error("unsupported file {name:?}")]
    Unsupported {
        /// What was asked for.
        name: String,
    },
    /// There is a link, a directory or something stranger.
    #[error("{} is not a plain file", path.display())]
    NotPlain {
        /// Where.
        path: PathBuf,
    },
    /// Nobody writes that much by hand.
    #[error("{} would be longer than {LARGEST} bytes", path.display())]
    TooLarge {
        /// Where.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("could not use {}", path.display())]
    Kernel {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// In bytes.
    pub(crate) size: u64,
    /// When somebody wrote it last, in ms since 1970.
    pub(crate) updated_at_ms: u64,
}

impl Entry {
    /// That of a plain file; `None` for anything else.
    fn of(file: &File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let updated_at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Ok(metadata.is_file().then_some(Self { size: metadata.size(), updated_at_ms }))
    }
}

/// A workspace; its directory need not be there.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
    directory: Option<File>,
}

impl Workspace {
    /// The workspace at `path`.
    ///
    /// # Errors
    /// [`FileRefused::Kernel`], when something else is there.
    pub(crate) fn open(path: &Path) -> Result<Self, FileRefused> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(directory) => Some(File::from(directory)),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => {
                return Err(FileRefused::Kernel { path: path.to_owned(), source: error.into() });
            }
        };
        Ok(Self { path: path.to_owned(), directory })
    }

    /// The same, made when it is not there; what was made for it is still to be synchronized.
    ///
    /// # Errors
    /// [`FileRefused::Kernel`].
    pub(crate) fn make(path: &Path) -> Result<(Self, Made), FileRefused> {
        let made = durable::make_directory(path, 0o755)
            .map_err(|source| FileRefused::Kernel { path: path.to_owned(), source })?;
        Ok((Self::open(path)?, made))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of it is, or would be.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What is known of a file; `None` when there is none that would be read.
    pub(crate) fn entry(&self, name: &'static str) -> Option<Entry> {
        let file = self.opened(name, OFlags::PATH).ok()??;
        Entry::of(&file).ok()?
    }

    /// A file's text; `None` when there is no file. What is no UTF-8 is replaced.
    ///
    /// # Errors
    /// [`FileRefused`].
    pub(crate) fn read(&self, name: &str) -> Result<Option<(Entry, String)>, FileRefused> {
        let name = known(name)?;
        let path = self.file(name);
        let failed = |source| FileRefused::Kernel { path: path.clone(), source };
        // Opening a pipe must not wait for somebody who writes.
        let Some(file) = self.opened(name, OFlags::RDONLY | OFlags::NONBLOCK)? else {
            return Ok(None);
        };
        let Some(entry) = Entry::of(&file).map_err(failed)? else {
            return Err(FileRefused::NotPlain { path });
        };
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LARGEST {
            return Err(FileRefused::TooLarge { path });
        }
        Ok(Some((entry, String::from_utf8_lossy(&bytes).into_owned())))
    }

    /// Replaces a file's content, or makes the file.
    ///
    /// # Errors
    /// [`FileRefused`]; the file is then as it was.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<Entry, FileRefused> {
        let name = known(name)?;
        let path = self.file(name);
        if content.len() as u64 > LARGEST {
            return Err(FileRefused::TooLarge { path });
        }
        let failed = |source| FileRefused::Kernel { path: path.clone(), source };
        let Some(directory) = &self.directory else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let mode = match self.opened(name, OFlags::PATH)? {
            Some(file) => {
                let metadata = file.metadata().map_err(failed)?;
                if !metadata.is_file() {
                    return Err(FileRefused::NotPlain { path });
                }
                metadata.mode() & 0o777
            }
            None => MODE,
        };
        let beside = format!(".{name}.{}", uuid::Uuid::new_v4());
        let written = replace(directory, &beside, name, content, Mode::from_raw_mode(mode));
        if written.is_err() {
            // It may not have come to be.
            let _ = rustix::fs::unlinkat(directory, &beside, AtFlags::empty());
        }
        written.map_err(failed)
    }

    /// A file, never one that a link leads to; with `PATH`, that may be the link itself.
    fn opened(&self, name: &'static str, flags: OFlags) -> Result<Option<File>, FileRefused> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(rustix::io::Errno::LOOP) => Err(FileRefused::NotPlain { path: self.file(name) }),
            Err(error) => Err(FileRefused::Kernel { path: self.file(name), source: error.into() }),
        }
    }
}

fn replace(
    directory: &File,
    beside: &str,
    name: &str,
    content: &str,
    mode: Mode,
) -> io::Result<Entry> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, beside, flags, mode)?);
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    // It replaces a link that came meanwhile, and does not follow it.
    rustix::fs::renameat(directory, beside, directory, name)?;
    directory.sync_all()?;
    Entry::of(&file)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn known(name: &str) -> Result<&'static str, FileRefused> {
    let known = NAMES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| FileRefused::Unsupported { name: name.chars().take(100).collect() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (workspace, _made) = Workspace::make(&dir.path().join("a/b")).unwrap();
        assert_eq!(workspace.read("SOUL.md").unwrap(), None);
        for content in ["# soul\n", ""] {
            let entry = workspace.write("SOUL.md", content).unwrap();
            assert_eq!(entry.size, content.len() as u64);
            let read = workspace.read("SOUL.md").unwrap().unwrap();
            assert_eq!(read, (entry, content.to_owned()));
            assert_eq!(workspace.entry("SOUL.md"), Some(entry));
        }
        assert_eq!(std::fs::read_dir(workspace.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_known_names_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(dir.path()).unwrap();
        for name in
            ["../x.md", "x.md", "", "soul.md", "SOUL.md/", "./SOUL.md", "SOUL.md\0", "/etc/passwd"]
        {
            assert!(matches!(workspace.read(name), Err(FileRefused::Unsupported { .. })), "{name}");
            let refused = workspace.write(name, "");
            assert!(matches!(refused, Err(FileRefused::Unsupported { .. })), "{name}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_is_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "secret").unwrap();
        let (workspace, _made) = Workspace::make(&dir.path().join("ws")).unwrap();
        symlink(&outside, workspace.file("SOUL.md")).unwrap();
        symlink("nowhere", workspace.file("USER.md")).unwrap();
        std::fs::create_dir(workspace.file("TOOLS.md")).unwrap();
        for name in ["SOUL.md", "USER.md", "TOOLS.md"] {
            assert!(matches!(workspace.read(name), Err(FileRefused::NotPlain { .. })), "{name}");
            let refused = workspace.write(name, "x");
            assert!(matches!(refused, Err(FileRefused::NotPlain { .. })), "{name}");
        }
        assert_eq!(workspace.entry("SOUL.md"), None);
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(workspace.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_is_too_long_is_neither_written_nor_read() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(dir.path()).unwrap();
        let longest = "x".repeat(usize::try_from(LARGEST).unwrap());
        workspace.write("MEMORY.md", &longest).unwrap();
        let refused = workspace.write("MEMORY.md", &format!("{longest}x"));
        assert!(matches!(refused, Err(FileRefused::TooLarge { .. })));
        assert_eq!(workspace.read("MEMORY.md").unwrap().unwrap().1, longest);
        File::create(workspace.file("USER.md")).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(workspace.read("USER.md"), Err(FileRefused::TooLarge { .. })));
    }
}
