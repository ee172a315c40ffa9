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
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use handoff::migrate::{Post, Roster};
use handoff::socket::SocketFile;
use handoff::worker::LINK_VARIABLE;
use handoff::{
    Acceptor, Address, Connections, Drain, Drained, GenerationId, Migration, Newcomers, Ready,
    Stance, StartFailed, Worker, chain,
};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error, info, warn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::agents::Runs;
use crate::args::{Args, LogFormat, Migrate};
use crate::arrivals::Arrivals;
use crate::attendance::Attendance;
use crate::configuration::{Configured, Unusable, addresses, configure};
use crate::greeting::greeting;
use crate::identity::{Devices, TokenSource};
use crate::log_ring::LogRing;
use crate::methods::Knowledge;
use crate::methods::plugins::permits;
use crate::neighbourhood::Neighbourhood;
use crate::plugins::{Catalogue, Plugins};
use crate::registry::Registry;
use crate::serve::{self, AccessLog, Gateway};
use crate::state::config;
use crate::state::store::Store;
use crate::timetable::{Driven, FindHarness, Timetable};

/// For how many descriptors there is room from the start: half a MiB of the kernel's memory.
const RESERVED_DESCRIPTORS: u64 = 65_536;
/// The most of a drain that is kept for connections that could not move.
const LONGEST_RESERVE: Duration = Duration::from_secs(5);
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

