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

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::SocketType;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::acceptor::Acceptor;
use crate::limits::free_descriptors;
use crate::link::{Link, LinkError};
use crate::message::{
    Drain, Drained, GenerationId, Hello, OLDEST_PROTOCOL, PROTOCOL, Ready, Report, ToFront,
    ToWorker,
};
use crate::socket::{Address, ListeningSocket, OpenFailed};
use crate::stance::Stance;

/// Set to `stdin` in the environment of a worker whose descriptor 0 is its link.
pub const LINK_VARIABLE: &str = "HOLDFAST_LINK";
/// How long a worker waits for the front's [`Hello`].
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a leaving worker tries to say so.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a drain takes that a worker without a front begins by itself.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    /// Descriptor 0 could not be taken as the link.
    #[error("could not take the link from descriptor 0")]
    TakeLink {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The front did not introduce itself in time.
    #[error("the front sent no hello within {HELLO_TIMEOUT:?}")]
    NoHello,
    /// The front closed the link instead of introducing itself.
    #[error("the front closed the link before its hello")]
    FrontGone,
    /// The link failed.
    #[error("could not receive the front's hello")]
    Link {
        /// Why.
        #[source]
        source: LinkError,
    },
    /// The front began with something else.
    #[error("the front began with another message than hello")]
    NotHello,
    /// The front speaks a protocol this worker does not.
    #[error("the front speaks protocol {theirs}, and this worker {OLDEST_PROTOCOL} to {PROTOCOL}")]
    Protocol {
        /// The front's version.
        theirs: u32,
    },
    /// The front named an address that is none, or not the sockets it sent.
    #[error("the front's sockets are not the ones it named: {reason}")]
    Sockets {
        /// What is wrong with them.
        reason: String,
    },
    /// There is no front, and the address could not be opened.
    #[error("could not open the listening sockets")]
    Open {
        /// Which one, and why.
        #[source]
        source: OpenFailed,
    },
}

/// This process as a worker: under a front, or by itself.
pub struct Worker {
    generation: Option<GenerationId>,
    addresses: Vec<Address>,
    drain_timeout: Duration,
    shared: Arc<Shared>,
    outbox: mpsc::Sender<ToFront>,
    conversation: JoinHandle<()>,
}

