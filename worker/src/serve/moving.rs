//! What crosses when a connection moves to another generation, in the worker's own words.
//!
//! **Invariants**
//! - A state has the version it was written in; one that is unknown here is refused for that
//!   connection alone, which then drains where it is.
//! - Clocks do not cross: what does is how long ago, and in how long.

use std::time::{Duration, Instant};

use handoff::migrate::{Frozen, Kind, MAX_CARRIED, Mailbox, Snapshot};
use handoff::{Peer, Stream};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The version of [`WebSocketState`]. A later one may add fields that have defaults without counting up.
const STATE_VERSION: u32 = 1;

/// What a WebSocket is in the middle of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub(super) enum WebSocketState {
    /// It was challenged and has not connected.
    Challenged(ChallengedState),
    /// It has connected.
    Connected(ConnectedState),
}

/// A client that was challenged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChallengedState {
    /// What its device signs.
    pub(super) nonce: String,
    pub(super) local: bool,
    /// How long ago it was upgraded, in ms.
    pub(super) age_ms: u64,
    /// How many more bytes it may send before it connects.
    pub(super) allowance: usize,
}

/// A client that has connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ConnectedState {
    pub(super) protocol: u64,
    pub(super) client: ClientState,
    pub(super) role: String,
    pub(super) scopes: Vec<String>,
    /// The number of its last event.
    pub(super) seq: u64,
    /// In how long the next tick and ping are due, in ms.
    pub(super) tick_in_ms: u64,
    pub(super) ping_in_ms: u64,
    /// Requests without a last answer: begun by who froze it, and by the generation before.
    #[serde(default)]
    pub(super) outstanding: Vec<String>,
    #[serde(default)]
    pub(super) outstanding_before: Vec<String>,
}

/// Which program has connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientState {
    pub(super) id: String,
    #[serde(default)]
    pub(super) display_name: Option<String>,
    pub(super) version: String,
    pub(super) platform: String,
    pub(super) mode: String,
}

/// What of a WebSocket is in neither process's hands: see [`Snapshot`].
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) read: Vec<u8>,
    pub(super) unsent: Vec<u8>,
}

/// Whether a connection of this snapshot can be served here.
///
/// # Errors
/// Why not, in words for the log.
pub(crate) fn judge(snapshot: &Snapshot) -> Result<(), String> {
    if snapshot.version != STATE_VERSION {
        return Err(format!(
            "its state has version {}, and {STATE_VERSION} is known here",
            snapshot.version
        ));
    }
    match snapshot.kind {
        Kind::Http1 => Ok(()),
        Kind::WebSocket => read_state(snapshot).map(drop).map_err(|error| error.to_string()),
    }
}

/// The state of a WebSocket.
pub(super) fn read_state(snapshot: &Snapshot) -> Result<WebSocketState, serde_json::Error> {
    serde_json::from_slice(&snapshot.state)
}

/// An HTTP connection at rest, or the connection itself where it cannot be taken out.
pub(super) fn freeze_http(stream: Stream, peer: Peer, read: Vec<u8>) -> Option<Frozen> {
    freeze(
        stream,
        Snapshot {
            kind: Kind::Http1,
            peer,
            read,
            unsent: Vec::new(),
            version: STATE_VERSION,
            state: Vec::new(),
        },
        None,
    )
}

/// A WebSocket at rest.
pub(super) fn freeze_websocket(
    stream: Stream,
    peer: Peer,
    Carried { read, unsent }: Carried,
    state: &WebSocketState,
    mailbox: Option<Mailbox>,
) -> Option<Frozen> {
    let state = serde_json::to_vec(state).expect("our own state has string keys");
    freeze(
        stream,
        Snapshot { kind: Kind::WebSocket, peer, read, unsent, version: STATE_VERSION, state },
        mailbox,
    )
}

fn freeze(stream: Stream, snapshot: Snapshot, mailbox: Option<Mailbox>) -> Option<Frozen> {
    match stream.into_descriptor() {
        Ok(descriptor) => Some(Frozen { descriptor, snapshot, mailbox }),
        Err(error) => {
            // The event loop has lost it; nothing more can be done for this connection.
            warn!(%error, "a connection could not be taken out of the event loop");
            None
        }
    }
}

/// Whether so many unsent bytes may travel; a client with more moves when it has read some.
pub(super) const fn may_carry(unsent: u64) -> bool {
    unsent <= MAX_CARRIED as u64
}

/// An instant that lies `ms` back.
pub(super) fn ago(ms: u64) -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(ms)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> WebSocketState {
        WebSocketState::Connected(ConnectedState {
            protocol: 4,
            client: ClientState {
                id: "cli".into(),
                display_name: None,
                version: "1".into(),
                platform: "linux".into(),
                mode: "cli".into(),
            },
            role: "operator".into(),
            scopes: vec!["operator.read".into()],
            seq: 7,
            tick_in_ms: 1000,
            ping_in_ms: 500,
            outstanding: vec!["7".into()],
            outstanding_before: vec![],
        })
    }

    fn snapshot(version: u32, state: Vec<u8>) -> Snapshot {
        Snapshot {
            kind: Kind::WebSocket,
            peer: Peer::Unix,
            read: vec![],
            unsent: vec![],
            version,
            state,
        }
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_with_fields_of_a_later_version() {
        let mut written = serde_json::to_value(connected()).unwrap();
        written["colour"] = "green".into();
        let snapshot = snapshot(STATE_VERSION, serde_json::to_vec(&written).unwrap());
        assert_eq!(read_state(&snapshot).unwrap(), connected());
        assert_eq!(judge(&snapshot), Ok(()));
    }

    #[test]
    fn an_unknown_version_and_a_state_that_is_none_are_refused_in_words() {
        let state = serde_json::to_vec(&connected()).unwrap();
        let refused = judge(&snapshot(STATE_VERSION + 1, state)).unwrap_err();
        assert!(refused.contains("version 2"), "{refused}");
        assert!(judge(&snapshot(STATE_VERSION, b"{}".to_vec())).is_err());
    }
}
