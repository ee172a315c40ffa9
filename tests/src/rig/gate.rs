//! Something a fixture waits for, until the test lets it pass.

use std::fs::File;
use std::path::PathBuf;

use tempfile::TempDir;

/// A file that does not exist yet, in a directory of its own.
#[derive(Debug)]
pub struct Gate {
    directory: TempDir,
}

impl Gate {
    /// A gate that nobody passes.
    ///
    /// # Panics
    /// When no directory can be made for it.
    #[must_use]
    pub fn closed() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory can be made") }
    }

    /// Lets everybody pass, from now on.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn open(&self) {
        File::create(self.file()).expect("the gate can be opened");
    }

    /// Closes it again.
    ///
    /// # Panics
    /// When it is not open.
    pub fn close(&self) {
        std::fs::remove_file(self.file()).expect("the gate is open");
    }

    /// The word that makes a fixture wait here: `ready-once:FILE`.
    #[must_use]
    pub fn word(&self, name: &str) -> String {
        format!("{name}:{}", self.file().display())
    }

    /// The path of a request that the fixture answers once the gate is open.
    #[must_use]
    pub fn hold(&self) -> String {
        format!("/hold?{}", self.file().display())
    }

    /// The file that opens it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("open")
    }
}
