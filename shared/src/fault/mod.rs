//! Places at which a test may have this process fail, and what happens to it there.
//!
//! Compiled in by the feature `fault-points` alone, which the suite turns on and no release does: without it
//! every function here is empty. With it, the environment names the faults of one process:
//!
//! ```text
//! HOLDFAST_FAULT=source.offer-sent=stop@2,source.revoked=kill
//!                └─── point ─────┘ └act┘│ the second time the point is reached; the first unless told
//! ```
//!
//! | act | what happens |
//! | --- | --- |
//! | `kill` | SIGKILL to this process |
//! | `stop` | SIGSTOP to this process; the test continues it |
//! | `delay:MS` | this thread does nothing for so long |
//! | `drop-link` | the migration link is shut down, for both sides |
//! | `garbage` | rubbish is written on the migration link, ahead of the next word |
//! | `panic` | this thread panics |
//! | `segfault` | SIGSEGV to this process |
//! | `emfile` | this process may open no more descriptors than it has |
//! | `version:N` | `source.frozen` only: the connection's state says that it has version N |
//!
//! **Invariants**
//! - A fault that is met is said on stderr before it happens: `fault met: POINT ACT in PID`. A test waits for
//!   that line, so that a fault that never came proves nothing in silence.
//! - A point or an act that there is none of ends the process at its start.

use crate::link::Link;
use crate::message::{ToFront, ToWorker};
use crate::migrate::Snapshot;

