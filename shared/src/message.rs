//! The words the front and a worker exchange over their link.
//!
//! One packet is one message: a JSON object whose `type` names it, at most [`MAX_MESSAGE`] bytes,
//! with the descriptors it speaks of attached. The front opens with [`Hello`]; everything after it is spoken
//! in [`Hello::protocol`].
//!
//! **Invariants**
//! - A reader ignores fields it does not know, and a field added later has a default: one version
//!   on either side reads the other.
//! - A message type the reader does not know is an error, never skipped: what it asks for would be
//!   lost in silence.
//! - Nothing here knows what the worker serves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attach::Application;
pub use crate::generation_id::{GenerationId, NotAGeneration};
use crate::rescue::{Rescue, Rescued};

/// The version of the link's protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;
/// The oldest version that this crate still understands.
pub const OLDEST_PROTOCOL: u32 = 1;
/// The largest packet, in bytes. The kernel refuses SEQPACKET packets a little above 180 KB.
pub const MAX_MESSAGE: usize = 128 * 1024;

/// The longest time that [`ToFront::Extend`] is granted at once: who needs more says so again, and is alive then.
pub const LONGEST_EXTENSION: Duration = Duration::from_secs(600);

/// What the front says to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToWorker {
    /// The first message, with the listening sockets attached in the order of [`Hello::sockets`].
    Hello(Hello),
    /// Accept from now on; answered by [`ToFront::Accepting`].
    Admit,
    /// Accept nothing more, keep serving what is open; answered by [`ToFront::Stopped`].
    StopAccepting,
    /// This generation holds the writer lease until it is told to drain.
    Lease {
        /// Grows by one with every grant; a write under an older epoch must fail.
        epoch: u64,
    },
    /// Finish what is open, then leave; answered by [`ToFront::Drained`]. A second one may only
    /// bring the deadline closer.
    Drain(Drain),
    /// Tell how you are; answered by [`ToFront::Report`].
    Report,
    /// The attached end of a migration link leads to your successor: it can take your connections.
    MigrateTo {
        /// Who it is.
        successor: GenerationId,
    },
    /// The attached end of a migration link leads to the incumbent: its connections will come.
    MigrateFrom {
        /// Who it is.
        incumbent: GenerationId,
    },
    /// This generation, whose connections were coming to you, is gone and reaped.
    Reaped {
        /// Who it was.
        generation: GenerationId,
    },
    /// A process that a worker had started, and that the front adopted from it, has ended. Said to those that
    /// [ask for it](Ready::hears_of_orphans).
    OrphanEnded(OrphanEnded),
    /// The first message of a front that comes after one that died, over the worker's rescue socket; answered by
    /// [`ToFront::Rescued`].
    Rescue(Rescue),
    /// To a worker that attached itself: its turn has not come, and [`Self::Hello`] will say when it has.
    Waiting {
        /// How many come before it.
        ahead: u32,
    },
    /// To a worker that attached itself, which the front cannot end: it is not wanted, for this reason, and exits.
    Dismiss {
        /// One sentence for the operator.
        reason: String,
    },
}

/// What a worker says to the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToFront {
    /// The worker could serve if it were admitted.
    Ready(Ready),
    /// The worker could not serve, and why: one name per failing condition.
    Failing {
        /// Names of conditions, never their secrets.
        conditions: Vec<String>,
    },
    /// The worker will not work with this front, for this reason, and exits.
    Refuse {
        /// One sentence for the operator.
        reason: String,
    },
    /// Every shared socket is being accepted from.
    Accepting,
    /// This worker, which serves, should be replaced by a fresh one, for this reason: it cannot absorb a change
    /// of its configuration, say. It serves on until then; asking twice is harmless.
    WantsTakeover {
        /// Half a sentence for the operator.
        reason: String,
    },
    /// What is waited for, readiness or the end of a drain, takes longer: wait at least this long from now. It may be
    /// said again.
    Extend {
        /// In ms; the front grants [`LONGEST_EXTENSION`] at once and no more.
        timeout_ms: u64,
    },
    /// These had been given to a successor that is gone, and ended with it. Said ahead of [`Self::Accepting`] by an
    /// incumbent that is admitted again.
    Lost(Connections),
    /// No shared socket is being accepted from any more.
    Stopped,
    /// Everything has ended; the worker exits now.
    Drained(Drained),
    /// The answer to [`ToWorker::Report`].
    Report(Report),
    /// The first word of a worker that no front has started, over the front's attach socket.
    Attach(Application),
    /// The answer to [`ToWorker::Rescue`], with the listening sockets attached in the order of [`Rescued::sockets`].
    Rescued(Rescued),
}

