//! The program that an adapter runs: its start, its end, and the processes it leaves behind.
//!
//! **Invariants**
//! - It is of the adapter's process group, so whatever ends the adapter's group ends it too; if the adapter alone
//!   dies, the program dies with it ([`super::stage`]).
//! - The adapter is a subreaper: nobody below it is lost to it, whatever sessions or groups they make.
//! - When [`Program::end`] is over nobody below the adapter is left.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use handoff::attach::{ATTACH_VARIABLE, TOKEN_VARIABLE};
use handoff::link::{self, Link, LinkError};
use handoff::worker::LINK_VARIABLE;
use handoff::{chain, fd_passing};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tracing::{debug, warn};

use super::census;
use super::stage::{self, NotExecuted};
use crate::event::Exit;
use crate::reap;

/// How long a process of ours may take to become the program.
const STAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long processes may take to be gone that were killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often is looked whether they are, beside each SIGCHLD: a grandchild's end sends none.
const GLANCE: Duration = Duration::from_millis(20);

/// What is to run, and what it is given.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// The program and its arguments.
    pub(crate) words: Vec<OsString>,
    /// What its environment has beyond the adapter's.
    pub(crate) environment: Vec<(String, OsString)>,
    /// The listening sockets it gets, from descriptor 3 on.
    pub(crate) sockets: Vec<BorrowedFd<'a>>,
    /// The soft limit of descriptors it gets.
    pub(crate) descriptors: u64,
}

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    #[error("could not prepare the start of the program")]
    Prepare { source: io::Error },
    #[error("could not start this binary again")]
    Spawn { source: io::Error },
    #[error("{reason}")]
    NotExecuted { reason: String },
    #[error("could not hear whether the program was executed")]
    Unheard { source: LinkError },
    #[error("the program was not executed within {STAGE_TIMEOUT:?}")]
    TimedOut,
}

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Program {
    pid: Pid,
    exit: Option<Exit>,
    children: SignalStream,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Altogether.
    Exited(Exit),
    /// The process that was started is gone, and others it had started live on.
    ForkedAway(Exit),
}