/// Lives the life of a worker.
///
/// # Errors
/// [`RunFailed`]; the process should exit with its [`RunFailed::exit_code`].
pub(crate) fn run(args: Args) -> Result<(), RunFailed> {
    let log = log(&args);
    if let Err(error) = handoff::limits::raise_descriptor_limit() {
        warn!(error = &error as &dyn Error, "the descriptor limit stays as it is");
    }
    if let Err(error) = handoff::limits::reserve_descriptors(RESERVED_DESCRIPTORS) {
        debug!(error = &error as &dyn Error, "no room was made for descriptors ahead of time");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        builder.worker_threads(threads.get());
    }
    let runtime = builder.enable_all().build().map_err(|source| RunFailed::Runtime { source })?;
    runtime.block_on(live(args, log))
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

/// Logs to stderr, and keeps the last lines for clients.
fn log(args: &Args) -> LogRing {
    let ring = LogRing::default();
    let builder = tracing_subscriber::fmt()
        .with_max_level(args.log_level)
        .with_writer(io::stderr)
        // It would complain about a broken stderr on stderr, and panic because that is broken.
        .log_internal_errors(false);
    match args.log_format {
        LogFormat::Pretty => {
            builder.with_ansi(io::stderr().is_terminal()).finish().with(ring.clone()).init();
        }
        LogFormat::Json => {
            builder.json().flatten_event(true).finish().with(ring.clone()).init();
        }
    }
    ring
}

async fn live(args: Args, log: LogRing) -> Result<(), RunFailed> {
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
    let access_log = if args.access_log { AccessLog::On } else { AccessLog::Off };
    let post = Post::new(usize::try_from(args.limits.max_buffered_bytes).unwrap_or(usize::MAX));
    let runs = Arc::new(Runs::new(post.clone(), Arc::default(), store.clone()));
    runs.overview().refresh(&store).await;
    let timetable = Timetable::new(store.clone(), post.clone());
    let (wants_takeover, wishes) = mpsc::channel(1);
    let generation = worker.generation().unwrap_or(GenerationId::new(0)).to_string();
    let plugins = Plugins::new(state.path(), generation, worker.lease(), post.clone());
    let holds = config.holds();
    let loaded = Arc::new(plugins.load(|id| permits(&holds, id)));
    let knowledge = Knowledge {
        state_dir: state.path().to_owned(),
        token,
        devices: Devices::of_state(state.path()),
        registry: ArcSwap::from_pointee(Registry::of(
            &holds,
            Duration::from_millis(args.echo_delay_ms),
            Arc::clone(&loaded),
        )),
        plugins,
        config: ArcSwap::new(holds),
        config_path: config.path().to_owned(),
        current_config: Mutex::new(config),
        config_writes: Mutex::default(),
        wants_takeover: worker.generation().map(|_| wants_takeover),
        attendance: Attendance::default(),
        neighbourhood: Neighbourhood::new(post.clone()),
        log,
        store,
        jobs: timetable.jobs(),
        runs: Arc::clone(&runs),
    };
    let knowledge = Arc::new(knowledge);
    let _following = following(&knowledge);
    let gateway = Arc::new(Gateway::new(
        worker.generation(),
        Arc::clone(&knowledge),
        (args.limits, access_log),
        worker.stance(),
    ));
    // By now all of them are met. The plugins that take their time have named theirs.
    for condition in ["state-directory", "token", "config", "store"] {
        gateway.readiness.require(condition).met();
    }

    let arrivals = Arc::new(Arrivals::new(Arc::clone(&gateway)));
    let migration =
        (args.migrate == Migrate::On).then(|| worker.movable(Arc::clone(&arrivals), &post));
    if let Some(migration) = &migration {
        arrivals.seat_in(migration.roster.clone());
        gateway.moves(migration.moved.clone());
    }
    let (census, roster) =
        (Arc::clone(&gateway.census), migration.as_ref().map(|migration| migration.roster.clone()));
    worker.on_report(move || {
        let mut report = census.report();
        // Those that are frozen have no task here that would be counted.
        let on_the_way = roster.as_ref().map_or_else(Connections::default, Roster::on_the_way);
        report.connections.http += on_the_way.http;
        report.connections.websocket += on_the_way.websocket;
        report
    });
    let mut doors = JoinSet::new();
    for acceptor in acceptors {
        doors.spawn(tend(
            acceptor,
            Arc::clone(&gateway),
            migration.as_ref().map(|m| m.roster.clone()),
        ));
    }
    let _own_sockets = own_socket_files(&worker);
    become_ready(&worker, &gateway, (&knowledge.plugins, &loaded), &source).await;
    let harnesses: FindHarness = {
        let gateway = Arc::clone(&gateway);
        Arc::new(move |agent| gateway.registry().harness(agent).cloned())
    };
    let driven = timetable.drive(worker.lease(), runs, harnesses);
    serve_until_leaving(&worker, wishes).await;
    let drained = drain(&worker, &gateway, doors, &arrivals, migration.as_ref()).await;
    end_schedule(&worker, &gateway, driven).await;
    knowledge
        .plugins
        .shut_down(worker.stance().borrow().deadline().unwrap_or_else(Instant::now))
        .await;
    info!(
        moved = drained.moved.total(),
        finished = drained.finished.total(),
        closed = drained.closed.total(),
        cut = drained.cut.total(),
        "drained"
    );
    worker.leave(drained).await;
    Ok(())
}

/// Says that it is ready when nothing is missing any more and every plugin was started once, unless the worker is
/// to leave before that.
async fn become_ready(
    worker: &Worker,
    gateway: &Gateway,
    (plugins, loaded): (&Plugins, &Catalogue),
    source: &TokenSource,
) {
    let ready = async {
        let missing = plugins.attempted(loaded).await;
        if !missing.is_empty() {
            worker.failing(missing).await;
        }
        gateway.readiness.opened().await;
    };
    tokio::select! {
        () = ready => say_ready(worker, source).await,
        () = worker.leaving() => {}
    }
}

/// Ends when the worker is to leave; passes on to the front that a fresh one is wanted.
async fn serve_until_leaving(worker: &Worker, mut wishes: mpsc::Receiver<String>) {
    let mut leaving = pin!(worker.leaving());
    loop {
        tokio::select! {
            () = &mut leaving => return,
            Some(reason) = wishes.recv() => worker.wants_takeover(reason).await,
        }
    }
}

/// Follows the configuration's file, until this is dropped.
fn following(knowledge: &Arc<Knowledge>) -> JoinSet<()> {
    let follower = Arc::clone(knowledge);
    let mut following = JoinSet::new();
    let path = knowledge.config_path.clone();
    following.spawn(config::follow(path, move || follower.look_again()));
    following
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
async fn tend(mut acceptor: Acceptor, gateway: Arc<Gateway>, roster: Option<Roster>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = acceptor.accept() => match accepted {
                Some((stream, peer)) => {
                    let berth = roster.as_ref().map(Roster::seat);
                    connections.spawn(serve::accept(Arc::clone(&gateway), stream, peer, berth));
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

/// Waits until all connections have moved or ended, or the deadline has come, and says how.
async fn drain(
    worker: &Worker,
    gateway: &Gateway,
    mut doors: JoinSet<()>,
    arrivals: &Arrivals,
    migration: Option<&Migration>,
) -> Drained {
    gateway.census.begin_drain();
    let mut stance = worker.stance();
    let begun_at = Instant::now();
    let mut dismissed = false;
    loop {
        let now = *stance.borrow_and_update();
        let Some(deadline) = now.deadline() else {
            debug!("the front is gone before it admitted this worker");
            return Drained::default();
        };
        tokio::select! {
            () = all_gone(&mut doors, gateway, migration) => {
                return with_moved(gateway.census.drained(), migration);
            }
            () = gateway.census.emptied(), if newcomers(now) == Newcomers::Serve => {
                // Nothing is open: whoever is in the queue now is left to the next program.
                worker.drain(Drain::within(deadline.saturating_duration_since(Instant::now())));
            }
            () = nothing_moves_any_more(migration, begun_at, deadline), if !dismissed => {
                dismissed = true;
                if let Some(migration) = migration {
                    migration.halt();
                }
                gateway.dismiss();
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                let drained = gateway.census.drained();
                if drained.cut != Connections::default() {
                    warn!(http = drained.cut.http, websocket = drained.cut.websocket, "cut at the deadline");
                }
                doors.shutdown().await;
                arrivals.shutdown().await;
                return with_moved(drained, migration);
            }
            // The deadline came closer, or newcomers are turned away.
            _ = stance.changed() => {}
        }
    }
}

/// Waits until what the schedule has begun is recorded and told, or the deadline has come.
async fn end_schedule(worker: &Worker, gateway: &Gateway, driven: Driven) {
    let deadline = worker.stance().borrow().deadline().unwrap_or_else(Instant::now);
    driven.end(deadline).await;
    // Those that moved hear of it too, unless the deadline has come.
    let _ = tokio::time::timeout_at(deadline.into(), gateway.post().flushed()).await;
}

/// Ends when what is still here has to be told to come back: there is no successor to move to, or the
/// last quarter of the drain has begun, which belongs to those that could not move.
async fn nothing_moves_any_more(
    migration: Option<&Migration>,
    begun_at: Instant,
    deadline: Instant,
) {
    let Some(migration) = migration else { return };
    let reserve = (deadline.saturating_duration_since(begun_at) / 4).min(LONGEST_RESERVE);
    let mut moved = migration.moved.clone();
    tokio::select! {
        // An error means that nothing will ever move again.
        _ = moved.wait_for(|moved| !moved.linked) => {}
        () = tokio::time::sleep_until((deadline - reserve).into()) => {}
    }
}

/// Ends when no connection is here any more, neither served nor on its way.
async fn all_gone(doors: &mut JoinSet<()>, gateway: &Gateway, migration: Option<&Migration>) {
    while doors.join_next().await.is_some() {}
    loop {
        gateway.census.emptied().await;
        if let Some(migration) = migration {
            migration.roster.emptied().await;
        }
        // What calls have said after their connections had moved.
        gateway.post().flushed().await;
        // One that came back meanwhile is served again.
        if gateway.census.is_empty() {
            return;
        }
    }
}

/// What the census cannot know: connections that went on elsewhere, or were lost with their
/// successor.
fn with_moved(mut drained: Drained, migration: Option<&Migration>) -> Drained {
    if let Some(migration) = migration {
        let moved = *migration.moved.borrow();
        drained.moved = moved.moved;
        drained.cut.http += moved.lost.http;
        drained.cut.websocket += moved.lost.websocket;
    }
    drained
}

const fn newcomers(stance: Stance) -> Newcomers {
    match stance {
        Stance::Draining { newcomers, .. } => newcomers,
        Stance::Waiting | Stance::Admitted | Stance::Stopped | Stance::Dismissed => {
            Newcomers::Leave
        }
    }
}
