//! A worker's life: start, ready, serve, drain, leave.
//!
//! ```text
//! args ─► link or sockets ─► state directory ─► token ─► ready ─► accept … accept
//!                                                                    │ drain
//!              leave, exit 0 ◄─ cut what is left ◄─ deadline ◄───────┴─ all done ─► leave, exit 0
//! ```
//!
//! **Invariants**
//! - It says it is ready only when every named condition is met.
//! - A connection belongs to the task of the door it came through: a panic ends that connection
//!   alone, and the end of the doors is the end of all connections.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use handoff::socket::SocketFile;
use handoff::worker::LINK_VARIABLE;
use handoff::{
    Acceptor, Address, Connections, Drain, Drained, Newcomers, Ready, Stance, StartFailed, Worker,
};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error, info, warn};

use crate::args::{Args, LogFormat};
use crate::configuration::{Unusable, addresses, configure};
use crate::greeting::greeting;
use crate::identity::TokenSource;
use crate::methods::Knowledge;
use crate::registry::Registry;
use crate::serve::{self, AccessLog, Gateway};

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
            Self::Runtime { .. } | Self::Start { .. } => 1,
            Self::Configuration { .. } => CONFIG,
        }
    }
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(line, ": {error}").expect("a string takes everything");
        source = error.source();
    }
    line
}

/// Lives the life of a worker.
///
/// # Errors
/// [`RunFailed`]; the process should exit with its [`RunFailed::exit_code`].
pub(crate) fn run(args: Args) -> Result<(), RunFailed> {
    log(&args);
    if let Err(error) = handoff::limits::raise_descriptor_limit() {
        warn!(error = &error as &dyn Error, "the descriptor limit stays as it is");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        builder.worker_threads(threads.get());
    }
    let runtime = builder.enable_all().build().map_err(|source| RunFailed::Runtime { source })?;
    runtime.block_on(live(args))
}

fn log(args: &Args) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(args.log_level)
        .with_writer(io::stderr)
        // It would complain about a broken stderr on stderr, and panic because that is broken.
        .log_internal_errors(false);
    match args.log_format {
        LogFormat::Pretty => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

async fn live(args: Args) -> Result<(), RunFailed> {
    let under_front = std::env::var_os(LINK_VARIABLE).is_some();
    let addresses = addresses(&args, under_front);
    let mut configured = None;
    if !under_front {
        // Before anything is opened to anybody.
        let usable = configure(&args, &addresses);
        configured = Some(usable.map_err(|source| RunFailed::Configuration { source })?);
    }
    let (worker, acceptors) =
        Worker::start_sharded(&addresses).await.map_err(|source| RunFailed::Start { source })?;
    worker.drain_on_signals();
    // Under a front only now: it names the addresses, and hears what is wrong.
    let configured = configured.map_or_else(|| configure(&args, worker.addresses()), Ok);
    let (state, token, source) = match configured {
        Ok(configured) => configured,
        Err(unusable) => {
            worker.failing(vec![format!("{}: {}", unusable.condition(), chain(&unusable))]).await;
            worker.leave(Drained::default()).await;
            return Err(RunFailed::Configuration { source: unusable });
        }
    };
    let access_log = if args.access_log { AccessLog::On } else { AccessLog::Off };
    let gateway = Arc::new(Gateway::new(
        worker.generation(),
        token,
        Registry::bundled(Duration::from_millis(args.echo_delay_ms)),
        Knowledge { state_dir: state.path().to_owned() },
        (args.limits, access_log),
        worker.stance(),
    ));
    // By now both are met. Whatever takes time to get ready holds its condition until it is.
    let conditions =
        [gateway.readiness.require("state-directory"), gateway.readiness.require("token")];
    for condition in conditions {
        condition.met();
    }
    let census = Arc::clone(&gateway.census);
    worker.on_report(move || census.report());

    let mut doors = JoinSet::new();
    for acceptor in acceptors {
        doors.spawn(tend(acceptor, Arc::clone(&gateway)));
    }
    let _own_sockets = own_socket_files(&worker);
    gateway.readiness.opened().await;
    say_ready(&worker, &source).await;
    worker.leaving().await;
    let drained = drain(&worker, &gateway, doors).await;
    info!(
        finished = drained.finished.total(),
        closed = drained.closed.total(),
        cut = drained.cut.total(),
        "drained"
    );
    worker.leave(drained).await;
    Ok(())
}

/// Removes at the end the socket files that no front will remove.
fn own_socket_files(worker: &Worker) -> Vec<SocketFile> {
    let own = |address: &Address| match address {
        // One that cannot be owned stays behind, and is replaced by the next start.
        Address::Unix(path) => SocketFile::own(path.clone()).ok(),
        Address::Tcp(_) => None,
    };
    match worker.generation() {
        None => worker.addresses().iter().filter_map(own).collect(),
        Some(_) => Vec::new(),
    }
}

async fn say_ready(worker: &Worker, source: &TokenSource) {
    let greeting = greeting(worker.addresses(), source);
    if worker.generation().is_none() {
        for address in worker.addresses() {
            info!(address = %address, "listening");
        }
        for line in &greeting {
            info!(hint = %line, "to begin with");
        }
    }
    let program = format!("holdfast-worker {}", env!("CARGO_PKG_VERSION"));
    worker.ready(Ready { program, greeting, ..Ready::default() }).await;
}

/// Accepts through one socket, and keeps the connections that came through it.
async fn tend(mut acceptor: Acceptor, gateway: Arc<Gateway>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = acceptor.accept() => match accepted {
                Some((stream, peer)) => {
                    connections.spawn(serve::serve(Arc::clone(&gateway), stream, peer));
                }
                None => break,
            },
            Some(ended) = connections.join_next() => note(ended),
        }
    }
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(error = &error as &dyn Error, "a connection ended in a panic");
    }
}

/// Waits until all connections have ended or the deadline has come, and says how they ended.
async fn drain(worker: &Worker, gateway: &Gateway, mut doors: JoinSet<()>) -> Drained {
    gateway.census.begin_drain();
    let mut stance = worker.stance();
    loop {
        let now = *stance.borrow_and_update();
        let Some(deadline) = now.deadline() else {
            debug!("the front is gone before it admitted this worker");
            return Drained::default();
        };
        tokio::select! {
            () = all_ended(&mut doors) => return gateway.census.drained(),
            () = gateway.census.emptied(), if newcomers(now) == Newcomers::Serve => {
                // Nothing is open: whoever is in the queue now is left to the next program.
                worker.drain(Drain::within(deadline.saturating_duration_since(std::time::Instant::now())));
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                let drained = gateway.census.drained();
                if drained.cut != Connections::default() {
                    warn!(http = drained.cut.http, websocket = drained.cut.websocket, "cut at the deadline");
                }
                doors.shutdown().await;
                return drained;
            }
            // The deadline came closer, or newcomers are turned away.
            _ = stance.changed() => {}
        }
    }
}

async fn all_ended(doors: &mut JoinSet<()>) {
    while doors.join_next().await.is_some() {}
}

const fn newcomers(stance: Stance) -> Newcomers {
    match stance {
        Stance::Draining { newcomers, .. } => newcomers,
        Stance::Waiting | Stance::Admitted | Stance::Stopped | Stance::Dismissed => {
            Newcomers::Leave
        }
    }
}
