//! Which program a plugin is, so that a new one in its place is noticed.

use std::os::unix::fs::MetadataExt as _;

use super::declaration::Declaration;

/// What is known of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// Device, inode, length and time of change in ns; `None` for one that lies on the `PATH` or nowhere.
    file: Option<(u64, u64, u64, i128)>,
}

impl Program {
    /// The program of a declaration, as it is now.
    pub(super) fn of(declaration: &Declaration) -> Self {
        let known = std::fs::metadata(declaration.program()).ok().map(|file| {
            let changed = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
            (file.dev(), file.ino(), file.len(), changed)
        });
        Self { file: known }
    }
}
