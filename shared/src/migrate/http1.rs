//! An HTTP/1.1 connection of hyper's that can move: between requests, whatever has been read of the
//! next one.
//!
//! ```text
//! socket ─ Prefixed ─ Gauged ─ hyper ─ GaugedService ─ the server
//!                        └──── Gauge ────────┘   in flight? written out?
//! ```
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use handoff::{Peer, Stream};
//! # use handoff::migrate::{Frozen, Kind, Seat, Snapshot, http1};
//! # use hyper::{Request, Response, body::Incoming, service::service_fn};
//! # use http_body_util::Empty;
//! # use bytes::Bytes;
//! # async fn answer(_: Request<Incoming>) -> Result<Response<Empty<Bytes>>, std::convert::Infallible> { unimplemented!() }
//! /// Serves a connection, accepted here (`read` is empty) or moved here.
//! async fn serve(stream: Stream, peer: Peer, read: Vec<u8>, seat: Seat) {
//!     let gauge = http1::Gauge::default();
//!     let io = hyper_util::rt::TokioIo::new(http1::Gauged::new(stream, read, &gauge));
//!     let service = http1::GaugedService::new(service_fn(answer), &gauge);
//!     let mut connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
//!     if http1::drive(&mut connection, &gauge, &seat).await == http1::Driven::Movable {
//!         let parts = connection.into_parts();
//!         let (stream, read) = parts.io.into_inner().into_parts(&parts.read_buf);
//!         if let Ok(descriptor) = stream.into_descriptor() {
//!             let (unsent, state) = (Vec::new(), Vec::new());
//!             let snapshot = Snapshot { kind: Kind::Http1, peer, read, unsent, version: 1, state };
//!             seat.give(Frozen::connection(descriptor, snapshot, None));
//!         }
//!     }
//! }
//! ```
//!
//! **Invariants**
//! - It moves only when no request is being answered and every response has been written out: hyper
//!   flushes its io once its own buffer is empty, and a guard in the response's body says when that
//!   is done.
//! - `graceful_shutdown` has no part in it: that closes idle connections and announces `close` on the
//!   others (measured).
//! - The server must not keep a request's body beyond its response.
//!
//! # Clients that close their sending side
//! A FIN needs no room in the snapshot: it stays in the kernel, behind the unread bytes, and whoever serves
//! the connection next meets it. What it means is hyper's `half_close`, which is the server's to choose:
//!
//! - `half_close(false)`, the default: a FIN while a request is being answered ends the connection, unanswered.
//!   A client that left ends its work at once; one that only sends no more gets nothing, takeover or not.
//! - `half_close(true)`: every request that came is answered, by whichever worker, and the connection ends
//!   after the last answer. But hyper looks for no FIN meanwhile: the work for a client that left goes on
//!   until something is written to it. A server whose answers take long looks after its clients beside
//!   hyper: [`Stream::poll_read_ready`](crate::Stream::poll_read_ready) wakes it, and poll(2) with
//!   `POLLRDHUP` tells a FIN from a request that is unread.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt;
use hyper::server::conn::http1::Connection;
use hyper::service::{HttpService, Service};
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Prefixed, Seat};

/// What is under way on one connection.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    shared: Arc<Under>,
}

#[derive(Debug, Default)]
struct Under {
    /// Requests whose response is not complete.
    exchanges: AtomicUsize,
    /// Bytes hyper has written since it last flushed.
    unflushed: AtomicUsize,
}

impl Gauge {
    /// Whether nothing is: the connection could move.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.shared.exchanges.load(Ordering::Acquire) == 0
            && self.shared.unflushed.load(Ordering::Acquire) == 0
    }
}

/// How driving a connection came to its end.
#[derive(Debug)]
pub enum Driven {
    /// The connection is over: by the client's close, after a last response, or before an upgrade.
    Ended(Result<(), hyper::Error>),
    /// It is wanted elsewhere, and at rest: take it apart by `into_parts`.
    Movable,
}

impl PartialEq for Driven {
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Movable, Self::Movable))
            || matches!((self, other), (Self::Ended(Ok(())), Self::Ended(Ok(()))))
    }
}

/// Drives a connection until it ends, or is wanted and can move. Cancel safe.
pub async fn drive<S, I, B>(connection: &mut Connection<I, S>, gauge: &Gauge, seat: &Seat) -> Driven
where
    S: HttpService<hyper::body::Incoming, ResBody = B> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Unpin,
    I: rt::Read + rt::Write + Unpin,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    poll_fn(|context| {
        if let Poll::Ready(outcome) = connection.poll_without_shutdown(context) {
            return Poll::Ready(Driven::Ended(outcome));
        }
        ready!(seat.poll_wanted(context));
        if gauge.is_at_rest() {
            return Poll::Ready(Driven::Movable);
        }
        seat.busy();
        Poll::Pending
    })
    .await
}

/// The io of a connection, which knows whether everything was written out.
#[derive(Debug)]
pub struct Gauged<S> {
    stream: Prefixed<S>,
    gauge: Gauge,
}

impl<S> Gauged<S> {
    /// A stream whose first bytes are `read`.
    pub fn new(stream: S, read: impl Into<Bytes>, gauge: &Gauge) -> Self {
        Self { stream: Prefixed::new(read, stream), gauge: gauge.clone() }
    }

    /// The stream, and what was read of it and not understood: hyper's `read_buf`, then what hyper
    /// had not taken yet.
    pub fn into_parts(self, read_buf: &[u8]) -> (S, Vec<u8>) {
        let (rest, stream) = self.stream.into_parts();
        (stream, [read_buf, &rest].concat())
    }

    fn wrote(&self, bytes: usize) {
        self.gauge.shared.unflushed.fetch_add(bytes, Ordering::AcqRel);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gauged<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gauged<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, buffers))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.gauge.shared.unflushed.store(0, Ordering::Release);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A service whose exchanges are counted from the request to the end of the response's body.
#[derive(Clone, Debug)]
pub struct GaugedService<S> {
    service: S,
    gauge: Gauge,
}

impl<S> GaugedService<S> {
    /// Counts the exchanges of `service`.
    pub fn new(service: S, gauge: &Gauge) -> Self {
        Self { service, gauge: gauge.clone() }
    }
}

/// One exchange, until it is dropped.
#[derive(Debug)]
struct Exchange(Gauge);

impl Exchange {
    fn begin(gauge: &Gauge) -> Self {
        gauge.shared.exchanges.fetch_add(1, Ordering::AcqRel);
        Self(gauge.clone())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Its bytes are hyper's to write from here; until they are flushed it is not at rest.
        self.0.shared.unflushed.fetch_add(1, Ordering::AcqRel);
        self.0.shared.exchanges.fetch_sub(1, Ordering::AcqRel);
    }
}

type Responding<B, E> = Pin<Box<dyn Future<Output = Result<Response<GaugedBody<B>>, E>> + Send>>;

impl<S, B, R> Service<Request<R>> for GaugedService<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<GaugedBody<B>>;
    type Error = S::Error;
    type Future = Responding<B, S::Error>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let exchange = Exchange::begin(&self.gauge);
        let response = self.service.call(request);
        Box::pin(async move {
            Ok(response.await?.map(|body| GaugedBody { body: Box::pin(body), _exchange: exchange }))
        })
    }
}

/// A response's body that holds its exchange open until it is dropped.
#[derive(Debug)]
pub struct GaugedBody<B> {
    body: Pin<Box<B>>,
    _exchange: Exchange,
}

impl<B: Body> Body for GaugedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