/// Names the variants and, for the environment, the points.
macro_rules! points {
    ($($(#[$docs:meta])+ $variant:ident = $name:literal,)+) => {
        /// A place at which a test may have this process fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$docs])+ $variant,)+
        }

        #[cfg(feature = "fault-points")]
        impl Point {
            /// Every point, with the name the environment has for it.
            pub(crate) const NAMED: &[(Self, &str)] = &[$((Self::$variant, $name),)+];
        }
    };
}

points! {
    /// The front has started a worker's process.
    Spawned = "front.spawned",
    /// The front has sent `Hello`.
    HelloSent = "front.hello-sent",
    /// The front has sent `Admit`.
    AdmitSent = "front.admit-sent",
    /// The front has received `Accepting`, and not acted on it.
    AcceptingReceived = "front.accepting-received",
    /// The front has sent `StopAccepting`.
    StopSent = "front.stop-sent",
    /// The front has received `Stopped`, and not acted on it.
    StoppedReceived = "front.stopped-received",
    /// The front has sent the incumbent its end of the migration link.
    Introduced = "front.introduced",
    /// The front has sent `Drain`: the takeover is committed.
    DrainSent = "front.drain-sent",
    /// The front has sent `Lease`.
    LeaseSent = "front.lease-sent",
    /// The front has received `Drained`, and not acted on it.
    DrainedReceived = "front.drained-received",
    /// The front has sent `Rescue` to a worker of one that died.
    RescueSent = "front.rescue-sent",
    /// The front knows what every such worker is, and has told none of them anything.
    Found = "front.found",

    /// The front has recalled its links, and is about to become another image.
    ReexecFrozen = "front.reexec-frozen",
    /// A new image of the front has begun, and has not read the state.
    ResumeBegun = "image.begun",
    /// A new image of the front has read the state.
    StateRead = "image.state-read",
    /// A new image of the front has everything in its place, and has told nobody.
    ResumeReady = "image.ready",

    /// A worker has received `Hello`.
    HelloReceived = "worker.hello-received",
    /// A worker has sent `Ready`.
    ReadySaid = "worker.ready-said",
    /// A worker was admitted, and has not said `Accepting`.
    Admitted = "worker.admitted",
    /// A worker was told to accept nothing more, and has not said `Stopped`.
    StopReceived = "worker.stop-received",
    /// A worker was told to drain.
    DrainReceived = "worker.drain-received",
    /// Everything has ended in a worker, and it has not said so.
    Leaving = "worker.leaving",
    /// A worker was called by the next front, and has not answered.
    RescueReceived = "worker.rescue-received",
    /// A worker has told the next front what it is.
    RescuedSaid = "worker.rescued-said",

    /// The incumbent has asked connections to move.
    Asked = "source.asked",
    /// A connection has frozen, and is not offered.
    Frozen = "source.frozen",
    /// The incumbent has sent `Offer`.
    OfferSent = "source.offer-sent",
    /// The incumbent has received `Prepared`, and not acted on it.
    PreparedReceived = "source.prepared-received",
    /// The incumbent has sent `Commit`.
    CommitSent = "source.commit-sent",
    /// The incumbent has received `Started`, and not acted on it.
    StartedReceived = "source.started-received",
    /// The incumbent has taken back an offer, and nothing of it has thawed.
    Revoked = "source.revoked",

    /// The successor has received `Offer`, and not looked at it.
    OfferReceived = "target.offer-received",
    /// The successor has sent `Prepared`.
    PreparedSent = "target.prepared-sent",
    /// The successor has received `Commit`, and serves nothing of it.
    CommitReceived = "target.commit-received",
    /// The successor serves what was committed, and has not said so.
    Resumed = "target.resumed",
    /// The successor has sent `Started`.
    StartedSent = "target.started-sent",
}

impl Point {
    /// Where the front is that has sent this.
    #[must_use]
    pub const fn after_order(order: &ToWorker) -> Option<Self> {
        match order {
            ToWorker::Hello(_) => Some(Self::HelloSent),
            ToWorker::Admit => Some(Self::AdmitSent),
            ToWorker::StopAccepting => Some(Self::StopSent),
            ToWorker::MigrateTo { .. } => Some(Self::Introduced),
            ToWorker::Drain(_) => Some(Self::DrainSent),
            ToWorker::Lease { .. } => Some(Self::LeaseSent),
            ToWorker::Rescue(_) => Some(Self::RescueSent),
            ToWorker::Report
            | ToWorker::MigrateFrom { .. }
            | ToWorker::Reaped { .. }
            | ToWorker::OrphanEnded(_)
            | ToWorker::Waiting { .. }
            | ToWorker::Dismiss { .. } => None,
        }
    }

    /// Where the front is that has received this.
    #[must_use]
    pub const fn at_word(word: &ToFront) -> Option<Self> {
        match word {
            ToFront::Accepting => Some(Self::AcceptingReceived),
            ToFront::Stopped => Some(Self::StoppedReceived),
            ToFront::Drained(_) => Some(Self::DrainedReceived),
            ToFront::Ready(_)
            | ToFront::Failing { .. }
            | ToFront::Refuse { .. }
            | ToFront::Lost(_)
            | ToFront::WantsTakeover { .. }
            | ToFront::Extend { .. }
            | ToFront::Report(_)
            | ToFront::Attach(_)
            | ToFront::Rescued(_) => None,
        }
    }

    /// Where a worker is that has sent this.
    #[must_use]
    pub const fn after_word(word: &ToFront) -> Option<Self> {
        match word {
            ToFront::Ready(_) => Some(Self::ReadySaid),
            ToFront::Failing { .. }
            | ToFront::Refuse { .. }
            | ToFront::Accepting
            | ToFront::Stopped
            | ToFront::Drained(_)
            | ToFront::Lost(_)
            | ToFront::WantsTakeover { .. }
            | ToFront::Extend { .. }
            | ToFront::Report(_)
            | ToFront::Attach(_)
            | ToFront::Rescued(_) => None,
        }
    }
}

/// Reads the environment's faults, at the start of the process.
///
/// # Panics
/// With the feature, when they cannot be understood.
#[inline]
pub fn arm() {
    #[cfg(feature = "fault-points")]
    std::sync::LazyLock::force(&armed::FAULTS);
}

/// The process is at a point that has no migration link.
#[inline]
pub fn reach(point: impl Into<Option<Point>>) {
    #[cfg(feature = "fault-points")]
    if let Some(point) = point.into() {
        armed::reach(point, None, None);
    }
    #[cfg(not(feature = "fault-points"))]
    let _ = point;
}

/// The process is at a point of a migration.
#[inline]
pub fn reach_on<'a>(point: Point, link: impl Into<Option<&'a Link>>) {
    #[cfg(feature = "fault-points")]
    armed::reach(point, link.into(), None);
    #[cfg(not(feature = "fault-points"))]
    let _ = (point, link);
}

/// The process is at [`Point::Frozen`], with this connection.
#[inline]
pub fn reach_frozen<'a>(link: impl Into<Option<&'a Link>>, snapshot: &mut Snapshot) {
    #[cfg(feature = "fault-points")]
    armed::reach(Point::Frozen, link.into(), Some(snapshot));
    #[cfg(not(feature = "fault-points"))]
    let _ = (link, snapshot);
}

#[cfg(feature = "fault-points")]
mod armed;
