//! A front of one's own: in a directory of its own, on a free port, with nothing of the operator's environment.
//!
//! **Invariants**
//! - It is gone when this value is, and so is its directory, unless that was to be kept.
//! - An interrupt at the terminal is for us alone: the front is in another process group.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::control::client;
use crate::control::document::Status;
use crate::control::protocol::Command as Asked;

/// How long it may take until a worker serves: the front's own deadline, and a little more.
const START: Duration = Duration::from_secs(65);
/// How long it may take to end.
const END: Duration = Duration::from_secs(35);
/// How often it is asked whether it serves: it cannot say so by itself.
const GLANCE: Duration = Duration::from_millis(20);
/// Its workers are trusted sooner than others: nobody else's clients are at stake.
const SOAK: &str = "300ms";
/// How much of its log is shown when it does not come up, in lines.
const SHOWN: usize = 12;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    #[error("could not make {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("could not start a front")]
    Spawn { source: io::Error },
    #[error("the front ended instead of serving; it said:\n{log}")]
    Ended { log: String },
    #[error("its worker does not start: {reason}")]
    Worker { reason: String },
    #[error("the front did not serve within {START:?}; it said:\n{log}")]
    Late { log: String },
}

/// A running front.
#[derive(Debug)]
pub(crate) struct PrivateFront {
    // Dropped in this order: whoever writes there is gone before the directory is.
    process: Process,
    place: Place,
}

/// The front's process, which does not outlive this.
#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Whether it has ended.
    fn is_gone(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_gone() {
            // It was asked to end, and did not; it fails only for one that has ended since.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[derive(Debug)]
struct Place {
    directory: PathBuf,
    kept: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed lies in a directory for temporary files.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

impl PrivateFront {
    /// Starts one with this worker, or the bundled one, and ends when that serves.
    pub(crate) async fn start(worker: &[String]) -> Result<Self, NotStarted> {
        let directory = std::env::temp_dir().join(format!("holdfast-prove-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|source| NotStarted::Directory { path: directory.clone(), source })?;
        let place = Place { directory, kept: false };
        let child = spawn(&place.directory, worker);
        let child = child.map_err(|source| NotStarted::Spawn { source })?;
        let mut front = Self { process: Process(child), place };
        if let Err(failed) = front.serves().await {
            front.end().await;
            return Err(failed);
        }
        Ok(front)
    }

    /// Its control socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.place.directory.join("control.sock")
    }

    /// Where its worker keeps what it remembers.
    pub(crate) fn state(&self) -> PathBuf {
        self.place.directory.join("state")
    }

    /// Keeps what it has written, and says where.
    pub(crate) fn keep_log(&mut self) -> PathBuf {
        self.place.kept = true;
        log_in(&self.place.directory)
    }

    /// Ends it.
    pub(crate) async fn end(mut self) {
        // One that cannot be asked is killed below, and so is one that takes too long.
        let _ = client::ask(&self.control(), Asked::Stop { now: true }).await;
        let gone = async {
            while !self.process.is_gone() {
                sleep(GLANCE).await;
            }
        };
        let _ = timeout(END, gone).await;
    }

    async fn serves(&mut self) -> Result<(), NotStarted> {
        let deadline = Instant::now() + START;
        loop {
            if self.process.is_gone() {
                return Err(NotStarted::Ended { log: self.log() });
            }
            if let Ok(status) = client::status(&self.control()).await {
                if has_one_that_serves(&status) {
                    return Ok(());
                }
                // The front would try again; a program that fails at once is to be looked at.
                if let Some(failure) = status.last_failure {
                    return Err(NotStarted::Worker { reason: failure.reason });
                }
            }
            if Instant::now() >= deadline {
                return Err(NotStarted::Late { log: self.log() });
            }
            sleep(GLANCE).await;
        }
    }

    /// The last of what it has written.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(log_in(&self.place.directory)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }
}

fn has_one_that_serves(status: &Status) -> bool {
    status.generations.iter().any(|generation| generation.state == "serving")
}

fn log_in(directory: &Path) -> PathBuf {
    directory.join("log")
}

fn spawn(directory: &Path, worker: &[String]) -> io::Result<Child> {
    let log = File::create(log_in(directory))?;
    let mut command = Command::new(std::env::current_exe()?);
    let ours = |name: &str| {
        ["HOLDFAST_", "OPENCLAW_", "LISTEN_", "WATCHDOG_"].iter().any(|of| name.starts_with(of))
    };
    for (name, _) in std::env::vars_os() {
        // What is not UTF-8 is not ours.
        if name.to_str().is_some_and(|name| ours(name) || name == "NOTIFY_SOCKET") {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", directory)
        .env("HOLDFAST_STATE_DIR", directory.join("state"))
        .arg("run")
        .arg("--control")
        .arg(directory.join("control.sock"))
        .args(["--listen", "127.0.0.1:0", "--soak", SOAK]);
    if !worker.is_empty() {
        command.arg("--").args(worker);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).spawn()
}
