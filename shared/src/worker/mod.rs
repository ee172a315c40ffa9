//! What a Rust server needs to be a worker.
//!
//! ```no_run
//! # async fn serve(_: handoff::Stream) {}
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use handoff::{Drained, Ready, Worker};
//!
//! let (worker, mut acceptor) = Worker::start(&["127.0.0.1:8080".parse()?]).await?;
//! worker.drain_on_signals();
//! worker.ready(Ready { program: "mine 1.0".into(), ..Ready::default() }).await;
//! let mut connections = tokio::task::JoinSet::new();
//! while let Some((stream, _peer)) = acceptor.accept().await {
//!     connections.spawn(serve(stream));
//! }
//! let deadline = worker.drain_deadline();
//! let _ = tokio::time::timeout_at(deadline, async { while connections.join_next().await.is_some() {} }).await;
//! worker.leave(Drained::default()).await;
//! # Ok(()) }
//! ```
//!
//! **Invariants**
//! - The same code serves under a front and by itself: without a link the worker opens the
//!   addresses itself and is admitted as soon as it says it is ready.
//! - What the front is told has happened: `Accepting` and `Stopped` follow the acceptors' own
//!   registrations.
//! - The link lives on descriptor 0 only until it is taken: nothing this process spawns inherits it.
//! - A worker that was admitted outlives its front, and is the next one's (`rescue.rs`, `attach.rs`).
//! - Whoever starts a worker may have it attach itself by [`ATTACH_VARIABLE`](crate::attach::ATTACH_VARIABLE).

mod conversation;
mod kept;
mod mover;
mod start;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use self::conversation::{Shared, Speaker, speak, speak_to_nobody};
use self::kept::Kept;
pub use self::mover::{Arrival, Migration, Mover};
pub use self::start::StartFailed;
use self::start::{open_all, receive_hello, take_link};
use crate::acceptor::Acceptor;
use crate::attach::{Attach, Dismissal};
use crate::fault::{self, Point};
use crate::limits::free_descriptors;
use crate::message::{Drain, Drained, GenerationId, OrphanEnded, Ready, Report, ToFront, millis};
use crate::places::Places;
use crate::rescue::RescueSocket;
use crate::socket::{Address, ListeningSocket};
use crate::stance::Stance;

/// Set to `stdin` in the environment of a worker whose descriptor 0 is its link.
pub const LINK_VARIABLE: &str = "HOLDFAST_LINK";
/// How long a leaving worker tries to say so.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a drain takes that a worker without a front begins by itself.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A worker with what it accepts from.
pub(crate) struct Opened {
    worker: Worker,
    sockets: Vec<Arc<ListeningSocket>>,
}

impl Opened {
    /// With one acceptor for every socket.
    pub(crate) fn together(self) -> (Worker, Acceptor) {
        let acceptor = self.worker.acceptor(self.sockets);
        (self.worker, acceptor)
    }

    /// With an acceptor for each socket.
    pub(crate) fn sharded(self) -> (Worker, Vec<Acceptor>) {
        let Self { worker, sockets } = self;
        let acceptors = sockets.into_iter().map(|socket| worker.acceptor([socket])).collect();
        (worker, acceptors)
    }

    /// With the sockets themselves.
    pub(crate) fn for_another(self) -> (Worker, Vec<Arc<ListeningSocket>>) {
        (self.worker, self.sockets)
    }
}

/// This process as a worker: under a front, or by itself.
pub struct Worker {
    generation: Option<GenerationId>,
    addresses: Vec<Address>,
    drain_timeout: Duration,
    places: Places,
    shared: Arc<Shared>,
    outbox: mpsc::Sender<ToFront>,
    conversation: JoinHandle<()>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("generation", &self.generation)
            .field("addresses", &self.addresses)
            .field("stance", &*self.shared.stance.borrow())
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Becomes the worker of the front that started this process, or one that listens on
    /// `addresses` itself when no front did. The [`Acceptor`] serves every socket; see
    /// [`Self::start_sharded`] for one per socket.
    ///
    /// # Errors
    /// [`StartFailed`]; the process should exit then.
    pub async fn start(addresses: &[Address]) -> Result<(Self, Acceptor), StartFailed> {
        Ok(Self::open(addresses, None).await?.together())
    }

    /// As [`Self::start`], with an acceptor for each listening socket, to be polled from a task each.
    ///
    /// # Errors
    /// [`StartFailed`]; the process should exit then.
    pub async fn start_sharded(
        addresses: &[Address],
    ) -> Result<(Self, Vec<Acceptor>), StartFailed> {
        Ok(Self::open(addresses, None).await?.sharded())
    }

