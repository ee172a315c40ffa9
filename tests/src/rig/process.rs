//! A process as `/proc` shows it (proc(5)).
//!
//! **Invariants**
//! - A [`Process`] is a pid *and* the moment it started: a reused pid is never signalled or mistaken
//!   for it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process, running or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pid: i32,
    started_at: u64,
}

/// An open descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Descriptor {
    /// Its number.
    pub number: u32,
    /// What it refers to: a path, `socket:[123]`, `anon_inode:[eventpoll]`.
    pub target: String,
}

/// The fields of `/proc/PID/stat` that are looked at here.
struct Stat {
    state: char,
    parent: i32,
    group: i32,
    session: i32,
    started_at: u64,
}

impl Process {
    /// The process with this pid, if there is one.
    #[must_use]
    pub fn find(pid: i32) -> Option<Self> {
        let stat = stat(pid)?;
        Some(Self { pid, started_at: stat.started_at })
    }

    /// Its pid.
    #[must_use]
    pub const fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it has exited; a zombie has not been reaped, but it is gone.
    #[must_use]
    pub fn is_gone(self) -> bool {
        self.stat().is_none_or(|stat| stat.state == 'Z' || stat.state == 'X')
    }

    /// Whether it has exited and nobody has asked how.
    #[must_use]
    pub fn is_zombie(self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'Z')
    }

    /// Whether it is stopped by a signal.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'T')
    }

    /// Its parent's pid, while it runs.
    #[must_use]
    pub fn parent(self) -> Option<i32> {
        self.stat().map(|stat| stat.parent)
    }

    /// Its process group, while it runs.
    #[must_use]
    pub fn group(self) -> Option<i32> {
        self.stat().map(|stat| stat.group)
    }

    /// Its session, while it runs.
    #[must_use]
    pub fn session(self) -> Option<i32> {
        self.stat().map(|stat| stat.session)
    }

    /// Sends it a signal, unless it is gone.
    pub fn signal(self, signal: Signal) {
        if self.stat().is_some() {
            // It fails only for a process that has gone since.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Its open descriptors, by number.
    #[must_use]
    pub fn descriptors(self) -> Vec<Descriptor> {
        let Ok(entries) = fs::read_dir(self.file("fd")) else { return Vec::new() };
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                // One that was closed since the listing began is none.
                let target = fs::read_link(entry.path()).ok()?;
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some(Descriptor { number, target: target.to_string_lossy().into_owned() })
            })
            .collect();
        found.sort();
        found
    }

    /// Its resident memory in bytes; 0 when it is gone.
    #[must_use]
    pub fn resident_bytes(self) -> u64 {
        self.memory("VmRSS")
    }

    /// What of it is its own and no file's, in bytes; 0 when it is gone. Code comes and goes with who asks what;
    /// what leaks is in here.
    #[must_use]
    pub fn anonymous_bytes(self) -> u64 {
        self.memory("RssAnon")
    }

    fn memory(self, field: &str) -> u64 {
        self.status_field(field)
            .and_then(|value| value.strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map_or(0, |kibibytes| kibibytes * 1024)
    }

    /// How often its threads have gone to sleep: as often as something woke them.
    #[must_use]
    pub fn switches(self) -> u64 {
        let Ok(threads) = fs::read_dir(self.file("task")) else { return 0 };
        let of = |status: String| -> Option<u64> {
            let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse().ok()
        };
        threads
            .filter_map(|thread| of(fs::read_to_string(thread.ok()?.path().join("status")).ok()?))
            .sum()
    }

    /// The CPU time it has used, in clock ticks: fields 14 and 15 of `/proc/PID/stat` (proc_pid_stat(5)).
    #[must_use]
    pub fn cpu_ticks(self) -> u64 {
        let stat = fs::read_to_string(self.file("stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
    }

    /// The signals its main thread blocks, as a bit mask.
    #[must_use]
    pub fn blocked_signals(self) -> Option<u64> {
        u64::from_str_radix(&self.status_field("SigBlk")?, 16).ok()
    }

    /// Its working directory.
    #[must_use]
    pub fn directory(self) -> Option<PathBuf> {
        fs::read_link(self.file("cwd")).ok()
    }

    /// The program it executes.
    #[must_use]
    pub fn executable(self) -> Option<PathBuf> {
        fs::read_link(self.file("exe")).ok()
    }

    /// The environment it was started with.
    #[must_use]
    pub fn environment(self) -> BTreeMap<String, String> {
        let bytes = fs::read(self.file("environ")).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .split('\0')
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The words it was started with.
    #[must_use]
    pub fn arguments(self) -> Vec<String> {
        let bytes = fs::read(self.file("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    /// Every process below it: its children, theirs, and those it adopted.
    #[must_use]
    pub fn descendants(self) -> Vec<Self> {
        let everyone: Vec<(i32, Stat)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| i32::from_str(entry.ok()?.file_name().to_str()?).ok())
            .filter_map(|pid| Some((pid, stat(pid)?)))
            .collect();
        let mut family = vec![self.pid];
        let mut next = 0;
        while let Some(&parent) = family.get(next) {
            family.extend(everyone.iter().filter(|(_, s)| s.parent == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        let of = |pid: i32| everyone.iter().find(|(other, _)| *other == pid);
        family[1..]
            .iter()
            .filter_map(|&pid| of(pid))
            .map(|(pid, stat)| Self { pid: *pid, started_at: stat.started_at })
            .collect()
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    fn stat(self) -> Option<Stat> {
        stat(self.pid).filter(|stat| stat.started_at == self.started_at)
    }

    fn status_field(self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.file("status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may itself hold blanks and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started_at: fields.get(19)?.parse().ok()?,
    })
}

/// The inodes of the TCP sockets that listen on `address`, as the kernel lists them.
///
/// # Panics
/// When `/proc/net/tcp` cannot be read.
#[must_use]
pub fn listening_inodes(address: SocketAddr) -> Vec<u64> {
    /// `TCP_LISTEN` of include/net/tcp_states.h.
    const LISTEN: &str = "0A";
    let table = if address.is_ipv6() { "/proc/net/tcp6" } else { "/proc/net/tcp" };
    let wanted = kernel_notation(address);
    let text = fs::read_to_string(table).expect("the kernel lists its sockets");
    let mut inodes: Vec<u64> = text
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(1) == Some(&wanted.as_str()) && fields.get(3) == Some(&LISTEN))
        .filter_map(|fields| fields.get(9)?.parse().ok())
        .collect();
    inodes.sort_unstable();
    inodes
}

/// `0100007F:4965` for 127.0.0.1:18789: each four bytes as the number they are on this machine.
fn kernel_notation(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words: String = bytes
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .map(|word| format!("{word:08X}"))
        .collect();
    format!("{words}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself_and_its_own_sockets() {
        let own = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(!own.is_gone() && own.resident_bytes() > 0);
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = std::net::TcpListener::bind(address) else { continue };
            let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
            assert_eq!(listening_inodes(socket.local_addr().unwrap()), [inode]);
            let target = format!("socket:[{inode}]");
            assert!(own.descriptors().iter().any(|d| d.target == target));
        }
    }

    #[test]
    fn a_pid_of_another_moment_is_another_process() {
        let own = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        let earlier = Process { started_at: own.started_at.wrapping_sub(1), ..own };
        assert!(earlier.is_gone());
    }
}
