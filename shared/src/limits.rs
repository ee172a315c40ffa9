//! The number of descriptors a process may hold.
//!
//! A worker raises its soft limit to the hard one for its own sockets, and gives what it spawns
//! the limit it was itself started with: programs that use `select(2)` break above 1024, and some
//! close every possible descriptor in a loop. It has the room for them made before it has threads.

use std::fs::File;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// In the environment of a worker: the soft limit that its front was started with, in counts.
pub const SOFT_VARIABLE: &str = "HOLDFAST_SOFT_DESCRIPTORS";

/// The limits of descriptors, in counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorLimits {
    /// The soft limit that this process, or the front that raised it before, was started with: what its children
    /// should get.
    pub inherited: u64,
    /// The limit in force.
    pub current: u64,
}

/// Raises the soft limit of this process to its hard limit.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimits> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(DescriptorLimits { inherited: meant(soft), current: hard })
}

/// The soft limit for a child of this process, as [`DescriptorLimits::inherited`].
///
/// # Errors
/// Those of getrlimit(2).
pub fn soft_limit_for_children() -> io::Result<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| meant(soft)).map_err(Into::into)
}

/// A front raises its limit, and its workers inherit that; what was meant before is in their environment.
fn meant(soft: u64) -> u64 {
    let said = std::env::var(SOFT_VARIABLE).ok().and_then(|limit| limit.parse().ok());
    said.map_or(soft, |limit: u64| limit.min(soft))
}

/// Makes room in the kernel's table for descriptors with numbers below `count`, or as many as the limit in
/// force allows. To be called before there is a second thread.
///
/// The table doubles whenever it is full, and in a process with threads each time whoever needs the next
/// descriptor waits for an RCU grace period (`expand_fdtable` in the kernel's fs/file.c): 10 to 20 ms at the
/// 64th descriptor, the 128th, the 256th, and so on, measured as a pause of every connection that arrives
/// then. Alone, a process does not wait. A place takes 8 bytes of the kernel's memory.
///
/// # Errors
/// Those of getrlimit(2), open(2) of `/dev/null` and fcntl(2); nothing is lost but the room.
pub fn reserve_descriptors(count: u64) -> io::Result<()> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let last = i32::try_from(count.min(soft)).unwrap_or(i32::MAX).saturating_sub(1).max(0);
    rustix::io::fcntl_dupfd_cloexec(File::open("/dev/null")?, last)?;
    Ok(())
}

/// How many more descriptors this process could open now.
///
/// # Errors
/// When `/proc/self/fd` or the limit cannot be read.
pub fn free_descriptors() -> io::Result<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // The listing's own descriptor is counted, on the safe side.
    let open = std::fs::read_dir("/proc/self/fd")?.count() as u64;
    Ok(soft.saturating_sub(open))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places in the kernel's table of this process (proc(5)).
    fn table() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse().unwrap()
    }

    #[test]
    fn descriptors_have_room_once_it_was_reserved_as_far_as_the_limit_allows() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let all = soft.min(65_536);
        for wanted in [0, 1, table() * 4, all + 1] {
            reserve_descriptors(wanted).unwrap();
            assert!(table() >= wanted.min(soft), "{} of {wanted}", table());
        }
        // Room, not descriptors. Those of other tests have the first numbers.
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        let kept: Vec<_> = numbers.filter(|number| *number >= all - 1).collect();
        assert!(kept.is_empty(), "{kept:?} are open");
    }
}
