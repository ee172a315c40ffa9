//! The front as the last ancestor: every process that loses its parent below it becomes its child,
//! and is waited for here.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

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
    processes().filter(|pid| parent_of(*pid) == Some(own.as_raw())).map(Pid::from_raw).collect()
}

fn processes() -> impl Iterator<Item = i32> {
    let listed = fs::read_dir("/proc").into_iter().flatten();
    listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The parent of a process.
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    stat(pid).map(|stat| stat.parent)
}

/// When a process was started, in ticks since the machine was.
pub(crate) fn born(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.born)
}

/// What is looked at of `/proc/<pid>/stat`.
struct Stat {
    is_zombie: bool,
    parent: i32,
    group: i32,
    /// In ticks since the machine was started.
    born: u64,
}

/// The fields after a name that may itself hold spaces and parentheses (proc_pid_stat(5)).
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some(Stat {
        is_zombie: fields.next()? == "Z",
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        born: fields.nth(16)?.parse().ok()?,
    })
}

/// Ends whoever is left in the group of a leader that is gone, and was no child. The group's number is nobody else's
/// as long as anybody is in it; once it is a living process's again, that one's group is another.
pub(crate) fn end_group_of_the_gone(leader: Pid) {
    let leader = leader.as_raw();
    for pid in processes() {
        let is_member = || stat(pid).is_some_and(|stat| stat.group == leader);
        let is_reused = || stat(leader).is_some_and(|stat| !stat.is_zombie);
        if !is_member() {
            continue;
        }
        let Some(wanted) = rustix::process::Pid::from_raw(pid) else { continue };
        let Ok(pidfd) = pidfd_open(wanted, PidfdFlags::empty()) else { continue };
        // Asked of the process that the descriptor is of.
        if is_member() && !is_reused() {
            // One that ended meanwhile is what was wanted.
            let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
    }
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
