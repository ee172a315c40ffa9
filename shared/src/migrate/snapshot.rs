//! A connection at rest, or a session of a program's: its descriptors, and everything about it that is not in the kernel.
//!
//! A batch of them crosses as one blob in a memfd, since it may exceed a packet:
//!
//! ```text
//! count: u32 │ header length: u32 │ header: JSON │ read │ unsent │ state │ header length …
//! ```
//! Integers are little-endian: both ends are on one machine.
//!
//! **Invariants**
//! - A length is believed only as far as bytes are there.
//! - The state's version is the worker's own; one that it does not know is its to reject, for that
//!   connection alone.
//! - What has more descriptors than one says so in its header. Those before these words had one each.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::post::Mailbox;
use crate::acceptor::Peer;
use crate::fd_passing::MAX_DESCRIPTORS;

/// The most bytes of each kind a connection may carry along, unread or unsent. One that has more
/// moves when it has less.
pub const MAX_CARRIED: usize = 1024 * 1024;
/// The longest header, in bytes; today's have about 150.
const MAX_HEADER: usize = 4 * 1024;
/// The most descriptors of one offer, the memfd of its snapshots apart.
pub(super) const MOST_DESCRIPTORS: usize = MAX_DESCRIPTORS - 1;

/// What moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// HTTP/1.1, between requests.
    Http1,
    /// A WebSocket, anywhere but in its close.
    WebSocket,
    /// No connection of a client's: a program that goes on running, and the descriptors it is spoken to by. A
    /// generation that does not know the word refuses the whole offer, so there is nothing else in it.
    Session,
}

impl Kind {
    /// Whether it is a connection of a client's.
    pub(super) const fn is_connection(self) -> bool {
        !matches!(self, Self::Session)
    }
}

/// Everything about what moves that the kernel does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is.
    pub kind: Kind,
    /// Who is at the other end, as accept(2) said. Of a session: [`Peer::Unix`].
    pub peer: Peer,
    /// Received, and not yet understood: to be read before the socket.
    pub read: Vec<u8>,
    /// To be sent before anything else.
    pub unsent: Vec<u8>,
    /// The version of `state`.
    pub version: u32,
    /// What the worker knows about it, in the worker's own words.
    pub state: Vec<u8>,
}

/// What a generation keeps of something it gives away, until that is served elsewhere. What comes back has it
/// again; it never crosses.
///
/// Dropped after [`committed`](Self::committed) and without [`started`](Self::started), it was lost with the successor.
pub trait Guard: Any + fmt::Debug + Send {
    /// It belongs to the successor from now on, which may not know so yet.
    fn committed(&mut self);

    /// The successor serves it.
    fn started(self: Box<Self>);
}

/// What nobody reads or writes.
#[derive(Debug)]
pub struct Frozen {
    /// The socket, taken out of its event loop.
    pub descriptor: OwnedFd,
    /// Whatever else belongs to it, in an order that its owners know: 251 at the most.
    pub more: Vec<OwnedFd>,
    /// The rest of it.
    pub snapshot: Snapshot,
    /// Where its letters wait, if it gets any.
    pub mailbox: Option<Mailbox>,
    /// What stays behind.
    pub guard: Option<Box<dyn Guard>>,
}

impl Frozen {
    /// A connection: it has one descriptor, and nothing of it stays behind.
    #[must_use]
    pub const fn connection(
        descriptor: OwnedFd,
        snapshot: Snapshot,
        mailbox: Option<Mailbox>,
    ) -> Self {
        Self { descriptor, more: Vec::new(), snapshot, mailbox, guard: None }
    }

    /// How many descriptors it has.
    pub(super) const fn descriptors(&self) -> usize {
        1 + self.more.len()
    }
}

/// What crosses of one, beside its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) snapshot: Snapshot,
    /// What its mailbox is called in the generation that wrote this.
    pub(super) mailbox: Option<u64>,
    /// How many descriptors it has.
    pub(super) descriptors: usize,
}

