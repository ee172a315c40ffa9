//! The signals the front heeds, from before its first worker is started.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals the front heeds.
pub(crate) struct Signals {
    pub(crate) child: Signal,
    pub(crate) takeover: Signal,
    /// What OpenClaw's later releases are restarted by; unheeded it would end the front.
    pub(crate) restart: Signal,
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
            child: signal(SignalKind::child())?,
            takeover: signal(SignalKind::user_defined1())?,
            restart: signal(SignalKind::user_defined2())?,
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}
