//! The binaries under test, built before the first of them is started.
//!
//! Cargo gives a test the path of its own package's binaries only. Those of the other packages lie
//! in the same directory, but whether they are fresh only cargo knows: so it is asked, once per
//! process and one process at a time.
//!
//! `HOLDFAST_TESTS_BINARIES` names a directory whose binaries are tested as they are instead.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names a directory of binaries to test as they are.
const BINARIES_VARIABLE: &str = "HOLDFAST_TESTS_BINARIES";

/// The command `holdfast`.
#[must_use]
pub fn holdfast() -> PathBuf {
    directory().join("holdfast")
}

/// The bundled worker.
#[must_use]
pub fn holdfast_worker() -> PathBuf {
    directory().join("holdfast-worker")
}

/// An example of `handoff` with the features that move connections, built as its own words say.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    static FRESH: OnceLock<PathBuf> = OnceLock::new();
    let directory = FRESH.get_or_init(|| {
        built(&["build", "--package", "handoff", "--examples", "--features", "http1"], Faults::None)
    });
    directory.join("examples").join(name)
}

/// The plugin that ships with the worker as an example.
#[must_use]
pub fn demo_plugin() -> PathBuf {
    static FRESH: OnceLock<PathBuf> = OnceLock::new();
    let words = ["build", "--package", "holdfast-worker", "--example", "demo-plugin"];
    let directory = FRESH.get_or_init(|| built(&words, Faults::InTests));
    directory.join("examples/demo-plugin")
}

/// Where the binaries lie, fresh.
fn directory() -> &'static Path {
    static FRESH: OnceLock<PathBuf> = OnceLock::new();
    FRESH.get_or_init(|| built(&["build", "--workspace", "--bins"], Faults::InTests))
}

/// Whether what is built can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Faults {
    /// As `cargo test` has it. What is measured and released has no faults.
    InTests,
    /// Never.
    None,
}

/// The directory of this profile, after cargo has built there what these words ask for.
fn built(words: &[&str], faults: Faults) -> PathBuf {
    match std::env::var_os(BINARIES_VARIABLE) {
        Some(directory) => directory.into(),
        None => {
            let directory = profile_directory();
            build(&directory, words, faults);
            directory
        }
    }
}

/// `target/debug`, for a test executable that lies in `target/debug/deps`.
fn profile_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("the test executable has a path");
    let directory = executable.ancestors().nth(2).expect("it lies in a profile's deps directory");
    directory.to_owned()
}

/// # Panics
/// With cargo's output when it cannot build that.
fn build(directory: &Path, words: &[&str], faults: Faults) {
    let lock = File::create(directory.join(".holdfast-tests.lock")).expect("the lock can be made");
    lock.lock().expect("the lock can be waited for");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).args(["--locked", "--offline"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let profile = directory.file_name().unwrap_or_else(|| OsStr::new("debug"));
    if profile != "debug" {
        command.arg("--profile").arg(profile);
    } else if faults == Faults::InTests {
        // As `cargo test` has unified them already.
        command.args(["--features", "handoff/fault-points"]);
    }
    // `target/debug` or `target/<triple>/debug`: cargo marks the root of the tree.
    let above = directory.parent().expect("a profile lies in a target directory");
    if above.join("CACHEDIR.TAG").exists() {
        command.arg("--target-dir").arg(above);
    } else {
        command.arg("--target").arg(above.file_name().expect("a triple names its directory"));
        command.arg("--target-dir").arg(above.parent().expect("and lies in the target directory"));
    }
    let output = command.output().expect("cargo can be started");
    assert!(
        output.status.success(),
        "{command:?} failed, so there is nothing to test:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
