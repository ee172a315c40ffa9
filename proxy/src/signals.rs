//! The signals the front heeds, from before its first worker is started.

use std::io;
use std::time::Duration;

use nix::sys::signal::{self, SigSet, SigmaskHow, sigprocmask};
use tokio::signal::unix::{Signal, SignalKind, signal as listen};

/// What the front heeds; whatever else comes does what it does to any process.
const HEEDED: [signal::Signal; 6] = [
    signal::Signal::SIGCHLD,
    signal::Signal::SIGUSR1,
    signal::Signal::SIGUSR2,
    signal::Signal::SIGHUP,
    signal::Signal::SIGTERM,
    signal::Signal::SIGINT,
];

/// Has the heeded signals wait, and no others: for a process that has no handler for them, or will soon have none.
pub(crate) fn block() {
    // It fails only for an unknown `how` (sigprocmask(2)).
    let heeded: SigSet = HEEDED.into_iter().collect();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&heeded), None);
}

/// The heeded signals wait while this is there, and across an exec.
#[derive(Debug)]
pub(crate) struct Held(());

impl Held {
    /// Holds them, and comes back when every one that was caught before can be had of [`Signals::next`].
    ///
    /// What a handler has caught and nobody has heeded would be lost in an exec; what waits is not.
    pub(crate) async fn hold() -> Self {
        block();
        let held = Self(());
        // Its handler has written to a pipe; a timer only ends after the event loop has looked at what it polls.
        tokio::time::sleep(Duration::from_millis(1)).await;
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ::handoff::signals::unblock_all();
    }
}

/// A signal, by what the front does at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heeded {
    Child,
    Takeover,
    Reexec,
    Hangup,
    Stop,
}

/// The signals the front heeds.
pub(crate) struct Signals {
    pub(crate) child: Signal,
    takeover: Signal,
    reexec: Signal,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen for every one of them.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            child: listen(SignalKind::child())?,
            takeover: listen(SignalKind::user_defined1())?,
            reexec: listen(SignalKind::user_defined2())?,
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Heeded {
        tokio::select! {
            _ = self.child.recv() => Heeded::Child,
            _ = self.takeover.recv() => Heeded::Takeover,
            _ = self.reexec.recv() => Heeded::Reexec,
            _ = self.hangup.recv() => Heeded::Hangup,
            _ = self.terminate.recv() => Heeded::Stop,
            _ = self.interrupt.recv() => Heeded::Stop,
        }
    }
}
