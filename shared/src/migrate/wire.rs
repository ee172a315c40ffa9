//! The words on a migration link, and the batch that crosses with an offer.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::snapshot::{self, Frozen, MAX_CARRIED, NotASnapshot, Snapshot};

/// How many connections cross in one offer.
pub(super) const WAVE: usize = 64;
/// The most bytes an offer's snapshots may have.
const MAX_BLOB: u64 = (WAVE * (3 * MAX_CARRIED + 8 * 1024)) as u64;

/// What the source says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum ToTarget {
    /// These connections are frozen and could be yours: the memfd with their snapshots is attached,
    /// then one descriptor for each.
    Offer { seq: u64, count: usize },
    /// They are yours.
    Commit { seq: u64 },
    /// They are mine again: close your copies.
    Abort { seq: u64 },
}

/// What the target says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum ToSource {
    /// I could take them, except these.
    Prepared {
        seq: u64,
        #[serde(default)]
        rejected: Vec<Rejected>,
    },
    /// I serve them.
    Started { seq: u64 },
}

/// A connection of an offer that the target cannot take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rejected {
    /// Its place in the offer, from 0.
    pub(super) index: usize,
    /// Why, for the log.
    pub(super) reason: String,
    /// Whether it could be offered again later.
    #[serde(default)]
    pub(super) later: bool,
}

/// Puts the snapshots of a batch where its descriptors can go along: in a memfd.
pub(super) fn pack(batch: &[Frozen]) -> std::io::Result<OwnedFd> {
    let blob = snapshot::encode(batch.iter().map(|frozen| &frozen.snapshot));
    let mut file = File::from(memfd_create(c"holdfast-migration", MemfdFlags::CLOEXEC)?);
    file.write_all(&blob)?;
    file.rewind()?;
    Ok(file.into())
}

/// What is attached to an offer.
pub(super) fn attachments<'a>(memfd: &'a OwnedFd, batch: &'a [Frozen]) -> Vec<BorrowedFd<'a>> {
    std::iter::once(memfd.as_fd())
        .chain(batch.iter().map(|frozen| frozen.descriptor.as_fd()))
        .collect()
}

/// Reads an offer back from its attachments.
pub(super) fn unpack(count: usize, descriptors: Vec<OwnedFd>) -> Result<Vec<Frozen>, NotASnapshot> {
    let mut descriptors = descriptors.into_iter();
    let memfd = descriptors.next().ok_or(NotASnapshot::CutShort)?;
    let snapshots = snapshot::decode(&read(memfd)?, WAVE)?;
    if snapshots.len() != count || descriptors.len() != count {
        return Err(NotASnapshot::CutShort);
    }
    let freeze = |(descriptor, snapshot): (OwnedFd, Snapshot)| Frozen { descriptor, snapshot };
    Ok(descriptors.zip(snapshots).map(freeze).collect())
}

fn read(memfd: OwnedFd) -> Result<Vec<u8>, NotASnapshot> {
    let failed = |source| NotASnapshot::Read { source };
    let file = File::from(memfd);
    let length = file.metadata().map_err(failed)?.len();
    if length > MAX_BLOB {
        let claimed = usize::try_from(length).unwrap_or(usize::MAX);
        return Err(NotASnapshot::TooLarge { claimed, most: WAVE * 3 * MAX_CARRIED });
    }
    let mut blob = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut blob, 0).map_err(failed)?;
    Ok(blob)
}
