//! Scratch directories: what a CLI agent is given to read, for as long as it lives.
//!
//! ```text
//! <root>/<name>.owner      who owns it, and which child lives in it; written before the directory, removed after it
//! <root>/<name>/           0700: mcp.json, system-prompt.md, plugin/…
//!
//! furnish ─► inhabit ─► … hand_over ═► adopt … ─► dropped once the child is gone: removed
//!    └─ dropped before a child was started: removed
//! ```
//!
//! **Invariants**
//! - A directory in which a child lives is not removed, whoever lets go of it.
//! - It has one owner; only the owner removes it, or whoever finds the owner dead: that one ends the child first.
//! - Names are random, and everything lies in a directory that nobody else may enter.

mod life;
mod record;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

pub(crate) use life::{Life, pid_namespace};
use record::Record;

/// Why there is no scratch directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScratchFailed {
    /// Its root is somebody else's, or no directory.
    #[error("{} is not a directory of this user alone", path.display())]
    NotOurs {
        /// Where.
        path: PathBuf,
    },
    /// What the kernel refused.
    #[error("could not write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file would lie somewhere else.
    #[error("{} leads out of the scratch directory", path.display())]
    Outside {
        /// What it was to be called.
        path: PathBuf,
    },
    /// There is no such directory to adopt.
    #[error("there is no scratch directory {name}")]
    Unknown {
        /// Its name.
        name: String,
    },
}

/// Where scratch directories lie.
#[derive(Clone, Debug)]
pub(super) struct ScratchRoot(Arc<Root>);

#[derive(Debug)]
struct Root {
    path: PathBuf,
}

/// What lies in a directory, by where it does.
pub(super) type Furniture = Vec<(PathBuf, Item)>;

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A file with this in it.
    Text(String),
    /// What lies there.
    Link(PathBuf),
}

