//! The words on a migration link, and the batch that crosses with an offer.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::blob::{self, NotABlob};
use super::post::{self, Mailbox, Word};
use super::snapshot::{self, Entry, Frozen, MAX_CARRIED, MOST_DESCRIPTORS, NotASnapshot, Snapshot};

/// The most that one offer may have.
pub(super) const WAVE: usize = 64;
/// The most bytes an offer's snapshots may have.
const MAX_BLOB: usize = WAVE * (3 * MAX_CARRIED + 8 * 1024);

/// What the source says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum ToTarget {
    /// These are frozen and could be yours: the memfd with their snapshots is attached, then the descriptors of each.
    Offer { seq: u64, count: usize },
    /// They are yours.
    Commit { seq: u64 },
    /// They are mine again: close your copies.
    Abort { seq: u64 },
    /// From the post of this generation, in order.
    Post {
        #[serde(deserialize_with = "post::one_or_several")]
        post: Vec<Word>,
    },
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
        /// Whether one letter for several connections is understood: the first workers knew none.
        #[serde(default)]
        late_together: bool,
    },
    /// I serve them.
    Started { seq: u64 },
    /// From the post of this generation, in order.
    Post {
        #[serde(deserialize_with = "post::one_or_several")]
        post: Vec<Word>,
    },
}

/// One of an offer that the target cannot take.
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
    blob::write(&snapshot::encode(batch.iter().map(|frozen| {
        let mailbox = frozen.mailbox.as_ref().map(Mailbox::number);
        (&frozen.snapshot, mailbox, frozen.descriptors())
    })))
}

/// Takes the next batch of at most `most` from what is frozen: all of it connections or none, and no more descriptors
/// than a packet carries.
pub(super) fn take_batch(frozen: &mut Vec<Frozen>, most: usize) -> Vec<Frozen> {
    let Some(first) = frozen.first() else { return Vec::new() };
    let is_connection = first.snapshot.kind.is_connection();
    let (mut taken, mut descriptors) = (0, 0);
    frozen
        .extract_if(.., |frozen| {
            let fits = frozen.snapshot.kind.is_connection() == is_connection
                && taken < most
                && (taken == 0 || descriptors + frozen.descriptors() <= MOST_DESCRIPTORS);
            if fits {
                taken += 1;
                descriptors += frozen.descriptors();
            }
            fits
        })
        .collect()
}

/// What is attached to an offer.
pub(super) fn attachments<'a>(memfd: &'a OwnedFd, batch: &'a [Frozen]) -> Vec<BorrowedFd<'a>> {
    std::iter::once(memfd.as_fd())
        .chain(batch.iter().flat_map(|frozen| {
            std::iter::once(&frozen.descriptor).chain(&frozen.more).map(|end| end.as_fd())
        }))
        .collect()
}

/// An offer as it was received.
#[derive(Debug)]
pub(super) struct Offered {
    /// Empty once the source has taken the offer back.
    pub(super) memfd: OwnedFd,
    pub(super) batch: Vec<Unclaimed>,
}

/// One that is not the target's yet.
#[derive(Debug)]
pub(super) struct Unclaimed {
    pub(super) descriptor: OwnedFd,
    pub(super) more: Vec<OwnedFd>,
    pub(super) snapshot: Snapshot,
    /// What its mailbox is called where it comes from.
    pub(super) mailbox: Option<u64>,
}

/// Reads an offer back from its attachments.
pub(super) fn unpack(count: usize, descriptors: Vec<OwnedFd>) -> Result<Offered, NotASnapshot> {
    let mut descriptors = descriptors.into_iter();
    let memfd = descriptors.next().ok_or(NotASnapshot::CutShort)?;
    let blob = blob::read(&memfd, MAX_BLOB).map_err(|error| match error {
        NotABlob::TooLarge { claimed, most } => NotASnapshot::TooLarge { claimed, most },
        NotABlob::Read { source } => NotASnapshot::Read { source },
        NotABlob::Missing | NotABlob::NotText => NotASnapshot::CutShort,
    })?;
    let snapshots = snapshot::decode(&blob, WAVE)?;
    let needed: usize = snapshots.iter().map(|entry| entry.descriptors).sum();
    if snapshots.len() != count || descriptors.len() != needed {
        return Err(NotASnapshot::CutShort);
    }
    let mut batch = Vec::with_capacity(count);
    for Entry { snapshot, mailbox, descriptors: its } in snapshots {
        // One that claims none is cut short.
        let descriptor = descriptors.by_ref().take(its).next().ok_or(NotASnapshot::CutShort)?;
        let more = descriptors.by_ref().take(its.saturating_sub(1)).collect();
        batch.push(Unclaimed { descriptor, more, snapshot, mailbox });
    }
    Ok(Offered { memfd, batch })
}
