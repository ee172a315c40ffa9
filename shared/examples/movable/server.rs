//! A hyper server whose connections move to its successor: `movable_hyper.rs` and `movable_axum.rs` are two
//! things to be served by it, `attached_hyper.rs` another way to begin.
//!
//! ```text
//! accept ──┐
//! resume ──┴► hyper ──► ends ───────────────────────────► shutdown, close
//!               │ wanted, and between two requests ──► frozen ──► the successor's `resume`
//!               └ a drain that nothing moves in any more ──► closed after the next answer
//! ```
//!
//! A request that is being answered is answered here, and its connection moves after that. Connections that
//! are upgraded are not for this server: see `handoff::migrate::websocket`.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use handoff::migrate::http1::{Driven, Gauge, Gauged, GaugedService, drive};
use handoff::migrate::{Frozen, Kind, Mailbox, Post, Roster, Seat, Snapshot};
use handoff::{Acceptor, Arrival, Drained, Migration, Mover, Peer, Ready, Stream, Worker};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The version of what this server writes into a snapshot: nothing so far. One that writes more counts up.
const VERSION: u32 = 1;

/// Any error, as hyper takes it.
type Failure = Box<dyn Error + Send + Sync>;

/// What answers requests.
pub(crate) trait Answering:
    Service<Request<Incoming>, Future: Send, Error: Into<Failure>>
    + Clone
    + Send
    + Sync
    + Unpin
    + 'static
{
}

impl<S> Answering for S where
    S: Service<Request<Incoming>, Future: Send, Error: Into<Failure>>
        + Clone
        + Send
        + Sync
        + Unpin
        + 'static
{
}

/// What it answers.
pub(crate) trait Answer: Body<Data: Send, Error: Into<Failure>> + Send + 'static {}
impl<B: Body<Data: Send, Error: Into<Failure>> + Send + 'static> Answer for B {}

/// Serves until the front, or a signal, has this process leave.
pub(crate) async fn run<S, B>(worker: Worker, mut acceptor: Acceptor, program: &str, service: S)
where
    S: Answering + Service<Request<Incoming>, Response = Response<B>>,
    B: Answer,
{
    worker.drain_on_signals();
    let server = Arc::new(Server {
        service,
        roster: OnceLock::new(),
        open: watch::Sender::new(0),
        dismissed: watch::Sender::new(false),
    });
    // Before it is ready: the incumbent's connections come as soon as this worker accepts.
    let migration = worker.movable(Arc::new(Arrivals(Arc::clone(&server))), &Post::default());
    let roster = server.roster.get_or_init(|| migration.roster.clone());
    worker.ready(Ready { program: program.to_owned(), ..Ready::default() }).await;
    while let Some((stream, peer)) = acceptor.accept().await {
        server.serve(stream, peer, Vec::new(), Some(roster.seat()));
    }
    let deadline = worker.drain_deadline();
    nothing_moves_any_more(&migration, deadline).await;
    migration.halt();
    server.dismissed.send_replace(true);
    // What is not finished by the deadline is cut.
    let _ = timeout_at(deadline, server.emptied(roster)).await;
    let moved = migration.moved.borrow().moved;
    worker.leave(Drained { moved, ..Drained::default() }).await;
}

/// Ends when everything has moved, when there is nobody to move to, or in the last quarter of the drain, which
/// belongs to those that could not.
async fn nothing_moves_any_more(migration: &Migration, deadline: Instant) {
    let reserve = deadline.saturating_duration_since(Instant::now()) / 4;
    let mut moved = migration.moved.clone();
    tokio::select! {
        () = migration.roster.emptied() => {}
        _ = moved.wait_for(|moved| !moved.linked) => {}
        () = sleep_until(deadline - reserve) => {}
    }
}

/// What the tasks of all connections share.
struct Server<S> {
    service: S,
    /// Set before anything can arrive.
    roster: OnceLock<Roster>,
    /// How many connections have a task.
    open: watch::Sender<usize>,
    /// Whether connections are to end with their next answer.
    dismissed: watch::Sender<bool>,
}

impl<S, B> Server<S>
where
    S: Answering + Service<Request<Incoming>, Response = Response<B>>,
    B: Answer,
{
    /// Has a task serve a connection: one that was accepted, or of which this was `read` elsewhere.
    fn serve(self: &Arc<Self>, stream: Stream, peer: Peer, read: Vec<u8>, seat: Option<Seat>) {
        let server = Arc::clone(self);
        server.open.send_modify(|open| *open += 1);
        tokio::spawn(async move {
            server.speak(stream, peer, read, seat).await;
            server.open.send_modify(|open| *open -= 1);
        });
    }

    async fn speak(&self, stream: Stream, peer: Peer, read: Vec<u8>, seat: Option<Seat>) {
        let gauge = Gauge::default();
        let io = TokioIo::new(Gauged::new(stream, read, &gauge));
        let service = GaugedService::new(self.service.clone(), &gauge);
        let mut connection = http1::Builder::new().serve_connection(io, service);
        let mut dismissed = self.dismissed.subscribe();
        let dismissed = async {
            // An error means that this process ends.
            let _ = dismissed.wait_for(|dismissed| *dismissed).await;
        };
        let driven = tokio::select! {
            driven = async {
                match &seat {
                    Some(seat) => drive(&mut connection, &gauge, seat).await,
                    None => Driven::Ended((&mut connection).await),
                }
            } => driven,
            () = dismissed => {
                Pin::new(&mut connection).graceful_shutdown();
                Driven::Ended((&mut connection).await)
            }
        };
        let parts = connection.into_parts();
        let (mut stream, read) = parts.io.into_inner().into_parts(&parts.read_buf);
        let (Driven::Movable, Some(seat)) = (driven, seat) else {
            // Not by closing alone: another generation may still have a copy.
            let _ = stream.shutdown().await;
            return;
        };
        if let Ok(descriptor) = stream.into_descriptor() {
            let (kind, unsent, state) = (Kind::Http1, Vec::new(), Vec::new());
            let snapshot = Snapshot { kind, peer, read, unsent, version: VERSION, state };
            seat.give(Frozen::connection(descriptor, snapshot, None));
        }
    }

    /// Ends when no connection is here any more, neither served nor on its way.
    async fn emptied(&self, roster: &Roster) {
        roster.emptied().await;
        // Those that the successor would not take have no seat.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// Serves what comes from another generation, and what comes back.
struct Arrivals<S>(Arc<Server<S>>);

impl<S, B> Mover for Arrivals<S>
where
    S: Answering + Service<Request<Incoming>, Response = Response<B>>,
    B: Answer,
{
    fn judge(&self, snapshot: &Snapshot) -> Result<(), String> {
        match (snapshot.kind, snapshot.version) {
            (Kind::Http1, VERSION) => Ok(()),
            (kind, version) => Err(format!("{kind:?} of version {version} is not known here")),
        }
    }

    fn resume(
        &self,
        stream: Stream,
        snapshot: Snapshot,
        _mailbox: Option<Mailbox>,
        arrival: Arrival,
    ) {
        let seat = match arrival {
            Arrival::Moved | Arrival::Returned => self.0.roster.get().map(Roster::seat),
            Arrival::Rejected => None,
        };
        self.0.serve(stream, snapshot.peer, snapshot.read, seat);
    }
}