impl ScratchRoot {
    /// In the directory at `path`, which need not be there before something is made in it.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(Arc::new(Root { path }))
    }

    /// Makes it, or takes what is there, for its owner alone.
    fn open(&self) -> Result<(), ScratchFailed> {
        let path = &self.0.path;
        let failed = |source| ScratchFailed::Write { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let found = fs::symlink_metadata(path).map_err(failed)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(ScratchFailed::NotOurs { path: path.clone() });
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes a directory with these files in it. It blocks.
    ///
    /// # Errors
    /// [`ScratchFailed`]: nothing stays behind.
    pub(super) fn furnish(&self, furniture: &Furniture) -> Result<Scratch, ScratchFailed> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        self.open()?;
        // The record comes first: a directory without one would look like nobody's.
        self.0.write_record(&name, None)?;
        let scratch = Scratch { kept: Some(Kept { root: self.clone(), name, child: None }) };
        let path = scratch.path();
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| ScratchFailed::Write { path: path.clone(), source })?;
        for (relative, item) in furniture {
            if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(ScratchFailed::Outside { path: relative.clone() });
            }
            let file = path.join(relative);
            place(&file, item).map_err(|source| ScratchFailed::Write { path: file, source })?;
        }
        Ok(scratch)
    }

    /// Takes over a directory that its owner has [handed over](Scratch::hand_over). It blocks.
    ///
    /// # Errors
    /// [`ScratchFailed`]: it stays as it is, its former owner's.
    pub(super) fn adopt(&self, name: &str, child: Life) -> Result<Scratch, ScratchFailed> {
        let is_name = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_name || !self.0.record_path(name).exists() {
            return Err(ScratchFailed::Unknown { name: name.to_owned() });
        }
        self.0.write_record(name, Some(child))?;
        let kept = Kept { root: self.clone(), name: name.to_owned(), child: Some(child) };
        Ok(Scratch { kept: Some(kept) })
    }

    /// Ends the children that dead workers have left, and removes their directories; says how many. It blocks.
    ///
    /// A record that cannot be read, or is of another PID namespace, says nothing about who lives: its directory stays.
    ///
    /// # Errors
    /// Those of reading the root.
    pub(super) fn sweep(&self) -> io::Result<usize> {
        self.remove_those_of(Life::is_over)
    }

    /// Waits until the processes are over that own directories beside this one, for at most so long. It blocks.
    pub(super) fn wait_for_others(&self, limit: Duration) {
        let Ok(own) = Life::own() else { return };
        let records = self.records().map(Iterator::collect).unwrap_or_else(|_| Vec::new());
        let records: Vec<(PathBuf, Record)> = records;
        let mut owners: Vec<Life> = records.iter().map(|(_, record)| record.owner).collect();
        owners.sort_unstable_by_key(|owner| (owner.pid, owner.started));
        owners.dedup();
        let deadline = Instant::now() + limit;
        for owner in owners.into_iter().filter(|owner| *owner != own) {
            owner.wait(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Ends all children of this process at once, and removes their directories; says how many. It blocks.
    ///
    /// # Errors
    /// Those of [`sweep`](Self::sweep).
    pub(super) fn clear(&self) -> io::Result<usize> {
        let own = Life::own()?;
        self.remove_those_of(|owner| owner == own)
    }

    fn remove_those_of(&self, is_meant: impl Fn(Life) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for (path, record) in self.records()?.filter(|(_, record)| is_meant(record.owner)) {
            if record.child.is_none_or(Life::end) {
                removed += usize::from(remove(&path.with_extension(""), &path));
            }
        }
        Ok(removed)
    }

    /// The records whose ids mean something here, and where they lie.
    fn records(&self) -> io::Result<impl Iterator<Item = (PathBuf, Record)>> {
        let entries = match fs::read_dir(&self.0.path) {
            Ok(entries) => Some(entries),
            // Nothing was ever made here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let namespace = pid_namespace()?;
        // One that goes meanwhile is nobody's any more.
        let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        let records = paths.filter(|path| path.extension().is_some_and(|end| end == "owner"));
        Ok(records.filter_map(move |path| {
            let record = Record::read(&path).filter(|record| record.namespace == namespace)?;
            Some((path, record))
        }))
    }
}

impl Root {
    /// Writes down that this process owns a directory, and who lives in it.
    fn write_record(&self, name: &str, child: Option<Life>) -> Result<(), ScratchFailed> {
        let path = self.record_path(name);
        let written = Record::of_this_process(child).and_then(|record| record.write(&path));
        written.map_err(|source| ScratchFailed::Write { path, source })
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.path.join(name).with_extension("owner")
    }
}

fn place(file: &Path, item: &Item) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    match item {
        Item::Text(text) => {
            let mut options = OpenOptions::new();
            options.create_new(true).write(true).mode(0o600).open(file)?.write_all(text.as_bytes())
        }
        Item::Link(path) => std::os::unix::fs::symlink(path, file),
    }
}

/// Removes a directory, then its record; says whether it is gone. While it is not, its record stays for a sweep.
fn remove(directory: &Path, record: &Path) -> bool {
    let removed = fs::remove_dir_all(directory).and_then(|()| fs::remove_file(record));
    match removed {
        Ok(()) => true,
        // The directory was never made, or another sweep was here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // It may be gone as well.
            let _ = fs::remove_file(record);
            true
        }
        Err(error) => {
            warn!(
                path = %directory.display(),
                error = &error as &dyn std::error::Error,
                "could not remove a scratch directory"
            );
            false
        }
    }
}

/// A scratch directory of this process.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Until it is handed over or removed.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    root: ScratchRoot,
    name: String,
    child: Option<Life>,
}

impl Scratch {
    fn kept(&self) -> &Kept {
        self.kept.as_ref().expect("only what takes the whole of it takes this")
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        let Kept { root, name, .. } = self.kept();
        root.0.path.join(name)
    }

    /// What its successor asks for it by.
    pub(super) fn name(&self) -> &str {
        &self.kept().name
    }

    /// From now on a child lives in it. It blocks.
    ///
    /// # Errors
    /// That of writing the record. A sweep would not know of the child then; this process does all the same.
    pub(super) fn inhabit(&mut self, child: Life) -> Result<(), ScratchFailed> {
        let kept = self.kept.as_mut().expect("only what takes the whole of it takes this");
        kept.child = Some(child);
        kept.root.0.write_record(&kept.name, Some(child))
    }

    /// Stops being its owner, in favour of whoever adopts it by its name.
    pub(super) fn hand_over(mut self) {
        self.kept = None;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(Kept { root, name, child }) = self.kept.take() else { return };
        if child.is_some_and(|child| !child.is_over()) {
            // Whoever starts next after this process and the child are dead finds it.
            debug!(name, "a scratch directory is left to its child");
            return;
        }
        remove(&root.0.path.join(&name), &root.0.record_path(&name));
    }
}

#[cfg(test)]
mod tests;
