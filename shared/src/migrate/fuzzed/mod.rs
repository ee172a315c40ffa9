//! Every decoder of bytes from another process, fed with bytes that nearly are what it expects.
//!
//! ```text
//! tests/corpus/{link,snapshot}/ ── one entry ──► a few mutations ──► the decoder ──► an error, or a value
//!                                                                   that is written and read again the same
//! ```
//!
//! The corpus holds what was really written, by this version and by earlier ones: an entry is added
//! when a format changes, and none is removed. `the_corpus_is_written_anew` writes today's.
//!
//! `PROPTEST_CASES` says how many times; `just fuzz` says many.
//!
//! **Invariants**
//! - No decoder panics, whatever the bytes, and none takes more than there is.
//! - After a packet that is no message, the next one is read as if nothing had been.

mod corpus;
mod mutation;

use std::fmt::Debug;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::SendFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::corpus::{contents, corpus};
use self::mutation::{mutated, mutations};
use super::snapshot::{self, Entry, NotASnapshot, Snapshot};
use super::wire::{self, ToSource, ToTarget, WAVE};
use crate::link::{self, Link};
use crate::message::{MAX_MESSAGE, ToFront, ToWorker};

/// How many cases there are for each of proptest's.
const TIMES: u32 = 4;
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases * TIMES, failure_persistence: None, ..default }
}

/// Whether these bytes are a message of a type; one that is, is written and read again the same.
fn is_stable<M: Serialize + DeserializeOwned + PartialEq + Debug>(packet: &[u8]) -> bool {
    tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(async {
        let (ours, theirs) = link::pair().unwrap();
        let theirs = Link::new(theirs).unwrap();
        // One beyond what the kernel takes as a packet never arrives.
        let arrives = rustix::net::send(&ours, packet, SendFlags::NOSIGNAL).is_ok();
        let received = if arrives { theirs.receive::<M>().await } else { Ok(None) };
        let Ok(Some(received)) = received else {
            rustix::net::send(&ours, b"\"hello\"", SendFlags::NOSIGNAL).unwrap();
            let next = theirs.receive::<String>().await.unwrap().unwrap();
            assert_eq!(next.message, "hello", "the next message was spoilt");
            return false;
        };
        let again = serde_json::to_vec(&received.message).unwrap();
        let again: M = serde_json::from_slice(&again).unwrap();
        assert_eq!(again, received.message);
        true
    })
}

/// Which of the types of message these bytes are.
fn message_types(packet: &[u8]) -> usize {
    let types = [
        is_stable::<ToWorker>(packet),
        is_stable::<ToFront>(packet),
        is_stable::<ToTarget>(packet),
        is_stable::<ToSource>(packet),
    ];
    types.into_iter().filter(|is| *is).count()
}

/// Reads a blob as an offer's attachment, with so many descriptors and for so many connections.
fn unpacked(blob: &[u8], descriptors: usize, count: usize) -> Result<Vec<Snapshot>, NotASnapshot> {
    let null = File::open("/dev/null").unwrap();
    let mut memfd = File::from(memfd_create(c"fuzzed", MemfdFlags::CLOEXEC).unwrap());
    memfd.write_all(blob).unwrap();
    let sockets = (0..descriptors).map(|_| OwnedFd::from(null.try_clone().unwrap()));
    let attached = std::iter::once(OwnedFd::from(memfd)).chain(sockets).collect();
    let offered = wire::unpack(count, attached)?;
    Ok(offered.batch.into_iter().map(|unclaimed| unclaimed.snapshot).collect())
}

fn encoded(snapshots: &[Entry]) -> Vec<u8> {
    snapshot::encode(snapshots.iter().map(Entry::parts))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_packet_makes_a_reader_panic_or_lose_the_next((entry, mutations) in mutations()) {
        let packet = mutated(&contents("link"), entry, &mutations);
        message_types(&packet);
    }

    #[test]
    fn no_packet_of_any_bytes_makes_a_reader_panic(packet in vec(any::<u8>(), 0..200)) {
        message_types(&packet);
    }

    #[test]
    fn no_blob_makes_a_reader_panic_or_take_what_is_not_there(
        (entry, mutations) in mutations(),
        descriptors in 0..6_usize,
        count in 0..6_usize,
    ) {
        let blob = mutated(&contents("snapshot"), entry, &mutations);
        if let Ok(snapshots) = snapshot::decode(&blob, WAVE) {
            prop_assert!(snapshots.len() <= WAVE);
            let snapshots_of = snapshots.iter().map(|entry| &entry.snapshot);
            let carried = snapshots_of.map(|s| s.read.len() + s.unsent.len() + s.state.len());
            prop_assert!(carried.sum::<usize>() <= blob.len());
            let again = snapshot::decode(&encoded(&snapshots), WAVE).unwrap();
            prop_assert_eq!(&again, &snapshots);
            let has_some = snapshots.iter().all(|entry| entry.descriptors > 0);
            let needed = snapshots.iter().map(|entry| entry.descriptors).sum::<usize>();
            let fits = snapshots.len() == count && has_some && needed == descriptors;
            prop_assert_eq!(unpacked(&blob, descriptors, count).is_ok(), fits);
        } else {
            prop_assert!(unpacked(&blob, descriptors, count).is_err());
        }
    }
}

#[test]
fn every_message_that_was_ever_written_is_read() {
    for (name, packet) in corpus("link") {
        assert!(message_types(&packet) > 0, "{name}");
    }
}

#[test]
fn every_snapshot_that_was_ever_written_is_read() {
    for (name, blob) in corpus("snapshot") {
        let read = snapshot::decode(&blob, WAVE);
        assert!(read.is_ok(), "{name}: {read:?}");
    }
}

#[test]
fn a_packet_of_any_length_is_read_or_refused() {
    for length in [1, MAX_MESSAGE - 1, MAX_MESSAGE, MAX_MESSAGE + 1, 170 * 1024] {
        let mut packet = vec![b' '; length];
        packet[0] = b'"';
        packet[length - 1] = b'"';
        assert_eq!(message_types(&packet), 0, "{length}");
    }
}

#[test]
fn a_memfd_that_claims_more_than_an_offer_may_have_is_not_read() {
    let memfd = memfd_create(c"fuzzed", MemfdFlags::CLOEXEC).unwrap();
    // It has no page: what is not there costs the sender nothing.
    ftruncate(&memfd, 1 << 40).unwrap();
    assert!(matches!(wire::unpack(0, vec![memfd]), Err(NotASnapshot::TooLarge { .. })));
}