/// What the conversation with the front and the server's own tasks both see.
struct Shared {
    stance: watch::Sender<Stance>,
    lease: watch::Sender<Option<u64>>,
    registrations: Mutex<Vec<watch::Receiver<bool>>>,
    reporter: OnceLock<Box<dyn Fn() -> Report + Send + Sync>>,
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
        let (worker, sockets, places) = Self::open(addresses).await?;
        let acceptor = worker.acceptor(sockets, places);
        Ok((worker, acceptor))
    }

    /// As [`Self::start`], with an acceptor for each listening socket, to be polled from a task each.
    ///
    /// # Errors
    /// [`StartFailed`]; the process should exit then.
    pub async fn start_sharded(
        addresses: &[Address],
    ) -> Result<(Self, Vec<Acceptor>), StartFailed> {
        let (worker, sockets, places) = Self::open(addresses).await?;
        let acceptors =
            sockets.into_iter().map(|socket| worker.acceptor([socket], places.clone())).collect();
        Ok((worker, acceptors))
    }

    async fn open(
        addresses: &[Address],
    ) -> Result<(Self, Vec<Arc<ListeningSocket>>, Option<Arc<Semaphore>>), StartFailed> {
        let (stance, _) = watch::channel(Stance::Waiting);
        let (lease, _) = watch::channel(None);
        let shared = Arc::new(Shared {
            stance,
            lease,
            registrations: Mutex::default(),
            reporter: OnceLock::new(),
        });
        let (outbox, words) = mpsc::channel(16);
        let Some(link) = take_link()? else {
            let sockets = open_all(addresses)?;
            let conversation = tokio::spawn(speak_to_nobody(Arc::clone(&shared), words));
            let worker = Self {
                generation: None,
                addresses: sockets.iter().map(|s| s.address.clone()).collect(),
                drain_timeout: DEFAULT_DRAIN_TIMEOUT,
                shared,
                outbox,
                conversation,
            };
            return Ok((worker, sockets.into_iter().map(Arc::new).collect(), None));
        };
        let (hello, sockets) = receive_hello(&link).await?;
        let places = hello.max_connections.map(|most| {
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(most))
        });
        let conversation =
            tokio::spawn(speak(link, words, outbox.clone().downgrade(), Arc::clone(&shared)));
        let worker = Self {
            generation: Some(hello.generation),
            addresses: sockets.iter().map(|s| s.address.clone()).collect(),
            drain_timeout: Duration::from_millis(hello.drain_timeout_ms),
            shared,
            outbox,
            conversation,
        };
        Ok((worker, sockets.into_iter().map(Arc::new).collect(), places))
    }

    fn acceptor(
        &self,
        sockets: impl IntoIterator<Item = Arc<ListeningSocket>>,
        places: Option<Arc<Semaphore>>,
    ) -> Acceptor {
        let (acceptor, registration) =
            Acceptor::new(sockets, self.shared.stance.subscribe(), places);
        self.shared.registrations().push(registration);
        acceptor
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

    /// Says that the worker could serve. `free_descriptors` is filled in here.
    pub async fn ready(&self, mut ready: Ready) {
        // Unknown is as good as none: the front then refuses rather than risks it.
        ready.free_descriptors = free_descriptors().unwrap_or(0);
        self.say(ToFront::Ready(ready)).await;
    }

    /// Says that the worker could not serve, and why: before it is ready that is shown to the
    /// operator; within a takeover's soak it rolls the takeover back.
    pub async fn failing(&self, conditions: Vec<String>) {
        self.say(ToFront::Failing { conditions }).await;
    }

    /// Has `report` answer whenever the front asks how this worker is. The first call counts.
    pub fn on_report(&self, report: impl Fn() -> Report + Send + Sync + 'static) {
        // A second reporter is a mistake of the caller's that does no harm.
        let _ = self.shared.reporter.set(Box::new(report));
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
                info!(timeout_ms = timeout.as_millis(), "asked by signal to drain");
                shared.drain(Drain::within(timeout));
                timeout = Duration::ZERO;
            }
        });
    }

    /// Says that everything has ended, and lets go of the front. The process should exit next.
    pub async fn leave(self, drained: Drained) {
        self.say(ToFront::Drained(drained)).await;
        drop(self.outbox);
        // A front that no longer listens learns it from the exit.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.conversation).await;
    }

    async fn say(&self, word: ToFront) {
        // It fails only when the front is gone, and then there is nobody to tell.
        let _ = self.outbox.send(word).await;
    }
}

