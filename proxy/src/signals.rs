//! The signals the front heeds, from before its first worker is started.

use std::io;

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

/// The signals the front heeds.
pub(crate) struct Signals {
    pub(crate) child: Signal,
    pub(crate) takeover: Signal,
    pub(crate) reexec: Signal,
    pub(crate) hangup: Signal,
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
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
}