#[cfg(test)]
impl Entry {
    /// What it is written from.
    pub(super) const fn parts(&self) -> (&Snapshot, Option<u64>, usize) {
        (&self.snapshot, self.mailbox, self.descriptors)
    }
}

/// Bytes that were meant as snapshots and are none.
#[derive(Debug, thiserror::Error)]
pub enum NotASnapshot {
    /// The bytes end before they should.
    #[error("the snapshots end in the middle of one")]
    CutShort,
    /// A length beyond what is allowed.
    #[error("a snapshot claims {claimed} bytes where {most} are allowed")]
    TooLarge {
        /// The length it claims.
        claimed: usize,
        /// The most there may be.
        most: usize,
    },
    /// Bytes after the last one.
    #[error("{extra} bytes follow the last snapshot")]
    TooLong {
        /// How many.
        extra: usize,
    },
    /// The header is no header.
    #[error("the header of a snapshot cannot be read")]
    Header {
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// It could not be read from where it lies.
    #[error("the snapshots could not be read")]
    Read {
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    kind: Kind,
    /// `None` for a client of a Unix socket.
    #[serde(default)]
    peer: Option<SocketAddr>,
    version: u32,
    read: usize,
    unsent: usize,
    state: usize,
    /// What its mailbox is called in the generation that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mailbox: Option<u64>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    descriptors: usize,
}

const fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it may skip so")]
const fn is_one(descriptors: &usize) -> bool {
    *descriptors == 1
}

/// Writes snapshots one after the other, with the numbers of their mailboxes and descriptors.
pub(super) fn encode<'a>(
    snapshots: impl ExactSizeIterator<Item = (&'a Snapshot, Option<u64>, usize)>,
) -> Vec<u8> {
    let mut blob = Vec::with_capacity(512 * snapshots.len());
    blob.extend(length(snapshots.len()));
    for (snapshot, mailbox, descriptors) in snapshots {
        let header = Header {
            kind: snapshot.kind,
            peer: match snapshot.peer {
                Peer::Tcp(address) => Some(address),
                Peer::Unix => None,
            },
            version: snapshot.version,
            read: snapshot.read.len(),
            unsent: snapshot.unsent.len(),
            state: snapshot.state.len(),
            mailbox,
            descriptors,
        };
        let header = serde_json::to_vec(&header).expect("numbers and an address are JSON");
        blob.extend(length(header.len()));
        blob.extend(header);
        blob.extend(&snapshot.read);
        blob.extend(&snapshot.unsent);
        blob.extend(&snapshot.state);
    }
    blob
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("snapshots are limited far below 4 GiB").to_le_bytes()
}

/// Reads what [`encode`] wrote, at most `most` snapshots.
///
/// # Errors
/// [`NotASnapshot`]; never panics, whatever the bytes.
pub(super) fn decode(mut blob: &[u8], most: usize) -> Result<Vec<Entry>, NotASnapshot> {
    let count = take_length(&mut blob)?;
    within(count, most)?;
    let mut snapshots = Vec::with_capacity(count);
    for _ in 0..count {
        let header_length = take_length(&mut blob)?;
        within(header_length, MAX_HEADER)?;
        let header: Header = serde_json::from_slice(take(&mut blob, header_length)?)
            .map_err(|source| NotASnapshot::Header { source })?;
        for carried in [header.read, header.unsent, header.state] {
            within(carried, MAX_CARRIED)?;
        }
        within(header.descriptors, MOST_DESCRIPTORS)?;
        let snapshot = Snapshot {
            kind: header.kind,
            peer: header.peer.map_or(Peer::Unix, Peer::Tcp),
            read: take(&mut blob, header.read)?.to_vec(),
            unsent: take(&mut blob, header.unsent)?.to_vec(),
            version: header.version,
            state: take(&mut blob, header.state)?.to_vec(),
        };
        let (mailbox, descriptors) = (header.mailbox, header.descriptors);
        snapshots.push(Entry { snapshot, mailbox, descriptors });
    }
    if blob.is_empty() { Ok(snapshots) } else { Err(NotASnapshot::TooLong { extra: blob.len() }) }
}

const fn within(claimed: usize, most: usize) -> Result<(), NotASnapshot> {
    if claimed <= most { Ok(()) } else { Err(NotASnapshot::TooLarge { claimed, most }) }
}

fn take<'a>(blob: &mut &'a [u8], length: usize) -> Result<&'a [u8], NotASnapshot> {
    let (taken, rest) = blob.split_at_checked(length).ok_or(NotASnapshot::CutShort)?;
    *blob = rest;
    Ok(taken)
}