    /// As [`Self::start`], for a worker that gives the sockets to another program to accept from. It has no
    /// acceptor, so what the front is told follows its orders at once, unless it follows [`Self::accepts_elsewhere`].
    ///
    /// # Errors
    /// [`StartFailed`]; the process should exit then.
    pub async fn start_for_another(
        addresses: &[Address],
    ) -> Result<(Self, Vec<Arc<ListeningSocket>>), StartFailed> {
        Ok(Self::open(addresses, None).await?.for_another())
    }

    /// As [`Attach::start`], without an acceptor.
    pub(crate) async fn attached(attach: Attach) -> Result<Opened, StartFailed> {
        Self::open(&[], Some(attach)).await
    }

    async fn open(addresses: &[Address], attach: Option<Attach>) -> Result<Opened, StartFailed> {
        fault::arm();
        let (stance, _) = watch::channel(Stance::Waiting);
        let (lease, _) = watch::channel(None);
        let shared = Arc::new(Shared {
            stance,
            lease,
            registrations: Mutex::default(),
            mover: OnceLock::new(),
            reaped: watch::Sender::default(),
            moved: OnceLock::new(),
            reporter: OnceLock::new(),
            orphans: OnceLock::new(),
            dismissal: Dismissal::default(),
            kept: Kept::default(),
        });
        let (outbox, words) = mpsc::channel(16);
        let started = if attach.is_none() { take_link()? } else { None };
        // A front that has started this process comes first: others may share its environment.
        let attach = attach.or_else(|| started.is_none().then(Attach::from_environment).flatten());
        let link = match &attach {
            Some(attach) => Some(attach.first_call().await?),
            None => started,
        };
        let Some(link) = link else {
            let sockets = open_all(addresses)?;
            let conversation = tokio::spawn(speak_to_nobody(Arc::clone(&shared), words));
            let worker = Self {
                generation: None,
                addresses: sockets.iter().map(|s| s.address.clone()).collect(),
                drain_timeout: DEFAULT_DRAIN_TIMEOUT,
                places: Places::new(None),
                shared,
                outbox,
                conversation,
            };
            return Ok(Opened { worker, sockets: sockets.into_iter().map(Arc::new).collect() });
        };
        let born_at = Instant::now();
        let (hello, sockets) = receive_hello(&link).await?;
        let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
        shared.kept.sockets(&sockets);
        let speaker = Speaker {
            generation: hello.generation,
            born_at,
            rescue: hello.rescue.and_then(|directory| rescue_socket(&directory, hello.generation)),
            attach,
            outbox: outbox.clone().downgrade(),
            shared: Arc::clone(&shared),
        };
        let conversation = tokio::spawn(speak(link, words, speaker));
        let worker = Self {
            generation: Some(hello.generation),
            addresses: sockets.iter().map(|s| s.address.clone()).collect(),
            drain_timeout: Duration::from_millis(hello.drain_timeout_ms),
            places: Places::new(hello.max_connections),
            shared,
            outbox,
            conversation,
        };
        Ok(Opened { worker, sockets })
    }

    fn acceptor(&self, sockets: impl IntoIterator<Item = Arc<ListeningSocket>>) -> Acceptor {
        let (acceptor, registration) =
            Acceptor::new(sockets, self.shared.stance.subscribe(), self.places.clone());
        self.shared.registrations().push(registration);
        acceptor
    }

    /// For a worker that knows when the other program accepts: the front is told of accepting once that is sent
    /// here, and of not accepting once it is taken back. It is to be kept as long as the worker serves.
    #[must_use]
    pub fn accepts_elsewhere(&self) -> watch::Sender<bool> {
        let (accepting, registration) = watch::channel(false);
        self.shared.registrations().push(registration);
        accepting
    }

    /// Which generation this is; `None` without a front.
    #[must_use]
    pub const fn generation(&self) -> Option<GenerationId> {
        self.generation
    }

    /// Where it listens; one entry per socket.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Says that the worker could serve. Its other fields than the program and the greeting are filled in
    /// here.
    pub async fn ready(&self, mut ready: Ready) {
        // Unknown is as good as none: the front then refuses rather than risks it.
        ready.free_descriptors = free_descriptors().unwrap_or(0);
        ready.hears_of_orphans = self.shared.orphans.get().is_some();
        // Nobody here knows who accepts, so nobody can tell them not to.
        ready.stops_only_by_draining = self.shared.registrations().is_empty();
        self.say(ToFront::Ready(ready)).await;
    }

    /// Says that the worker could not serve, and why: before it is ready that is shown to the
    /// operator; within a takeover's soak it rolls the takeover back.
    pub async fn failing(&self, conditions: Vec<String>) {
        self.say(ToFront::Failing { conditions }).await;
    }

