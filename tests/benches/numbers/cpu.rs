//! What a process has cost so far.

use std::fs;
use std::io;
use std::time::Duration;

use holdfast_tests::rig::Process;

/// What all living threads of a process have run so far, in ns of the scheduler's own count
/// (Documentation/scheduler/sched-stats.rst, `/proc/<pid>/schedstat`).
pub(crate) fn cpu_time(process: Process) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", process.pid())) else {
        return Duration::ZERO;
    };
    let spent = |thread: io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.filter_map(spent).sum())
}
