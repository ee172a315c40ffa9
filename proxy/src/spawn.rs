//! Starting a worker's process: the only place where anything is inherited.
//!
//! **Invariants**
//! - The child gets descriptors 0 (its link), 1 and 2, and no other.
//! - It leads its own process group: a Ctrl-C at the front's terminal is the front's to handle, and
//!   a failed successor is ended with everything it started.
//! - It runs as whom `rights.rs` says, and may have as many descriptors as the front.
//! - It starts with no signal blocked, and without what the service manager told the front.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use handoff::limits::{DescriptorLimits, SOFT_VARIABLE};
use handoff::link;
use handoff::worker::LINK_VARIABLE;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::program::{NotFound, Program, is_for_the_front_alone};
use crate::rights::Rights;

/// A worker's process and the front's end of its link.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) link: OwnedFd,
}

/// Why a worker's process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnFailed {
    #[error("could not find the program")]
    Find { source: NotFound },
    #[error("could not make a link")]
    Link { source: io::Error },
    #[error("could not open the log file {}", path.display())]
    LogFile { path: PathBuf, source: io::Error },
    #[error("could not start {}", program.display())]
    Exec { program: PathBuf, source: io::Error },
}

/// What every worker of a front is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// Where its output goes, if not where the front's own goes.
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) rights: Rights,
    pub(crate) limits: DescriptorLimits,
}

/// Starts `program` as a worker.
pub(crate) fn spawn(program: &Program, terms: &Terms) -> Result<Spawned, SpawnFailed> {
    let path = program.resolve().map_err(|source| SpawnFailed::Find { source })?;
    let (ours, theirs) = link::pair().map_err(|source| SpawnFailed::Link { source })?;
    let mut words = program.adapter.clone();
    if !words.is_empty() {
        words.push("--".into());
    }
    words.push(path.clone().into());
    let mut command = if terms.rights.are_the_fronts() {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    } else {
        let mut command = Command::new("/proc/self/exe");
        command.args(terms.rights.words()).args(&words);
        command
    };
    command.args(&program.arguments).process_group(0).stdin(Stdio::from(theirs));
    if let Some(log_file) = &terms.log_file {
        let (out, err) = open_log(log_file)
            .map_err(|source| SpawnFailed::LogFile { path: log_file.to_owned(), source })?;
        command.stdout(out).stderr(err);
    }
    keep_what_is_the_fronts(&mut command);
    command.env(SOFT_VARIABLE, terms.limits.inherited.to_string());
    command.envs(terms.rights.environment());
    command.envs(program.environment.iter().map(|(name, value)| (name, value)));
    command.env(LINK_VARIABLE, "stdin");
    let child = command.spawn().map_err(|source| SpawnFailed::Exec { program: path, source })?;
    let pid = Pid::from_raw(child.id().cast_signed());
    // `child` is only a number from here on: reap.rs waits for every child alike.
    Ok(Spawned { pid, link: ours })
}

/// Has a child not find in its environment what is for the front alone.
pub(crate) fn keep_what_is_the_fronts(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if is_for_the_front_alone(&name) {
            command.env_remove(name);
        }
    }
}

/// Opened anew each time, so that a rotated file is let go of at the next takeover.
fn open_log(path: &Path) -> io::Result<(File, File)> {
    let file = File::options().create(true).append(true).open(path)?;
    let copy = file.try_clone()?;
    Ok((file, copy))
}

/// Ends a worker and everything it started and did not set apart.
pub(crate) fn kill_group(leader: Pid) {
    // A group that is gone already is what was wanted.
    let _ = killpg(leader, Signal::SIGKILL);
}
