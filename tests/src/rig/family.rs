//! A process and everything below it, ended together.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::process::Process;

/// How long the head of a family may take to be stopped by the kernel.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// A front and all it has started or adopted. Dropped, it is ended by pid.
#[derive(Debug)]
pub(super) struct Family {
    head: Process,
    /// Everybody who was ever seen below it: those who outlive their head are nobody's then.
    known: Mutex<BTreeSet<Process>>,
}

impl Family {
    /// The family of a child that was not waited for yet.
    pub(super) fn of(child: &tokio::process::Child) -> Self {
        Self { head: head(child), known: Mutex::default() }
    }

    /// Another child, which was not waited for yet, heads it from here on. Whoever was ever seen in it stays known.
    pub(super) fn go_on_under(&mut self, child: &tokio::process::Child) {
        self.head = head(child);
    }

    pub(super) const fn head(&self) -> Process {
        self.head
    }

    pub(super) fn remember(&self, processes: impl IntoIterator<Item = Process>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).extend(processes);
    }

    /// Sends the head a signal, which may be its end.
    pub(super) fn signal(&self, signal: Signal) {
        self.remember(self.head.descendants());
        self.head.signal(signal);
    }
}

fn head(child: &tokio::process::Child) -> Process {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it was not waited for");
    Process::find(pid).expect("a child that was not waited for has an entry")
}

impl Drop for Family {
    fn drop(&mut self) {
        // Stopped, it starts nobody while its descendants are counted.
        self.head.signal(Signal::SIGSTOP);
        let given_up_at = Instant::now() + STOP_DEADLINE;
        while !(self.head.is_stopped() || self.head.is_gone()) && Instant::now() < given_up_at {
            std::thread::yield_now();
        }
        self.remember(self.head.descendants());
        let known = std::mem::take(self.known.get_mut().unwrap_or_else(PoisonError::into_inner));
        for process in known {
            // What it has left to itself is below it still.
            process.descendants().iter().for_each(|below| below.signal(Signal::SIGKILL));
            process.signal(Signal::SIGKILL);
        }
        self.head.signal(Signal::SIGKILL);
    }
}
