//! What crosses when a connection moves to another generation, in the worker's own words.
//!
//! **Invariants**
//! - A state has the version it was written in; one that is unknown here is refused for that
//!   connection alone, which then drains where it is.
//! - Clocks do not cross: what does is how long ago, and in how long.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use handoff::migrate::{Frozen, Kind, MAX_CARRIED, Mailbox, Snapshot};
use handoff::{Peer, Stream};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::census::{Phase, Visitor};
use crate::identity::{Fingerprint, PageOrigin};

/// The version of [`HttpState`]. A later one may add fields that have defaults without counting up.
const HTTP_STATE_VERSION: u32 = 1;
/// The version of [`WebSocketState`]. A later one may add fields that have defaults without counting up.
const STATE_VERSION: u32 = 1;

/// Since when an HTTP connection waits, and for what: its timeouts go on, whoever serves it. The first workers
/// wrote no state at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HttpState {
    pub(super) phase: HttpPhase,
    /// How long it has been in that phase, in ms.
    pub(super) age_ms: u64,
}

/// What an HTTP connection that can move is waiting for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HttpPhase {
    /// The next request.
    #[default]
    Idle,
    /// The rest of a request's head.
    Head,
}

impl HttpState {
    /// The state of a connection that is between two requests.
    pub(super) fn of(visitor: &Visitor) -> Self {
        let phase = match visitor.phase() {
            Phase::Head => HttpPhase::Head,
            _ => HttpPhase::Idle,
        };
        Self { phase, age_ms: handoff::message::millis(visitor.phase_began_at().elapsed()) }
    }
}

impl From<HttpPhase> for Phase {
    fn from(phase: HttpPhase) -> Self {
        match phase {
            HttpPhase::Idle => Self::Idle,
            HttpPhase::Head => Self::Head,
        }
    }
}

/// What a WebSocket is in the middle of. Its stage is a key and not a field beside the others: such a one has to
/// be looked for first, and everything before it kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WebSocketState {
    /// It was challenged and has not connected.
    Challenged(ChallengedState),
    /// It has connected.
    Connected(Box<ConnectedState>),
}

/// A client that was challenged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChallengedState {
    /// What its device signs.
    pub(super) nonce: String,
    pub(super) local: bool,
    /// Those before these words did not ask.
    #[serde(default)]
    pub(super) origin: PageOrigin,
    #[serde(default)]
    pub(super) remote_ip: Option<IpAddr>,
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
    /// The device it has proven to be.
    #[serde(default)]
    pub(super) device: Option<DeviceState>,
    /// The shared token it was let in by; those before these words said nothing of it.
    #[serde(default)]
    pub(super) shared_token: Option<Fingerprint>,
    /// The number of its last event.
    pub(super) seq: u64,
    /// In how long the next tick and ping are due, in ms.
    pub(super) tick_in_ms: u64,
    pub(super) ping_in_ms: u64,
    /// Requests without a last answer: begun by who froze it, and by generations before that.
    #[serde(default)]
    pub(super) outstanding: Vec<String>,
    #[serde(default)]
    pub(super) outstanding_before: Vec<String>,
    /// How long ago it has connected, in ms.
    #[serde(default)]
    pub(super) connected_ago_ms: u64,
}

/// The device of a client that has connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeviceState {
    pub(super) id: String,
    pub(super) let_in: LetIn,
    /// When the token was issued that it had then.
    #[serde(default)]
    pub(super) issued_at_ms: Option<u64>,
}

/// Why a device was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LetIn {
    /// It is paired and has shown a token of its own.
    ByOwnToken,
    /// It is paired and has shown the shared token.
    BySharedToken,
    /// It has shown the shared token and need not be paired.
    Unpaired,
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
    let known = match snapshot.kind {
        Kind::Http1 => HTTP_STATE_VERSION,
        Kind::WebSocket => STATE_VERSION,
        Kind::Session => return Err("it is no connection".to_owned()),
    };
    if snapshot.version != known {
        return Err(format!(
            "its state has version {}, and {known} is known here",
            snapshot.version
        ));
    }
    match snapshot.kind {
        Kind::Http1 => read_http_state(snapshot).map(drop),
        Kind::WebSocket | Kind::Session => read_state(snapshot).map(drop),
    }
    .map_err(|error| error.to_string())
}

/// The state of an HTTP connection.
pub(super) fn read_http_state(snapshot: &Snapshot) -> Result<HttpState, serde_json::Error> {
    if snapshot.state.is_empty() {
        return Ok(HttpState::default());
    }
    serde_json::from_slice(&snapshot.state)
}

