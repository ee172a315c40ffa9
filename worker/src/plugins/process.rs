//! A plugin's process: what it is given, and how it ends.
//!
//! ```text
//! spawned ─► … ─► stdin closed ─► 2 s ─► SIGTERM to its group ─► 2 s ─► SIGKILL to its group
//! ```
//!
//! **Invariants**
//! - It leads a process group of its own, and no process of that group outlives it: dropped, all are killed.
//! - It inherits three descriptors, and of the environment only what its declaration and [`PASSED_ON`] name.
//! - It has the limit of descriptors that the worker was started with before it is told anything.
//! - What it writes to stderr is read as fast as it comes, and the end of it kept.

use std::error::Error;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, prlimit};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tracing::debug;

use super::declaration::Declaration;

/// What every plugin has of the worker's environment.
const PASSED_ON: [&str; 7] = ["HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ", "USER"];
/// How long it may take to end after each way of being asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How long its last words are waited for: they are in the pipe when it has ended, unless others hold that open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How much of its stderr is kept, in bytes.
const TAIL: usize = 2048;

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnFailed {
    /// The kernel would not.
    #[error("could not start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Group,
    tail: Arc<Mutex<Vec<u8>>>,
    /// Reads it.
    ear: JoinHandle<()>,
}

/// Its ends of what it is spoken to by.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
}

/// A process group, killed when this is dropped.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // An error means that nobody is left in it.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Process {
    /// Starts a plugin's program.
    ///
    /// # Errors
    /// [`SpawnFailed`].
    pub(super) fn spawn(
        declaration: &Declaration,
        descriptors: Option<u64>,
    ) -> Result<(Self, Pipes), SpawnFailed> {
        let program = declaration.program();
        let mut command = Command::new(&program);
        command
            .args(&declaration.command[1..])
            .current_dir(&declaration.folder)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let inherited = declaration.inherit.iter().map(String::as_str);
        for name in PASSED_ON.into_iter().chain(inherited) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOLDFAST_PLUGIN", &declaration.id).envs(&declaration.environment);
        let failed = |source| SpawnFailed::Start { program: program.display().to_string(), source };
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let (Some(pid), Some(limit)) = (pid, descriptors) {
            limit_descriptors(pid, limit);
        }
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = stdin.zip(stdout).expect("both were asked for");
        let tail = Arc::default();
        let stderr = child.stderr.take().expect("it was asked for");
        // It ends with the last process that can write there.
        let ear = tokio::spawn(keep_tail(declaration.id.clone(), stderr, Arc::clone(&tail)));
        Ok((Self { child, group: Group(pid), tail, ear }, Pipes { stdin, stdout }))
    }

    /// The number of the process and of its group.
    pub(super) fn pid(&self) -> Option<i32> {
        self.group.0.map(|pid| pid.as_raw_nonzero().get())
    }

    /// Ends when the process has, and says how. Cancel safe.
    pub(super) async fn exited(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => in_words(status),
            Err(error) => format!("nobody knows how it ended: {error}"),
        }
    }

    /// The end of what it has written to stderr; of one that has ended, to its last word. Cancel safe.
    pub(super) async fn last_words(&mut self) -> String {
        if !self.ear.is_finished() {
            let _ = tokio::time::timeout(LAST_WORDS, &mut self.ear).await;
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail).trim().to_owned()
    }

    /// Ends the process, whose stdin is closed by now.
    pub(super) async fn end(mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if tokio::time::timeout(GRACE, self.child.wait()).await.is_ok() {
                break;
            }
            self.group.signal(signal);
        }
        // Killed, it needs no more than the kernel's time.
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
    }
}

/// Gives a process this soft limit of descriptors (prlimit(2)): the worker has raised its own, and programs that use
/// `select(2)` break above 1024.
///
/// Setting it between fork and exec would take unsafe code. So a program that looks in its very first moments may
/// still see the worker's limit; one that looks when it is told to begin does not.
fn limit_descriptors(process: Pid, limit: u64) {
    // The hard limit is the worker's, which nobody has changed.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limits = Rlimit { current: Some(limit), maximum };
    if let Err(error) = prlimit(Some(process), Resource::Nofile, limits) {
        debug!(error = &error as &dyn Error, "a plugin has the worker's limit of descriptors");
    }
}

fn in_words(status: ExitStatus) -> String {
    format!("it ended with {status}")
}

async fn keep_tail(plugin: String, mut stderr: ChildStderr, tail: Arc<Mutex<Vec<u8>>>) {
    let mut read = [0; TAIL];
    while let Ok(length @ 1..) = stderr.read(&mut read).await {
        let said = &read[..length];
        debug!(plugin, said = %String::from_utf8_lossy(said).trim_end(), "a plugin's stderr");
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(said);
        let surplus = tail.len().saturating_sub(TAIL);
        tail.drain(..surplus);
    }
}