/// The front's opening: what the worker is, what it is given, what the front's deadlines are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version the front will speak.
    pub protocol: u32,
    /// The generation this worker is.
    pub generation: GenerationId,
    /// One entry per attached descriptor, in the same order.
    pub sockets: Vec<SocketEntry>,
    /// How long the front waits for [`ToFront::Ready`], in ms.
    pub ready_timeout_ms: u64,
    /// How long a drain may take that the worker begins by itself, in ms.
    pub drain_timeout_ms: u64,
    /// The most connections the worker may hold open at once, if it is limited.
    #[serde(default)]
    pub max_connections: Option<u64>,
    /// The directory for the worker's [rescue socket](crate::rescue), by which it is found when its front has died.
    #[serde(default)]
    pub rescue: Option<String>,
}

/// One listening socket: where it listens, and which one of its address's group it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketEntry {
    /// The address, as [`crate::socket::Address`] writes it: `127.0.0.1:18789`, `unix:/run/x.sock`.
    pub address: String,
    /// Its place among the sockets of one address, from 0.
    pub shard: u32,
}

/// The worker's statement that it could serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The program and its version, for the operator.
    pub program: String,
    /// How many more descriptors the worker could open.
    pub free_descriptors: u64,
    /// Lines an operator who starts this program for the first time wants to read: where the token lies,
    /// what to type next. Never a secret.
    #[serde(default)]
    pub greeting: Vec<String>,
    /// Whether this worker goes on with processes that others have started, and wants to be told of their ends.
    #[serde(default)]
    pub hears_of_orphans: bool,
    /// Whether this worker goes on accepting until it drains, whatever it is told: it cannot be paused.
    #[serde(default)]
    pub stops_only_by_draining: bool,
}

/// How a process has ended that the front had adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanEnded {
    /// Its id, which may be somebody else's from now on.
    pub pid: i32,
    /// With which code it exited, if it did.
    #[serde(default)]
    pub code: Option<i32>,
    /// Which signal has ended it, if one did.
    #[serde(default)]
    pub signal: Option<i32>,
}

/// How a drain is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// What is not finished after this long, in ms, is cut.
    pub timeout_ms: u64,
    /// What happens to clients that connect meanwhile.
    pub newcomers: Newcomers,
}

impl Drain {
    /// A drain whose newcomers are left to somebody else.
    #[must_use]
    pub fn within(timeout: Duration) -> Self {
        Self { timeout_ms: millis(timeout), newcomers: Newcomers::Leave }
    }
}

/// What a draining worker does with clients that connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Newcomers {
    /// Leave them in the queue: another generation accepts them.
    Leave,
    /// Serve them until nothing is open: no other generation is there (`stop-first`).
    Serve,
}

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Connections that the successor serves now.
    #[serde(default)]
    pub moved: Connections,
    /// Sessions that the successor goes on with: programs that run on, and no connections.
    #[serde(default)]
    pub sessions: u64,
    /// Connections that ended by themselves or after their last response.
    #[serde(default)]
    pub finished: Connections,
    /// Connections that were told to come back and closed politely (WebSocket close 1012).
    #[serde(default)]
    pub closed: Connections,
    /// Connections with work unfinished when the deadline came, or whose successor was lost with
    /// them.
    #[serde(default)]
    pub cut: Connections,
}

/// Numbers of connections by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// HTTP connections, idle ones too.
    #[serde(default)]
    pub http: u64,
    /// WebSocket connections, those in their handshake too.
    #[serde(default)]
    pub websocket: u64,
}

impl Connections {
    /// All kinds together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.http.saturating_add(self.websocket)
    }

    /// These and those, kind by kind.
    #[must_use]
    pub const fn saturating_add(self, more: Self) -> Self {
        Self {
            http: self.http.saturating_add(more.http),
            websocket: self.websocket.saturating_add(more.websocket),
        }
    }

    /// These without those, kind by kind; never fewer than none.
    #[must_use]
    pub const fn saturating_sub(self, fewer: Self) -> Self {
        Self {
            http: self.http.saturating_sub(fewer.http),
            websocket: self.websocket.saturating_sub(fewer.websocket),
        }
    }
}