/// The state of a WebSocket.
pub(super) fn read_state(snapshot: &Snapshot) -> Result<WebSocketState, serde_json::Error> {
    serde_json::from_slice(&snapshot.state)
}

/// An HTTP connection at rest, or the connection itself where it cannot be taken out.
pub(super) fn freeze_http(
    stream: Stream,
    peer: Peer,
    read: Vec<u8>,
    state: HttpState,
) -> Option<Frozen> {
    let state = serde_json::to_vec(&state).expect("a name and a number are JSON");
    freeze(
        stream,
        Snapshot {
            kind: Kind::Http1,
            peer,
            read,
            unsent: Vec::new(),
            version: HTTP_STATE_VERSION,
            state,
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
        Ok(descriptor) => Some(Frozen::connection(descriptor, snapshot, mailbox)),
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

    fn device() -> DeviceState {
        DeviceState { id: "d1".into(), let_in: LetIn::ByOwnToken, issued_at_ms: Some(5) }
    }

    fn connected() -> WebSocketState {
        WebSocketState::Connected(Box::new(ConnectedState {
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
            device: Some(device()),
            shared_token: None,
            seq: 7,
            tick_in_ms: 1000,
            ping_in_ms: 500,
            outstanding: vec!["7".into()],
            outstanding_before: vec![],
            connected_ago_ms: 9,
        }))
    }

    fn http(version: u32, state: &[u8]) -> Snapshot {
        Snapshot { kind: Kind::Http1, ..snapshot(version, state.to_vec()) }
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
        written["connected"]["colour"] = "green".into();
        let snapshot = snapshot(STATE_VERSION, serde_json::to_vec(&written).unwrap());
        assert_eq!(read_state(&snapshot).unwrap(), connected());
        assert_eq!(judge(&snapshot), Ok(()));
    }

    #[test]
    fn a_client_of_a_worker_that_knew_no_devices_has_none() {
        let mut written = serde_json::to_value(connected()).unwrap();
        let device = serde_json::json!({"id": "d1", "let_in": "by-own-token", "issued_at_ms": 5});
        let state = written["connected"].as_object_mut().unwrap();
        assert_eq!(state.remove("device"), Some(device));
        let snapshot = snapshot(STATE_VERSION, serde_json::to_vec(&written).unwrap());
        let Ok(WebSocketState::Connected(state)) = read_state(&snapshot) else { panic!() };
        assert_eq!(state.device, None);
    }

    #[test]
    fn the_state_of_an_http_connection_is_read_as_it_was_written() {
        for phase in [HttpPhase::Idle, HttpPhase::Head] {
            let state = HttpState { phase, age_ms: 1234 };
            let mut written = serde_json::to_value(state).unwrap();
            written["colour"] = "green".into();
            let snapshot = http(HTTP_STATE_VERSION, &serde_json::to_vec(&written).unwrap());
            assert_eq!(read_http_state(&snapshot).unwrap(), state);
            assert_eq!(judge(&snapshot), Ok(()));
        }
    }

    #[test]
    fn an_http_connection_of_an_older_worker_begins_to_wait_again() {
        let snapshot = http(1, b"");
        assert_eq!(judge(&snapshot), Ok(()));
        let state = read_http_state(&snapshot).unwrap();
        assert_eq!(state, HttpState { phase: HttpPhase::Idle, age_ms: 0 });
    }

    #[test]
    fn an_http_state_of_an_unknown_version_or_phase_is_refused_in_words() {
        let known = br#"{"phase":"head","age_ms":7}"#;
        assert_eq!(judge(&http(HTTP_STATE_VERSION, known)), Ok(()));
        let refused = judge(&http(HTTP_STATE_VERSION + 1, known)).unwrap_err();
        assert!(refused.contains("version 2"), "{refused}");
        let refused = judge(&http(HTTP_STATE_VERSION, br#"{"phase":"body","age_ms":7}"#));
        assert!(refused.unwrap_err().contains("body"));
        assert!(judge(&http(HTTP_STATE_VERSION, b"{}")).is_err());
    }

    #[test]
    fn an_unknown_version_and_a_state_that_is_none_are_refused_in_words() {
        let state = serde_json::to_vec(&connected()).unwrap();
        let refused = judge(&snapshot(STATE_VERSION + 1, state)).unwrap_err();
        assert!(refused.contains("version 2"), "{refused}");
        assert!(judge(&snapshot(STATE_VERSION, b"{}".to_vec())).is_err());
    }
}
