//! Whether a worker that was ended by SIGKILL was ended by the kernel, for want of memory.
//!
//! The kernel does not say so in the exit status; it counts such kills in `memory.events` of the cgroup (cgroup v2,
//! "Memory Interface Files"). Workers share the front's cgroup, so a count that grew while a worker lived is about
//! somebody in it, and one that was killed then is most likely whom it is about.
//!
//! **Invariants**
//! - Where there is no such file nothing is claimed: the exit stays what it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use handoff::message::GenerationId;
use nix::sys::signal::Signal;

use crate::event::Exit;

/// What the count was when each worker started.
#[derive(Debug)]
pub(crate) struct KillsSeen {
    /// `None` where the kernel does not count.
    events: Option<PathBuf>,
    before: BTreeMap<GenerationId, u64>,
}

impl Default for KillsSeen {
    fn default() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").ok();
        Self::counted_in(own.and_then(|own| events_of(&own, Path::new("/sys/fs/cgroup"))))
    }
}

impl KillsSeen {
    const fn counted_in(events: Option<PathBuf>) -> Self {
        Self { events, before: BTreeMap::new() }
    }

    /// A worker has been started.
    pub(crate) fn since(&mut self, id: GenerationId) {
        if let Some(count) = self.count() {
            self.before.insert(id, count);
        }
    }

    /// How a worker ended, given how its process did.
    pub(crate) fn of(&mut self, id: GenerationId, exit: Exit) -> Exit {
        let Some(before) = self.before.remove(&id) else { return exit };
        let was_killed = exit == Exit::Signal(Signal::SIGKILL as i32);
        if was_killed && self.count().is_some_and(|count| count > before) {
            return Exit::OutOfMemory;
        }
        exit
    }

    fn count(&self) -> Option<u64> {
        let events = fs::read_to_string(self.events.as_ref()?).ok()?;
        events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }
}

/// Where the kills of a process's cgroup are counted, by what `/proc/PID/cgroup` says: the line of cgroup v2 begins
/// with `0::` (cgroups(7)).
fn events_of(cgroups: &str, mount: &Path) -> Option<PathBuf> {
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount.join(own).join("memory.events"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit::Signal(Signal::SIGKILL as i32);

    fn counting(directory: &Path, kills: u64) -> PathBuf {
        let events = directory.join("memory.events");
        fs::write(&events, format!("low 0\nhigh 0\nmax 7\noom 9\noom_kill {kills}\n")).unwrap();
        events
    }

    #[test]
    fn a_worker_that_is_killed_while_the_count_grows_was_out_of_memory() {
        let directory = tempfile::tempdir().unwrap();
        let id = GenerationId::new(1);
        for (kills, exit, told) in [
            (4, KILLED, Exit::OutOfMemory),
            (3, KILLED, KILLED),
            (4, Exit::Signal(6), Exit::Signal(6)),
            (4, Exit::Code(1), Exit::Code(1)),
        ] {
            let mut seen = KillsSeen::counted_in(Some(counting(directory.path(), 3)));
            seen.since(id);
            counting(directory.path(), kills);
            assert_eq!(seen.of(id, exit), told, "{kills} {exit}");
        }
    }

    #[test]
    fn where_nobody_counts_nothing_is_claimed() {
        let mut seen = KillsSeen::counted_in(Some("/nonexistent/memory.events".into()));
        seen.since(GenerationId::new(1));
        assert_eq!(seen.of(GenerationId::new(1), KILLED), KILLED);
    }

    #[test]
    fn the_cgroup_of_version_2_is_found_among_others() {
        let cgroups = "12:memory:/docker/1\n0::/system.slice/holdfast.service\n";
        let found = events_of(cgroups, Path::new("/c"));
        assert_eq!(found.unwrap(), Path::new("/c/system.slice/holdfast.service/memory.events"));
        assert_eq!(events_of("0::/\n", Path::new("/c")).unwrap(), Path::new("/c/memory.events"));
        assert_eq!(events_of("12:memory:/\n", Path::new("/c")), None);
    }
}