/// How a worker is, at the moment it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Open connections.
    #[serde(default)]
    pub connections: Connections,
    /// Requests and calls being worked on.
    #[serde(default)]
    pub in_flight: u64,
    /// The one that has been worked on longest: it is what a drain waits for.
    #[serde(default)]
    pub oldest: Option<OldestWork>,
}

/// The piece of work that has been in flight longest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldestWork {
    /// What it is: `POST /v1/chat/completions`. No query, no token.
    pub what: String,
    /// Since when, in ms.
    pub age_ms: u64,
}

/// A duration as whole ms for the wire, rounded up, so that a deadline never becomes "at once".
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rescue::{Incumbent, Standing};

    #[test]
    fn every_message_reads_back_as_it_was_written() {
        let to_worker = [
            ToWorker::Hello(Hello {
                protocol: PROTOCOL,
                generation: GenerationId::new(3),
                sockets: vec![SocketEntry { address: "127.0.0.1:18789".into(), shard: 0 }],
                ready_timeout_ms: 60_000,
                drain_timeout_ms: 30_000,
                max_connections: Some(10),
                rescue: Some("/run/holdfast.rescue".into()),
            }),
            ToWorker::Admit,
            ToWorker::StopAccepting,
            ToWorker::Lease { epoch: 4 },
            ToWorker::Drain(Drain::within(Duration::from_micros(1))),
            ToWorker::Report,
            ToWorker::MigrateTo { successor: GenerationId::new(8) },
            ToWorker::MigrateFrom { incumbent: GenerationId::new(7) },
            ToWorker::Reaped { generation: GenerationId::new(7) },
            ToWorker::OrphanEnded(OrphanEnded { pid: 42, code: None, signal: Some(9) }),
            ToWorker::Rescue(Rescue { protocol: PROTOCOL }),
            ToWorker::Waiting { ahead: 2 },
            ToWorker::Dismiss { reason: "too late".into() },
        ];
        for message in to_worker {
            let bytes = serde_json::to_vec(&message).unwrap();
            assert_eq!(serde_json::from_slice::<ToWorker>(&bytes).unwrap(), message);
        }
        let to_front = [
            ToFront::Ready(Ready {
                program: "p 1".into(),
                free_descriptors: 9,
                greeting: vec![],
                hears_of_orphans: true,
                stops_only_by_draining: true,
            }),
            ToFront::Failing { conditions: vec!["store".into()] },
            ToFront::Refuse { reason: "too old".into() },
            ToFront::Accepting,
            ToFront::Lost(Connections { http: 3, websocket: 5 }),
            ToFront::WantsTakeover { reason: "gateway.port changed".into() },
            ToFront::Stopped,
            ToFront::Drained(Drained::default()),
            ToFront::Report(Report::default()),
            ToFront::Attach(Application {
                protocol: PROTOCOL,
                program: "p 2".into(),
                token: Some("secret".into()),
                returned: None,
                sockets: vec![7],
            }),
            ToFront::Rescued(Rescued {
                generation: GenerationId::new(7),
                age_ms: 1,
                standing: Standing::Draining(Drain::within(Duration::ZERO)),
                lease: Some(3),
                latest_epoch: 4,
                sockets: vec![],
                hears_of_orphans: false,
                stops_only_by_draining: false,
                incumbent: Some(Incumbent { generation: GenerationId::new(6), linked: true }),
            }),
        ];
        for message in to_front {
            let bytes = serde_json::to_vec(&message).unwrap();
            assert_eq!(serde_json::from_slice::<ToFront>(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn a_field_of_a_later_version_is_ignored_and_one_of_an_earlier_version_defaults() {
        let later = r#"{"type":"ready","program":"p","free_descriptors":1,"colour":"green"}"#;
        let ToFront::Ready(ready) = serde_json::from_str(later).unwrap() else {
            panic!("not ready")
        };
        assert_eq!(ready.greeting, Vec::<String>::new());
        let earlier = r#"{"type":"drained"}"#;
        assert_eq!(
            serde_json::from_str::<ToFront>(earlier).unwrap(),
            ToFront::Drained(Drained::default())
        );
    }

    #[test]
    fn a_message_of_an_unknown_type_is_refused() {
        assert!(serde_json::from_str::<ToWorker>(r#"{"type":"explode"}"#).is_err());
        assert!(serde_json::from_str::<ToFront>(r#"{"type":"explode"}"#).is_err());
    }

    #[test]
    fn a_deadline_never_rounds_to_nothing() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
