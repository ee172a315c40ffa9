//! The front as the last ancestor: every process that loses its parent below it becomes its child,
//! and is waited for here.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::event::Exit;

/// Has orphaned descendants become children of this process, as those of PID 1 do.
pub(crate) fn become_subreaper() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// A child that has ended and is not reaped yet: its pid, and with it that of its process group, is
/// still its own. Never blocks.
pub(crate) fn ended() -> Option<Pid> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::All, flags) {
            Ok(status) => return status.pid(),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Reaps a child that has ended.
pub(crate) fn reap(pid: Pid) -> Option<Exit> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(Exit::Code(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(Exit::Signal(signal as i32)),
        Ok(_) | Err(_) => None,
    }
}

/// The processes whose parent is this one.
pub(crate) fn children() -> Vec<Pid> {
    let own = Pid::this();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(own.as_raw()))
        .map(Pid::from_raw)
        .collect()
}

/// The parent of a process: the fourth field of `/proc/<pid>/stat`, after a name that may itself hold spaces and
/// parentheses (proc_pid_stat(5)).
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// Ends a child at once; its own children become this process's then.
pub(crate) fn end(pid: Pid) {
    // One that ended meanwhile is what was wanted.
    let _ = kill(pid, Signal::SIGKILL);
}

/// Sends `signal` to every child.
pub(crate) fn signal_children(signal: Signal) {
    for pid in children() {
        // One that ended meanwhile is what was wanted.
        let _ = kill(pid, signal);
    }
}
