//! Adapters: small workers that run a program which knows nothing of Holdfast.
//!
//! ```text
//! front ══ link ══ holdfast adapter KIND ── spawns, watches, stops ──► the program
//! ```
//!
//! The front learns nothing new: `holdfast run --adapter KIND -- PROGRAM` has it run its own binary as the worker,
//! which speaks the link for the program.
//!
//! | file | idea |
//! | --- | --- |
//! | `flags` | what the operator says of the program |
//! | `life` | what every adapter does: start, wait, serve, stop |
//! | `program`, `stage` | the process: how it begins, how it ends |
//! | `notify`, `readiness`, `census` | how it is known whether the program could serve |
//! | `activate`, `relay`, `node` | how clients come to the program |
//! | `profile` | what is known of certain programs |

pub(crate) mod activate;
pub(crate) mod census;
pub(crate) mod flags;
mod life;
mod node;
mod notify;
pub(crate) mod profile;
mod program;
mod readiness;
pub(crate) mod relay;
pub(crate) mod stage;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use handoff::socket::ListeningSocket;
use handoff::{Attach, StartFailed, Worker, limits};

use self::flags::{Flags, Kind};
use crate::reap;

/// Room for descriptors that is made at once: two for each of so many connections.
const ROOM: u64 = 1024;

/// Why an adapter could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdapterFailed {
    #[error(
        "an adapter is started by holdfast run --adapter, as a worker of its front, or attaches itself to one (--attach)"
    )]
    NoFront,
    #[error("could not become a worker")]
    Worker { source: StartFailed },
    #[error("the front turned this worker away: {reason}")]
    Dismissed { reason: String },
    #[error("could not set the adapter up")]
    SetUp { source: io::Error },
}

impl AdapterFailed {
    /// Whether another try, later, may go better.
    pub(crate) const fn may_try_again(&self) -> bool {
        match self {
            Self::Dismissed { .. } => true,
            Self::Worker { source } => source.may_try_again(),
            Self::NoFront | Self::SetUp { .. } => false,
        }
    }
}

/// Runs `command` as one generation of a front.
///
/// # Errors
/// [`AdapterFailed`]; what fails later is told the front.
pub(crate) async fn run(
    kind: Kind,
    flags: &Flags,
    command: &[OsString],
    attach: Option<Attach>,
) -> Result<ExitCode, AdapterFailed> {
    let set_up = |source| AdapterFailed::SetUp { source };
    reap::become_subreaper().map_err(|errno| set_up(errno.into()))?;
    let descriptors = limits::raise_descriptor_limit().map_err(set_up)?;
    // Without room there are pauses, and nothing worse.
    let _ = limits::reserve_descriptors(ROOM);
    let dismissal;
    let outcome = match kind {
        Kind::Activate => {
            let (worker, sockets) = of_a_front(for_another(attach).await)?;
            dismissal = worker.dismissal();
            activate::run(worker, sockets, flags, command, descriptors).await
        }
        Kind::Relay => {
            let begun = match attach {
                Some(attach) => attach.start().await,
                None => Worker::start(&[]).await,
            };
            let (worker, acceptor) = of_a_front(begun)?;
            dismissal = worker.dismissal();
            relay::run(worker, acceptor, flags, command, descriptors).await
        }
        Kind::Node => {
            let (worker, sockets) = of_a_front(for_another(attach).await)?;
            dismissal = worker.dismissal();
            node::run(worker, sockets, flags, command, descriptors).await
        }
    };
    match (outcome, dismissal.reason()) {
        // The front turns away whoever says that it cannot serve; that was said first.
        (Err(code), _) if code != ExitCode::SUCCESS => Ok(code),
        (_, Some(reason)) => Err(AdapterFailed::Dismissed { reason: reason.to_owned() }),
        (Ok(code) | Err(code), None) => Ok(code),
    }
}

/// A worker that has its sockets for a program to accept from.
async fn for_another(
    attach: Option<Attach>,
) -> Result<(Worker, Vec<Arc<ListeningSocket>>), StartFailed> {
    match attach {
        Some(attach) => attach.start_for_another().await,
        None => Worker::start_for_another(&[]).await,
    }
}

/// The worker that an adapter is, and what it has to accept from.
fn of_a_front<T>(started: Result<(Worker, T), StartFailed>) -> Result<(Worker, T), AdapterFailed> {
    let (worker, entrance) = started.map_err(|source| AdapterFailed::Worker { source })?;
    if worker.generation().is_none() {
        return Err(AdapterFailed::NoFront);
    }
    worker.drain_on_signals();
    Ok((worker, entrance))
}