impl Ended {
    /// The exit code that says the same of the adapter, which never ends well while it serves.
    pub(crate) fn code(self) -> u8 {
        let (Self::Exited(exit) | Self::ForkedAway(exit)) = self;
        let code = match exit {
            Exit::Code(code) => code,
            // As shells have it.
            Exit::Signal(signal) => 128 + signal,
            Exit::OutOfMemory => 128 + 9,
            Exit::Unknown => 1,
        };
        u8::try_from(code).ok().filter(|code| *code > 0).unwrap_or(1)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(exit) => write!(f, "{exit}"),
            Self::ForkedAway(exit) => write!(
                f,
                "{exit} and left processes in the background; it has to stay in the foreground (look for a flag \
                 that forbids it to daemonize)"
            ),
        }
    }
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// [`NotStarted`]; nothing of it runs then.
    pub(crate) async fn start(order: Order<'_>) -> Result<Self, NotStarted> {
        let prepare = |source| NotStarted::Prepare { source };
        let children = signal(SignalKind::child()).map_err(prepare)?;
        let (ours, theirs) = link::pair().map_err(prepare)?;
        // Whoever starts waits for its descriptors.
        let theirs = UnixDatagram::from(theirs);
        theirs.set_nonblocking(false).map_err(prepare)?;
        let ours = UnixDatagram::from(ours);
        fd_passing::send(&ours, b"!", &order.sockets).map_err(prepare)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(stage::COMMAND).arg("--descriptors").arg(order.descriptors.to_string());
        command.arg("--").args(&order.words);
        // A program that speaks the link as well would attach itself, where its adapter is the worker.
        for variable in [LINK_VARIABLE, ATTACH_VARIABLE, TOKEN_VARIABLE] {
            command.env_remove(variable);
        }
        command.envs(order.environment);
        let child = command
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .spawn()
            .map_err(|source| NotStarted::Spawn { source })?;
        // Its copy of the other end would hide the child's.
        drop(command);
        let pid = Pid::from_raw(child.id().cast_signed());
        let link = Link::new(ours.into()).map_err(prepare)?;
        let told = tokio::time::timeout(STAGE_TIMEOUT, link.receive::<NotExecuted>()).await;
        match told {
            Ok(Ok(None)) => Ok(Self { pid, exit: None, children }),
            Ok(Ok(Some(told))) => Err(NotStarted::NotExecuted { reason: told.message.reason }),
            Ok(Err(source)) => Err(NotStarted::Unheard { source }),
            Err(_) => Err(NotStarted::TimedOut),
        }
    }

    /// The process that was started.
    pub(crate) const fn pid(&self) -> Pid {
        self.pid
    }

    /// Ends with the process that was started. Cancel safe.
    pub(crate) async fn ended(&mut self) -> Ended {
        loop {
            if let Some(exit) = self.exit {
                let alone = reap::children().is_empty();
                return if alone { Ended::Exited(exit) } else { Ended::ForkedAway(exit) };
            }
            // What ended before it was looked is told too; asking the kernel each time would cost every connection.
            self.children.recv().await;
            self.collect();
        }
    }

    /// Sends the process that was started a signal, unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.collect();
        if self.exit.is_none() {
            // It fails only for one that has ended since.
            let _ = kill(self.pid, signal);
        }
    }

    /// Ends when nobody below the adapter is left. Whoever outlives the process that was started is sent `signal`
    /// once: a shell around a program, for instance, does not pass it on. Cancel safe.
    pub(crate) async fn all_gone(&mut self, signal: Signal) {
        let mut passed_on = false;
        loop {
            self.collect();
            if self.exit.is_some() {
                let left = census::family();
                if left.is_empty() {
                    return;
                }
                if !std::mem::replace(&mut passed_on, true) {
                    debug!(
                        processes = left.len(),
                        "the program has ended, what it started has not"
                    );
                    signal_all(&left, signal);
                }
            }
            self.next_child().await;
        }
    }

    /// Ends everybody below the adapter at once.
    pub(crate) async fn end(&mut self) {
        let deadline = tokio::time::Instant::now() + KILL_TIMEOUT;
        loop {
            self.collect();
            let left = census::family();
            if left.is_empty() {
                return;
            }
            if tokio::time::Instant::now() > deadline {
                warn!(processes = left.len(), "killed, and still there");
                return;
            }
            signal_all(&left, Signal::SIGKILL);
            self.next_child().await;
        }
    }

    /// Reaps whoever has ended.
    fn collect(&mut self) {
        while let Some(pid) = reap::ended() {
            let Some(exit) = reap::reap(pid) else { return };
            if pid == self.pid {
                self.exit = Some(exit);
            }
        }
    }

    async fn next_child(&mut self) {
        let _ = tokio::time::timeout(GLANCE, self.children.recv()).await;
    }
}

/// Who has ended meanwhile needs no signal.
fn signal_all(processes: &[Pid], signal: Signal) {
    for pid in processes {
        let _ = kill(*pid, signal);
    }
}

impl NotStarted {
    /// The whole reason, for the operator.
    pub(crate) fn reason(&self) -> String {
        chain(self)
    }
}

/// `words` with each of the placeholders replaced by what it stands for.
pub(crate) fn replaced(words: &[OsString], stands_for: &[(String, OsString)]) -> Vec<OsString> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let replace_all = |word: &OsString| {
        let mut bytes = word.as_bytes().to_vec();
        for (placeholder, value) in stands_for {
            let (placeholder, value) = (placeholder.as_bytes(), value.as_bytes());
            let mut from = 0;
            while let Some(at) =
                bytes[from..].windows(placeholder.len()).position(|window| window == placeholder)
            {
                let at = from + at;
                bytes.splice(at..at + placeholder.len(), value.iter().copied());
                from = at + value.len();
            }
        }
        OsString::from_vec(bytes)
    };
    words.iter().map(replace_all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_wherever_they_stand() {
        let words = ["serve", "--bind", "127.0.0.1:{port}", "{port}{port}", "{PORT}"];
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let found = replaced(&words, &[("{port}".into(), "81".into())]);
        assert_eq!(found, ["serve", "--bind", "127.0.0.1:81", "8181", "{PORT}"]);
        // What was put in is not looked at again.
        let found = replaced(&words, &[("{port}".into(), "{port}".into())]);
        assert_eq!(found, words);
    }

    #[test]
    fn an_adapter_never_ends_well_with_its_program() {
        assert_eq!(Ended::Exited(Exit::Code(0)).code(), 1);
        assert_eq!(Ended::Exited(Exit::Code(7)).code(), 7);
        assert_eq!(Ended::Exited(Exit::Signal(9)).code(), 137);
    }
}
