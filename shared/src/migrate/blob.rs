//! Bytes that are too many for a packet: a memfd that goes along with one.
//!
//! Both sides see the same memory, so its writer can take it back at any time, also from a reader that
//! does not read: an empty blob was revoked.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::io::{Errno, pread};

/// An attachment that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotABlob {
    /// It did not come along: the process may open no more descriptors.
    #[error("it did not come along")]
    Missing,
    /// It is longer than allowed.
    #[error("it has {claimed} bytes where {most} are allowed")]
    TooLarge {
        /// Its length.
        claimed: usize,
        /// The longest there may be.
        most: usize,
    },
    /// It is not what was said to be in it.
    #[error("it is no text")]
    NotText,
    /// The kernel would not let it be read.
    #[error("could not read it")]
    Read {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A memfd with these bytes.
pub(super) fn write(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"holdfast-migration", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// The bytes of a memfd, at most `most`: its length is looked at before anything is allocated. It opens no
/// descriptor, since there may be none to be had.
pub(super) fn read(memfd: &OwnedFd, most: usize) -> Result<Vec<u8>, NotABlob> {
    let failed = |error: Errno| NotABlob::Read { source: error.into() };
    let length = fstat(memfd).map_err(failed)?.st_size;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > most {
        return Err(NotABlob::TooLarge { claimed: length, most });
    }
    let mut bytes = vec![0; length];
    let mut read = 0;
    while read < length {
        let more = pread(memfd, &mut bytes[read..], read as u64).map_err(failed)?;
        if more == 0 {
            // It was taken back meanwhile.
            bytes.truncate(read);
            break;
        }
        read += more;
    }
    Ok(bytes)
}

/// Takes a blob back from whoever else holds it.
pub(super) fn revoke(memfd: &OwnedFd) -> io::Result<()> {
    Ok(ftruncate(memfd, 0)?)
}

/// Whether its writer has taken it back; one that cannot be looked at counts as taken back.
pub(super) fn is_revoked(memfd: &OwnedFd) -> bool {
    fstat(memfd).map_or(true, |stat| stat.st_size == 0)
}