impl Shared {
    fn registrations(&self) -> std::sync::MutexGuard<'_, Vec<watch::Receiver<bool>>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drain(&self, drain: Drain) {
        // Whoever drains writes no more schedules.
        self.lease.send_replace(None);
        self.stance.send_modify(|stance| *stance = stance.draining(drain, Instant::now()));
    }

    /// Ends when every acceptor is registered (`true`), or none is (`false`).
    async fn settled(&self, registered: bool) {
        let registrations = self.registrations().clone();
        for mut registration in registrations {
            // An acceptor that was dropped is not registered, and never will be.
            if registration.wait_for(|now| *now == registered).await.is_err() && registered {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Takes the link from descriptor 0, if a front put one there, and leaves `/dev/null` in its place.
fn take_link() -> Result<Option<Link>, StartFailed> {
    let taken = || -> io::Result<Option<Link>> {
        if std::env::var_os(LINK_VARIABLE).is_none_or(|value| value != "stdin") {
            return Ok(None);
        }
        // The variable also reaches what a worker spawns; the link itself does not.
        let stdin = io::stdin();
        if !rustix::net::sockopt::socket_type(&stdin)
            .is_ok_and(|kind| kind == SocketType::SEQPACKET)
        {
            return Ok(None);
        }
        let link = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Link::new(link).map(Some)
    };
    taken().map_err(|source| StartFailed::TakeLink { source })
}

async fn receive_hello(link: &Link) -> Result<(Hello, Vec<ListeningSocket>), StartFailed> {
    let received = tokio::time::timeout(HELLO_TIMEOUT, link.receive::<ToWorker>())
        .await
        .map_err(|_| StartFailed::NoHello)?
        .map_err(|source| StartFailed::Link { source })?
        .ok_or(StartFailed::FrontGone)?;
    let ToWorker::Hello(hello) = received.message else { return Err(StartFailed::NotHello) };
    if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&hello.protocol) {
        let refused = StartFailed::Protocol { theirs: hello.protocol };
        // The front also learns it from the exit; in words it can show them.
        let _ = link.send(&ToFront::Refuse { reason: refused.to_string() }, &[]).await;
        return Err(refused);
    }
    if hello.sockets.len() != received.descriptors.len() {
        return Err(StartFailed::Sockets {
            reason: format!(
                "{} were named and {} came",
                hello.sockets.len(),
                received.descriptors.len()
            ),
        });
    }
    let mut sockets = Vec::with_capacity(hello.sockets.len());
    for (entry, descriptor) in hello.sockets.iter().zip(received.descriptors) {
        let address = entry.address.parse().map_err(|error: crate::socket::NotAnAddress| {
            StartFailed::Sockets { reason: error.to_string() }
        })?;
        sockets.push(ListeningSocket::adopt(address, entry.shard, descriptor));
    }
    Ok((hello, sockets))
}

fn open_all(addresses: &[Address]) -> Result<Vec<ListeningSocket>, StartFailed> {
    let mut sockets = Vec::new();
    for address in addresses {
        match ListeningSocket::open(address, 1, 0o600) {
            Ok(group) => sockets.extend(group),
            Err(source) => return Err(StartFailed::Open { source }),
        }
    }
    Ok(sockets)
}

/// The conversation with the front, until this worker leaves.
async fn speak(
    link: Link,
    mut words: mpsc::Receiver<ToFront>,
    outbox: mpsc::WeakSender<ToFront>,
    shared: Arc<Shared>,
) {
    let mut acknowledging: Option<JoinHandle<()>> = None;
    let mut front = true;
    loop {
        tokio::select! {
            received = link.receive::<ToWorker>(), if front => match received {
                Ok(Some(received)) => {
                    if let Some(registered) = obey(received.message, &shared, &outbox) {
                        // What was not acknowledged yet is overtaken by the new order.
                        if let Some(earlier) = acknowledging.take() {
                            earlier.abort();
                        }
                        acknowledging = Some(tokio::spawn(acknowledge(
                            registered,
                            Arc::clone(&shared),
                            outbox.clone(),
                        )));
                    }
                }
                Ok(None) => {
                    front = false;
                    warn!("the front is gone");
                    shared.stance.send_modify(|stance| *stance = stance.front_gone());
                }
                Err(error) => {
                    front = false;
                    error!(error = &error as &dyn std::error::Error, "the link to the front broke");
                    shared.stance.send_modify(|stance| *stance = stance.front_gone());
                }
            },
            word = words.recv() => match word {
                Some(word) if front => {
                    if let Err(error) = link.send(&word, &[]).await {
                        // What ended the link is met again, and handled, by the next receive.
                        warn!(error = &error as &dyn std::error::Error, "could not tell the front");
                    }
                }
                Some(_) => {}
                None => return,
            },
        }
    }
}

/// Does what the front asks. The answer says which registration has to be acknowledged.
fn obey(order: ToWorker, shared: &Shared, outbox: &mpsc::WeakSender<ToFront>) -> Option<bool> {
    match order {
        ToWorker::Admit => {
            shared.stance.send_modify(|stance| *stance = stance.admitted());
            return Some(true);
        }
        ToWorker::StopAccepting => {
            shared.stance.send_modify(|stance| *stance = stance.stopped());
            return Some(false);
        }
        ToWorker::Lease { epoch } => {
            shared.lease.send_replace(Some(epoch));
        }
        ToWorker::Drain(drain) => shared.drain(drain),
        ToWorker::Report => {
            let report = shared.reporter.get().map_or_else(Report::default, |report| report());
            // A full outbox means the front does not read; it can do without this answer.
            if let Some(outbox) = outbox.upgrade() {
                let _ = outbox.try_send(ToFront::Report(report));
            }
        }
        ToWorker::Hello(_) => warn!("the front introduced itself twice"),
    }
    None
}

async fn acknowledge(registered: bool, shared: Arc<Shared>, outbox: mpsc::WeakSender<ToFront>) {
    shared.settled(registered).await;
    if let Some(outbox) = outbox.upgrade() {
        let word = if registered { ToFront::Accepting } else { ToFront::Stopped };
        // It fails only when this worker is leaving.
        let _ = outbox.send(word).await;
    }
}

/// What stands in for a front when there is none: readiness admits.
async fn speak_to_nobody(shared: Arc<Shared>, mut words: mpsc::Receiver<ToFront>) {
    while let Some(word) = words.recv().await {
        if let ToFront::Ready(_) = word {
            shared.lease.send_replace(Some(0));
            shared.stance.send_modify(|stance| *stance = stance.admitted());
        }
    }
}