    /// Asks the front to replace this worker by a fresh one, for a reason the operator is told; without a front
    /// nobody hears it. It serves on until then. Asking twice is harmless.
    pub async fn wants_takeover(&self, reason: impl Into<String>) {
        self.say(ToFront::WantsTakeover { reason: reason.into() }).await;
    }

    /// Asks the front to wait for this worker, to be ready or drained, at least this long from now. It may be asked
    /// again; about once a second is not too often.
    pub async fn extend(&self, timeout: Duration) {
        self.say(ToFront::Extend { timeout_ms: millis(timeout) }).await;
    }

    /// Has `report` answer whenever the front asks how this worker is. The first call counts.
    pub fn on_report(&self, report: impl Fn() -> Report + Send + Sync + 'static) {
        // A second reporter is a mistake of the caller's that does no harm.
        let _ = self.shared.reporter.set(Box::new(report));
    }

    /// Has `heard` told how processes have ended that the front adopted: what others had started, and this worker
    /// went on with. To be said before [`Self::ready`]; the first call counts. A front of an earlier version never tells.
    pub fn on_orphan_ended(&self, heard: impl Fn(OrphanEnded) + Send + Sync + 'static) {
        // A second one is a mistake of the caller's that does no harm.
        let _ = self.shared.orphans.set(Box::new(heard));
    }

    /// What this worker may do, now and after each change.
    #[must_use]
    pub fn stance(&self) -> watch::Receiver<Stance> {
        self.shared.stance.subscribe()
    }

    /// The epoch under which this worker may write schedules, while it may.
    #[must_use]
    pub fn lease(&self) -> watch::Receiver<Option<u64>> {
        self.shared.lease.subscribe()
    }

    /// Ends when the worker is to leave: a drain has begun, or the front went away before it
    /// admitted this worker. Cancel safe.
    pub fn leaving(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stance = self.shared.stance.subscribe();
        async move {
            let over = |s: &Stance| s.deadline().is_some() || *s == Stance::Dismissed;
            // An error means the worker itself is gone.
            let _ = stance.wait_for(over).await;
        }
    }

    /// When what is still open is to be cut: now, unless a drain gives it longer.
    #[must_use]
    pub fn drain_deadline(&self) -> tokio::time::Instant {
        self.shared.stance.borrow().deadline().unwrap_or_else(Instant::now).into()
    }

    /// What comes of it when the front turns this worker away, which has attached itself: to be asked when it has
    /// left, for the exit code.
    #[must_use]
    pub fn dismissal(&self) -> Dismissal {
        self.shared.dismissal.clone()
    }

    /// Begins a drain by this worker's own decision.
    pub fn drain(&self, drain: Drain) {
        self.shared.drain(drain);
    }

    /// Begins a drain at SIGTERM or SIGINT, and cuts it short at the second one.
    pub fn drain_on_signals(&self) {
        let shared = Arc::clone(&self.shared);
        let timeout = self.drain_timeout;
        tokio::spawn(async move {
            let (Ok(mut terminate), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                error!("could not listen for signals; they end this process at once");
                return;
            };
            let mut timeout = timeout;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                // First the deed: a log that cannot be written must not keep a worker from leaving.
                shared.drain(Drain::within(timeout));
                info!(timeout_ms = timeout.as_millis(), "asked by signal to drain");
                timeout = Duration::ZERO;
            }
        });
    }

    /// Says that everything has ended, and lets go of the front. The process should exit next.
    pub async fn leave(self, drained: Drained) {
        fault::reach(Point::Leaving);
        self.say(ToFront::Drained(drained)).await;
        drop(self.outbox);
        // A front that no longer listens learns it from the exit.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.conversation).await;
    }

    /// Says that this worker cannot do what it was started for, in a sentence for the operator, and lets go of the
    /// front, which ends it and everything in its process group. The process should exit next.
    pub async fn refuse(self, reason: impl Into<String>) {
        self.say(ToFront::Refuse { reason: reason.into() }).await;
        drop(self.outbox);
        // As in `leave`.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.conversation).await;
    }

    async fn say(&self, word: ToFront) {
        // It fails only when the front is gone, and then there is nobody to tell.
        let _ = self.outbox.send(word).await;
    }
}

/// Where the next front finds this worker. Without it the worker serves just the same.
fn rescue_socket(directory: &str, generation: GenerationId) -> Option<RescueSocket> {
    RescueSocket::bind(Path::new(directory), generation)
        .inspect_err(|error| warn!(directory, %error, "could not open a rescue socket"))
        .ok()
}
