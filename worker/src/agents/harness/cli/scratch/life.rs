//! One life of a process: its id alone may be somebody else's by now, with the time of its start it is not.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::proc_stat::state_and_start;

/// How long a process has to be gone after SIGKILL.
const END_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A process, and no other that has or had its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Life {
    /// Its id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since the boot (proc_pid_stat(5), field 22).
    pub(crate) started: u64,
}

impl Life {
    /// That of the process which has this id now.
    ///
    /// # Errors
    /// Those of reading its state; `NotFound` when there is none.
    pub(in super::super) fn of(pid: i32) -> io::Result<Self> {
        let (_, started) = state_and_start(pid)?;
        Ok(Self { pid, started })
    }

    /// That of this process.
    ///
    /// # Errors
    /// Those of [`of`](Self::of).
    pub(super) fn own() -> io::Result<Self> {
        i32::try_from(std::process::id()).map_err(io::Error::other).and_then(Self::of)
    }

    /// Whether it is over. A zombie's is; one that cannot be looked at is taken to go on.
    pub(in super::super) fn is_over(self) -> bool {
        match state_and_start(self.pid) {
            Ok((state, started)) => started != self.started || matches!(state, 'Z' | 'X'),
            Err(error) => {
                error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
            }
        }
    }
}

impl Life {
    /// Ends it and its process group, if it leads one; says whether it is over. It blocks until it is, for a moment.
    pub(super) fn end(self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return true };
        // From here on the descriptor means this process or none, whoever has its id later.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return self.is_over() };
        if self.is_over() {
            return true;
        }
        if kill_process_group(pid, Signal::KILL).is_err() {
            // It leads none: it was not started by a worker of ours.
            return false;
        }
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        matches!(poll(&mut ended, Some(&END_TIMEOUT)), Ok(1))
    }
}

impl Life {
    /// Waits until it is over, for at most so long. It blocks.
    pub(super) fn wait(self, limit: Duration) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // From here on the descriptor means this process or none, whoever has its id later.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.is_over() {
            return;
        }
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = Timespec::try_from(limit).ok();
        // Whoever waits looks again.
        let _ = poll(&mut ended, limit.as_ref());
    }
}

/// The namespace in which this process's ids mean something.
pub(crate) fn pid_namespace() -> io::Result<String> {
    Ok(std::fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_one_goes_on_and_one_of_another_start_is_over() {
        let own = Life::own().unwrap();
        assert!(!own.is_over());
        assert!(Life { started: own.started + 1, ..own }.is_over());
        assert!(Life { pid: i32::MAX, started: 1 }.is_over());
    }

    #[test]
    fn a_zombies_is_over() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let life = Life::of(i32::try_from(child.id()).unwrap()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !life.is_over() {
            assert!(std::time::Instant::now() < deadline, "it is not over");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(life.is_over());
    }
}
