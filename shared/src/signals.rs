//! The signal state a process starts from.
//!
//! A signal mask is inherited across `execve` and by children, also from whoever forgot to clear
//! it (sigprocmask(2)), so a front or worker must not assume the one it finds.

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

/// Unblocks every signal. The first thing a front or worker does, before it starts a thread.
pub fn unblock_all() {
    // It fails only for an unknown `how` (sigprocmask(2)).
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}