fn take_length(blob: &mut &[u8]) -> Result<usize, NotASnapshot> {
    let bytes = take(blob, 4)?.first_chunk().ok_or(NotASnapshot::CutShort)?;
    usize::try_from(u32::from_le_bytes(*bytes)).map_err(|_| NotASnapshot::CutShort)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots() -> Vec<Entry> {
        let http = Snapshot {
            kind: Kind::Http1,
            peer: Peer::Tcp("[::1]:4711".parse().unwrap()),
            read: b"GET / HT".to_vec(),
            unsent: vec![],
            version: 1,
            state: b"{}".to_vec(),
        };
        let websocket = Snapshot {
            kind: Kind::WebSocket,
            peer: Peer::Unix,
            read: vec![0x81],
            unsent: vec![0; 1000],
            version: 7,
            state: vec![],
        };
        let session = Snapshot { kind: Kind::Session, ..websocket.clone() };
        vec![
            Entry { snapshot: http, mailbox: None, descriptors: 1 },
            Entry { snapshot: websocket, mailbox: Some(41), descriptors: 1 },
            Entry { snapshot: session, mailbox: None, descriptors: 5 },
        ]
    }

    fn encoded(snapshots: &[Entry]) -> Vec<u8> {
        encode(snapshots.iter().map(Entry::parts))
    }

    #[test]
    fn snapshots_are_read_as_they_were_written() {
        let snapshots = snapshots();
        assert_eq!(decode(&encoded(&snapshots), 64).unwrap(), snapshots);
        assert_eq!(decode(&encoded(&[]), 64).unwrap(), vec![]);
    }

    #[test]
    fn a_blob_that_is_cut_anywhere_is_refused() {
        let blob = encoded(&snapshots());
        for cut in 0..blob.len() {
            assert!(decode(&blob[..cut], 64).is_err(), "cut at {cut}");
        }
        assert!(matches!(
            decode(&[&blob[..], b"x"].concat(), 64),
            Err(NotASnapshot::TooLong { extra: 1 })
        ));
    }

    #[test]
    fn lengths_are_not_believed() {
        let blob = encoded(&snapshots());
        assert!(matches!(decode(&blob, 1), Err(NotASnapshot::TooLarge { claimed: 3, most: 1 })));
        for position in 0..blob.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = blob.clone();
                broken[position] = value;
                // It may still be a snapshot; it may not panic or take what is not there.
                let _ = decode(&broken, 64);
            }
        }
    }

    #[test]
    fn a_header_of_a_later_version_is_read_without_what_is_new_in_it() {
        let header =
            br#"{"kind":"http1","version":2,"read":1,"unsent":0,"state":0,"colour":"green"}"#;
        let mut blob = length(1).to_vec();
        blob.extend(length(header.len()));
        blob.extend(header);
        blob.extend(b"G");
        let read = decode(&blob, 64).unwrap();
        let Entry { snapshot, mailbox, descriptors } = &read[0];
        assert_eq!((snapshot.version, snapshot.peer, *mailbox), (2, Peer::Unix, None));
        assert_eq!((snapshot.read.as_slice(), *descriptors), (&b"G"[..], 1));
    }

    #[test]
    fn a_connection_is_written_as_those_read_it_that_know_of_one_descriptor_alone() {
        let header = |entries: &[Entry]| {
            let blob = encoded(entries);
            String::from_utf8_lossy(&blob).into_owned()
        };
        let entries = snapshots();
        assert!(!header(&entries[..2]).contains("descriptors"));
        assert!(header(&entries[2..]).contains(r#""descriptors":5"#));
    }
}
