//! A connection at rest: its descriptor, and everything about it that is not in the kernel.
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

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::post::Mailbox;
use crate::acceptor::Peer;

/// The most bytes of each kind a connection may carry along, unread or unsent. One that has more
/// moves when it has less.
pub const MAX_CARRIED: usize = 1024 * 1024;
/// The longest header, in bytes; today's have about 150.
const MAX_HEADER: usize = 4 * 1024;

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// HTTP/1.1, between requests.
    Http1,
    /// A WebSocket, anywhere but in its close.
    WebSocket,
}

/// Everything about a connection that the kernel does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is.
    pub kind: Kind,
    /// Who is at the other end, as accept(2) said.
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

/// A connection that nobody reads or writes.
#[derive(Debug)]
pub struct Frozen {
    /// The socket, taken out of its event loop.
    pub descriptor: OwnedFd,
    /// The rest of it.
    pub snapshot: Snapshot,
    /// Where its letters wait, if it gets any.
    pub mailbox: Option<Mailbox>,
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
}

/// Writes snapshots one after the other, with the numbers of their mailboxes.
pub(super) fn encode<'a>(
    snapshots: impl ExactSizeIterator<Item = (&'a Snapshot, Option<u64>)>,
) -> Vec<u8> {
    let mut blob = Vec::with_capacity(512 * snapshots.len());
    blob.extend(length(snapshots.len()));
    for (snapshot, mailbox) in snapshots {
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
pub(super) fn decode(
    mut blob: &[u8],
    most: usize,
) -> Result<Vec<(Snapshot, Option<u64>)>, NotASnapshot> {
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
        let snapshot = Snapshot {
            kind: header.kind,
            peer: header.peer.map_or(Peer::Unix, Peer::Tcp),
            read: take(&mut blob, header.read)?.to_vec(),
            unsent: take(&mut blob, header.unsent)?.to_vec(),
            version: header.version,
            state: take(&mut blob, header.state)?.to_vec(),
        };
        snapshots.push((snapshot, header.mailbox));
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

    fn snapshots() -> Vec<(Snapshot, Option<u64>)> {
        vec![
            (
                Snapshot {
                    kind: Kind::Http1,
                    peer: Peer::Tcp("[::1]:4711".parse().unwrap()),
                    read: b"GET / HT".to_vec(),
                    unsent: vec![],
                    version: 1,
                    state: b"{}".to_vec(),
                },
                None,
            ),
            (
                Snapshot {
                    kind: Kind::WebSocket,
                    peer: Peer::Unix,
                    read: vec![0x81],
                    unsent: vec![0; 1000],
                    version: 7,
                    state: vec![],
                },
                Some(41),
            ),
        ]
    }

    fn encoded(snapshots: &[(Snapshot, Option<u64>)]) -> Vec<u8> {
        encode(snapshots.iter().map(|(snapshot, mailbox)| (snapshot, *mailbox)))
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
        assert!(matches!(decode(&blob, 1), Err(NotASnapshot::TooLarge { claimed: 2, most: 1 })));
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
        let (snapshot, mailbox) = &read[0];
        assert_eq!((snapshot.version, snapshot.peer, *mailbox), (2, Peer::Unix, None));
        assert_eq!(snapshot.read, b"G");
    }
}
