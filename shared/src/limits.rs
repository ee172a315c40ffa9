//! The number of descriptors a process may hold.
//!
//! A worker raises its soft limit to the hard one for its own sockets, and gives what it spawns
//! the limit it was itself started with: programs that use `select(2)` break above 1024, and some
//! close every possible descriptor in a loop.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limits of descriptors, in counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimits {
    /// The soft limit this process was started with: what its children should get.
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
    Ok(DescriptorLimits { inherited: soft, current: hard })
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
