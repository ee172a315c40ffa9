//! Processes that fail at a point of their own code: `handoff::fault` names the points and the acts.

use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::binaries;
use super::front::Front;
use super::log::Log;
use super::patience::eventually;
use super::process::Process;
use super::setup::Program;

/// Names the faults of a process.
pub const FAULT_VARIABLE: &str = "HOLDFAST_FAULT";

/// The bundled worker with these faults: `source.offer-sent=stop@2`, several separated by commas.
///
/// # Panics
/// In a release build, whose binaries have no faults: nothing would be proved.
#[must_use]
pub fn faulty_worker(faults: &str) -> Program {
    if cfg!(not(debug_assertions)) {
        panic!("the binaries of a release cannot fail as they are told");
    }
    Program::new("/usr/bin/env")
        .arg(format!("{FAULT_VARIABLE}={faults}"))
        .arg(binaries::holdfast_worker())
}

/// The bundled worker as it is.
#[must_use]
pub fn sound_worker() -> Program {
    Program::new(binaries::holdfast_worker())
}

impl Front {
    /// Ends once a process of this front has met a fault at this point, with its pid.
    ///
    /// # Panics
    /// When none does: a fault that never comes proves nothing.
    pub async fn met(&self, point: &str) -> i32 {
        eventually(&format!("a fault is met at {point}"), async || met(self.log(), point)).await
    }

    /// As [`Self::met`], once the process is stopped by it.
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stopped_at(&self, point: &str) -> Process {
        let pid = self.met(point).await;
        let process = Process::find(pid).expect("one that is stopped is there");
        eventually("it is stopped", async || process.is_stopped().then_some(())).await;
        process
    }
}

/// Who met a fault there: the line is written by [`handoff::fault`].
fn met(log: &Log, point: &str) -> Option<i32> {
    let text = log.text();
    let line = text.lines().find(|line| line.starts_with(&format!("fault met: {point} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

impl Process {
    /// Stops it until [`Self::go_on`], unless it is gone.
    pub async fn stand_still(self) {
        self.signal(Signal::SIGSTOP);
        let still = || self.is_stopped() || self.is_gone();
        eventually("it is stopped", async || still().then_some(())).await;
    }

    /// Lets it run again.
    pub fn go_on(self) {
        self.signal(Signal::SIGCONT);
    }

    /// Lets it open as many descriptors as it is allowed to again, unless it is gone.
    ///
    /// # Panics
    /// When its limit cannot be changed.
    pub fn lift_descriptor_limit(self) {
        let pid = rustix::process::Pid::from_raw(self.pid());
        let limit = getrlimit(Resource::Nofile);
        let lifted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let outcome = prlimit(pid, Resource::Nofile, lifted);
        assert!(outcome.is_ok() || self.is_gone(), "a limit can be lifted: {outcome:?}");
    }
}
