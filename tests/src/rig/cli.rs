//! Running `holdfast` to its end and reading what it said.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// How long a command may take that waits for nothing else than a drain.
const COMMAND_DEADLINE: Duration = Duration::from_secs(100);

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it printed for programs.
    pub output: String,
    /// What it printed for people.
    pub errors: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Outcome {
    /// # Panics
    /// When the command did not end with this exit code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.output, self.errors);
        self
    }

    /// # Panics
    /// When the command did not name `words` on stderr.
    #[track_caller]
    pub fn assert_says(&self, words: &str) -> &Self {
        assert!(self.errors.contains(words), "no {words:?} on stderr: {}", self.errors);
        self
    }
}

/// A `holdfast` with the given environment and nothing else.
pub(super) fn command<K, V>(environment: impl IntoIterator<Item = (K, V)>) -> Command
where
    K: AsRef<std::ffi::OsStr>,
    V: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(super::binaries::holdfast());
    bare(&mut command);
    command.envs(environment);
    command
}

/// Takes everything from a command's environment but the path to its tools.
pub(super) fn bare(command: &mut Command) {
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.env("RUST_BACKTRACE", "1");
    command.kill_on_drop(true);
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not end in time.
pub(super) async fn run_to_end(mut command: Command) -> Outcome {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output();
    let output = tokio::time::timeout(COMMAND_DEADLINE, output)
        .await
        .unwrap_or_else(|_| panic!("{command:?} did not end within {COMMAND_DEADLINE:?}"))
        .unwrap_or_else(|error| panic!("could not run {command:?}: {error}"));
    output.into()
}

/// The environment of every front and client of a test in `directory`.
pub(super) fn environment(directory: &Path) -> Vec<(&'static str, std::ffi::OsString)> {
    vec![
        ("HOME", directory.as_os_str().to_owned()),
        ("HOLDFAST_STATE_DIR", directory.join("state").into_os_string()),
        ("HOLDFAST_TOKEN", super::TOKEN.into()),
    ]
}
