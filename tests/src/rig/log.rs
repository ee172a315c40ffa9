//! What the processes of one front wrote, kept to be shown when a test fails.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The file that a front and its workers write their stdout and stderr to.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("front.log") }
    }

    /// A descriptor to write to its end.
    pub(super) fn writer(&self) -> io::Result<File> {
        File::options().create(true).append(true).open(&self.path)
    }

    /// All of it, up to now.
    ///
    /// # Panics
    /// When the file cannot be read.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = std::fs::read(&self.path).expect("the log can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many lines contain `words`.
    #[must_use]
    pub fn lines_with(&self, words: &str) -> usize {
        self.text().lines().filter(|line| line.contains(words)).count()
    }

    /// Shows it beside the failure of the test that is being unwound.
    #[expect(clippy::print_stderr, reason = "the test harness shows stderr of a failed test")]
    pub(super) fn print(&self) {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        eprintln!("--- {} ---\n{}---", self.path.display(), String::from_utf8_lossy(&bytes));
    }
}
