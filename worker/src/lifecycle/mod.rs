//! A worker's life: start, ready, serve, drain, leave.
//!
//! ```text
//! args ─► link or sockets ─► state directory ─► token ─► furnished ─► doors ─► ready ─► accept … accept
//!                                                                                          │ drain
//!                    leave, exit 0 ◄─ cut what is left ◄─ deadline ◄───────────────────────┴─ all done ─► leave, exit 0
//! ```
//!
//! `live` is that line; `furnishing`, `doors`, `opening` and `draining` are its steps in this order.
//!
//! **Invariants**
//! - What follows a failure to start is said to the front, and in the exit code.

mod doors;
mod draining;
mod furnishing;
mod log;
mod opening;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handoff::attach::TURNED_AWAY;
use handoff::worker::LINK_VARIABLE;
use handoff::{Attach, Drained, GenerationId, StartFailed, Worker, chain};
use tracing::{debug, info, warn};

use self::doors::Doors;
use self::furnishing::{Furnished, furnish};
use crate::args::Args;
use crate::configuration::{Configured, Unusable, addresses, configure};
use crate::log_ring::LogRing;
use crate::state::store::Store;
use crate::timetable::FindHarness;

/// For how many descriptors there is room from the start: half a MiB of the kernel's memory.
const RESERVED_DESCRIPTORS: u64 = 65_536;
/// What CLI agents are given to end by themselves, also after the deadline.
const LEAST_POLITENESS: Duration = Duration::from_millis(500);
/// The configuration cannot be used (sysexits.h, `EX_CONFIG`).
const CONFIG: u8 = 78;

/// Why a worker did not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunFailed {
    /// No threads, or no event loop.
    #[error("could not start the runtime")]
    Runtime {
        /// What the kernel said.
        source: io::Error,
    },
    /// Neither a front's sockets nor our own.
    #[error("could not become a worker")]
    Start {
        /// Why.
        source: StartFailed,
    },
    /// The front that it had attached itself to will not have it, or not any more.
    #[error("the front turned this worker away: {reason}")]
    Dismissed {
        /// As the front says it.
        reason: String,
    },
    /// The configuration is at fault.
    #[error("the configuration cannot be used")]
    Configuration {
        /// Which part of it.
        source: Unusable,
    },
}

impl RunFailed {
    /// What the process says of it when it exits.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Dismissed { .. } => TURNED_AWAY,
            Self::Start { source } if source.may_try_again() => TURNED_AWAY,
            Self::Runtime { .. } | Self::Start { .. } => 1,
            Self::Configuration { .. } => CONFIG,
        }
    }
}

/// Lives the life of a worker.
///
/// # Errors
/// [`RunFailed`]; the process should exit with its [`RunFailed::exit_code`].
pub(crate) fn run(args: Args) -> Result<(), RunFailed> {
    let log = log::begin(&args);
    let descriptors = match handoff::limits::raise_descriptor_limit() {
        Ok(limits) => Some(limits.inherited),
        Err(error) => {
            warn!(error = &error as &dyn Error, "the descriptor limit stays as it is");
            None
        }
    };
    if let Err(error) = handoff::limits::reserve_descriptors(RESERVED_DESCRIPTORS) {
        debug!(error = &error as &dyn Error, "no room was made for descriptors ahead of time");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        builder.worker_threads(threads.get());
    }
    let runtime = builder.enable_all().build().map_err(|source| RunFailed::Runtime { source })?;
    runtime.block_on(live(args, log, descriptors))
}

/// `descriptors` is the limit that this process was started with, if it has another by now.
async fn live(args: Args, log: LogRing, descriptors: Option<u64>) -> Result<(), RunFailed> {
    let started = std::env::var_os(LINK_VARIABLE).is_some();
    // A front that has started this process comes first: its environment may name where others attach.
    let attach = args
        .attach
        .as_ref()
        .filter(|_| !started)
        .map(|path| Attach::to(path).with_token_file(args.attach_token_file.clone()));
    let under_front = started || attach.is_some();
    let addresses = addresses(&args, under_front);
    let mut configured = None;
    if !under_front {
        // Before anything is opened to anybody.
        let usable = configure(&args, &addresses);
        configured = Some(usable.map_err(|source| RunFailed::Configuration { source })?);
    }
    let begun = match attach {
        Some(attach) => attach.start_sharded().await,
        None => Worker::start_sharded(&addresses).await,
    };
    let (worker, acceptors) = begun.map_err(|source| RunFailed::Start { source })?;
    worker.drain_on_signals();
    let dismissal = worker.dismissal();
    if let Some(generation) = worker.generation() {
        log.belongs_to(generation);
    }
    // Under a front only now: it names the addresses, and hears what is wrong.
    let configured = configured.map_or_else(|| configure(&args, worker.addresses()), Ok);
    let opened = match configured {
        Ok(configured) => open_store(&worker, configured).await,
        Err(unusable) => Err(unusable),
    };
    let (Configured { state, token, source, config }, store) = match opened {
        Ok(opened) => opened,
        Err(unusable) => {
            worker.failing(vec![format!("{}: {}", unusable.condition(), chain(&unusable))]).await;
            worker.leave(Drained::default()).await;
            return Err(RunFailed::Configuration { source: unusable });
        }
    };
    let furnished = furnish(&worker, &args, log, (state, config, token), store, descriptors).await;
    let Furnished { gateway, knowledge, loaded, stock, timetable, wishes, following: _following } =
        furnished;
    let mut doors =
        Doors::open(&worker, acceptors, &gateway, (&knowledge.runs, &stock), args.migrate);
    let _own_sockets = opening::own_socket_files(&worker);
    opening::become_ready(&worker, &gateway, (&knowledge.plugins, &loaded), &source).await;
    let harnesses: FindHarness = {
        let gateway = Arc::clone(&gateway);
        Arc::new(move |agent| gateway.registry().harness(agent).cloned())
    };
    let catching_up = tokio::spawn(opening::catch_up(worker.lease(), Arc::clone(&knowledge.runs)));
    let driven = timetable.drive(worker.lease(), Arc::clone(&knowledge.runs), harnesses);
    opening::serve_until_leaving(&worker, wishes).await;
    catching_up.abort();
    let drained = draining::drain(&worker, &gateway, stock.clis(), &mut doors).await;
    draining::end_schedule(&worker, &gateway, driven).await;
    let deadline = worker.stance().borrow().deadline().unwrap_or_else(Instant::now);
    tokio::join!(
        knowledge.plugins.shut_down(deadline),
        stock.clis().close(deadline.max(Instant::now() + LEAST_POLITENESS)),
    );
    info!(
        moved = drained.moved.total(),
        finished = drained.finished.total(),
        closed = drained.closed.total(),
        cut = drained.cut.total(),
        "drained"
    );
    worker.leave(drained).await;
    match dismissal.reason() {
        Some(reason) => Err(RunFailed::Dismissed { reason: reason.to_owned() }),
        None => Ok(()),
    }
}

/// Opens the database: before ready, since it may have to be migrated while the incumbent serves.
async fn open_store(
    worker: &Worker,
    configured: Configured,
) -> Result<(Configured, Store), Unusable> {
    let label = worker.generation().unwrap_or(GenerationId::new(0)).to_string();
    let store = Store::open(&configured.state, &label)
        .await
        .map_err(|source| Unusable::Store { source })?;
    Ok((configured, store))
}
