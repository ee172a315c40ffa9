//! A CLI agent's process, and all that it started in its process group.
//!
//! ```text
//! spawn ─► its reaper, in the process that started it, until it is gone: kills what is left of its group, then reaps it
//!    └───► Child, whoever owns it: watches it by pidfd, asks it to end, in steps
//! ```
//!
//! **Invariants**
//! - It leads a process group of its own; a signal goes to all of that.
//! - The group is signalled while its leader is unreaped only, so its number is nobody else's; whoever did not start the
//!   child asks its pidfd just before.
//! - Who started it reaps it, whoever owns it by then. After that process has ended, the front does, and says how it ended.
//!   An owner that did not start it waits for that word for a moment, and does without it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tracing::warn;

use super::orphans::{Orphan, Orphans};
use super::scratch::Life;

/// How long a process has to be gone after SIGKILL before it is given up.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How a child has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Whoever reaped it has not said.
    Unknown,
}

impl Status {
    /// Whether it says that all was well. Of a program that ends with its turn nobody else is ever the owner.
    pub(super) const fn is_success(self) -> bool {
        matches!(self, Self::Exited(0))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Killed(signal) => write!(f, "was ended by signal {signal}"),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// How long a child has after each step of asking it to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// After SIGINT, by which a turn is interrupted.
    pub(crate) interrupted: Duration,
    /// After the end of its input and SIGTERM.
    pub(crate) terminated: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { interrupted: Duration::from_secs(1), terminated: Duration::from_secs(4) }
    }
}

/// How a child is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It is at work, and is to leave it.
    Interrupt,
    /// It is at rest, or does not listen.
    Terminate,
}

/// What is started.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) environment: BTreeMap<OsString, OsString>,
    pub(super) workspace: PathBuf,
}

/// A child's standard descriptors, as its owner holds them.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A child, whoever started it.
#[derive(Debug)]
pub(super) struct Child {
    life: Life,
    pid: Pid,
    /// It is no pipe, but all that is asked of it is when it is readable.
    pidfd: pipe::Receiver,
    reaper: Reaper,
}

/// Who says how a child has ended.
#[derive(Debug)]
pub(super) enum Reaper {
    /// A task of this process: it has started the child.
    Here(watch::Receiver<Status>),
    /// Whoever inherits the child.
    Elsewhere(Orphan),
}

impl Child {
    /// Starts a program, in a process group of its own. It blocks until the program is executed.
    ///
    /// # Errors
    /// Those of starting it; nothing runs.
    pub(super) fn spawn(plan: &Plan) -> io::Result<(Self, Pipes)> {
        let mut child = Command::new(&plan.command)
            .args(&plan.args)
            .env_clear()
            .envs(&plan.environment)
            .current_dir(&plan.workspace)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        // Nobody has reaped it, so its number is still its own.
        let watched = || -> io::Result<(Life, OwnedFd, OwnedFd)> {
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            Ok((Life::of(pid.as_raw_nonzero().get())?, pidfd.try_clone()?, pidfd))
        };
        let (life, for_reaper, pidfd) = match watched() {
            Ok(watched) => watched,
            Err(error) => {
                // It has ended, or does now; nobody has spoken to it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            unreachable!("all three were asked for")
        };
        let (said, status) = watch::channel(Status::Unknown);
        tokio::spawn(reap(pid, for_reaper, said));
        let pidfd = pipe::Receiver::from_owned_fd_unchecked(pidfd)?;
        let pipes = Pipes { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
        Ok((Self { life, pid, pidfd, reaper: Reaper::Here(status) }, pipes))
    }

    /// Takes over a child that another process started.
    ///
    /// # Errors
    /// `InvalidInput` for what is no process's number; those of watching the descriptor.
    pub(super) fn adopt(life: Life, pidfd: OwnedFd, orphans: &Orphans) -> io::Result<Self> {
        Self::resume(life, pidfd, Reaper::Elsewhere(orphans.expect(life.pid)))
    }

    /// Goes on with one that was [taken apart](Self::into_parts) here.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    pub(super) fn resume(life: Life, pidfd: OwnedFd, reaper: Reaper) -> io::Result<Self> {
        let pid = Pid::from_raw(life.pid).filter(|pid| !pid.is_init());
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pipe::Receiver::from_owned_fd_unchecked(pidfd)?;
        Ok(Self { life, pid, pidfd, reaper })
    }

    /// Stops watching it, in favour of whoever adopts it, or resumes it here.
    ///
    /// # Errors
    /// Those of taking it out of the runtime.
    pub(super) fn into_parts(self) -> io::Result<(OwnedFd, Reaper)> {
        Ok((self.pidfd.into_nonblocking_fd()?, self.reaper))
    }

    /// Which process it is.
    pub(super) const fn life(&self) -> Life {
        self.life
    }

    /// Ends when it has; it may be asked again.
    pub(super) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        match ready!(self.pidfd.poll_read_ready(context)) {
            // What makes a pidfd readable does not pass: the readiness is kept.
            Ok(()) => Poll::Ready(()),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "a child cannot be watched");
                Poll::Ready(())
            }
        }
    }

    /// How it has ended, once it has.
    pub(super) async fn status(&mut self) -> Status {
        match &mut self.reaper {
            Reaper::Here(status) => {
                // It has seen what we have seen, and ends after it has said so.
                while status.changed().await.is_ok() {}
                *status.borrow()
            }
            Reaper::Elsewhere(orphan) => orphan.status().await,
        }
    }

    /// Sends a signal to its whole group, if it still leads it.
    pub(super) fn signal(&self, signal: Signal) {
        let mut polled = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if !matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(0)) {
            return;
        }
        // It may have ended since.
        let _ = kill_process_group(self.pid, signal);
    }
}

/// The steps by which a child is asked to end, and how long each is given.
pub(super) fn steps(
    manner: Manner,
    patience: Patience,
) -> impl Iterator<Item = (Signal, Duration)> {
    let interrupt = (manner == Manner::Interrupt).then_some((Signal::INT, patience.interrupted));
    interrupt.into_iter().chain([(Signal::TERM, patience.terminated), (Signal::KILL, KILL_TIMEOUT)])
}

/// Waits for a child's end, ends what is left of its group, and says how it ended.
async fn reap(pid: Pid, pidfd: OwnedFd, said: watch::Sender<Status>) {
    match pipe::Receiver::from_owned_fd_unchecked(pidfd) {
        Ok(pidfd) => {
            if pidfd.readable().await.is_err() {
                return;
            }
            // A zombie still leads its group. What it has left there would outlive its directory.
            let _ = kill_process_group(pid, Signal::KILL);
            let ended =
                waitid(WaitId::PidFd(rustix::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED);
            let status = match ended {
                Ok(Some(ended)) => match (ended.exit_status(), ended.terminating_signal()) {
                    (Some(code), _) => Status::Exited(code),
                    (None, Some(signal)) => Status::Killed(signal),
                    (None, None) => Status::Unknown,
                },
                Ok(None) | Err(_) => Status::Unknown,
            };
            said.send_replace(status);
        }
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "a child will be reaped by nobody");
        }
    }
}
