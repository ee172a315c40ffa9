//! The last step before a program runs: this binary once more, in the process that becomes the program.
//!
//! ```text
//! adapter ── descriptors in one packet ──► stage: 3, 4, … ── execve ──► the program
//!         ◄── why not, or nothing ────────        (the link closes with it)
//! ```
//!
//! What LISTEN_PID has to say is known only in the process itself, and descriptors get their numbers there too; in
//! a process of its own both need no unsafe code between fork and exec.
//!
//! **Invariants**
//! - The program gets descriptors 0 to 2, the listening sockets from 3 on if it is to have them, and no other.
//! - It ends with its adapter: PR_SET_PDEATHSIG, set before anything is waited for.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::Args;
use handoff::fd_passing;
use rustix::io::FdFlags;
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

/// The command that is this step.
pub(super) const COMMAND: &str = "adapter-stage";
/// The number of the first descriptor that a program is given: `SD_LISTEN_FDS_START` of sd_listen_fds(3).
pub(super) const FIRST: usize = 3;
/// The exit code of a shell whose program cannot be executed.
const NOT_EXECUTED: u8 = 127;

/// Become a program: for holdfast itself
#[derive(Debug, Args)]
pub(crate) struct Stage {
    /// The soft limit of descriptors the program gets
    #[arg(long)]
    descriptors: u64,
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// A process that only has to execute its program.
struct Prepared {
    link: OwnedFd,
    command: Command,
    descriptors: Vec<OwnedFd>,
}

/// Why the program does not run.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NotExecuted {
    pub(super) reason: String,
}

impl Stage {
    /// Becomes the program, or tells the adapter why not.
    pub(crate) fn perform(self) -> ExitCode {
        match self.prepare() {
            Err(source) => tell(io::stdin(), &format!("could not be prepared: {source}")),
            // The descriptors stay open for the program, and nothing here may drop them before.
            Ok(Prepared { link, mut command, descriptors: _given }) => {
                let source = command.exec();
                let program = self.program[0].display();
                tell(link, &format!("{program} could not be executed: {source}"));
            }
        }
        ExitCode::from(NOT_EXECUTED)
    }

    fn prepare(&self) -> io::Result<Prepared> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // An adapter that had ended before closed its end.
        let packet = fd_passing::receive(io::stdin(), &mut [0; 1])?;
        if packet.bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the adapter is gone"));
        }
        for (index, descriptor) in packet.descriptors.iter().enumerate() {
            if usize::try_from(descriptor.as_raw_fd()) != Ok(FIRST + index) {
                let taken = format!("descriptor {} is open already", FIRST + index);
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, taken));
            }
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        let link = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 0)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(self.descriptors), maximum };
        rustix::process::setrlimit(Resource::Nofile, limit)?;
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        if !packet.descriptors.is_empty() {
            command.env("LISTEN_PID", std::process::id().to_string());
        }
        Ok(Prepared { link, command, descriptors: packet.descriptors })
    }
}

/// An adapter that is gone needs no reason.
fn tell(link: impl std::os::fd::AsFd, reason: &str) {
    let reason = NotExecuted { reason: reason.to_owned() };
    let told = link.as_fd().try_clone_to_owned().map(UnixDatagram::from);
    if let (Ok(link), Ok(packet)) = (told, serde_json::to_vec(&reason)) {
        let _ = fd_passing::send(&link, &packet, &[]);
    }
}
