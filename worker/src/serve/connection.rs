//! One connection, from accept to close: HTTP/1.1 until it ends or becomes a WebSocket.
//!
//! ```text
//! accept, resume ─► hyper drives it ─► ends ──────► linger ─► close
//!               │ wanted, and at rest: frozen ─► another generation's resume
//!               │ head stalls: 408, unparseable: 400 ──┘
//!               └ 101 ─► into_parts() ─► websocket
//! ```
//!
//! **Invariants**
//! - The task that accepted or resumed a connection owns it to the end, or until it is frozen: no
//!   part of it is ever in another task.
//! - A connection that said nothing, or nothing new, is closed without a word; one that began to
//!   speak is answered.
//! - A client that closes its sending side is answered and then closed; one that left ends its run.
//! - Timeouts count from when the client last did something, whoever served it then.
//! - A drain closes nothing here: the next response says `Connection: close`, and what stays idle
//!   is closed when the lifecycle ends.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use handoff::migrate::{self, Snapshot};
use handoff::{Peer, Stream};
use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::Gateway;
use super::answer::{GENERATION, SECURITY};
use super::http::Desk;
use super::moving::{self, HttpState, freeze_http};
use super::presence::Presence;
use super::watched::Watched;
use super::websocket::{self, Upgraded};
use crate::args::Limits;
use crate::census::{Phase, Seat, Visitor};

/// How long a connection is read after our last word: closing it over unread bytes resets it, and a
/// reset can overtake the response (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// The most a request's head may have, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Serves a connection that was accepted here, until it is closed or moves. `berth` is its way to
/// another generation.
pub(crate) fn accept(
    gateway: Arc<Gateway>,
    stream: Stream,
    peer: Peer,
    berth: Option<migrate::Seat>,
) -> impl Future<Output = ()> {
    let seat = gateway.census.seat();
    one_life_after_the_other(gateway, seat, (stream, peer), Bytes::new(), berth)
}

/// Serves an HTTP connection from where it was frozen, as [`accept`] does.
pub(crate) fn resume(
    gateway: Arc<Gateway>,
    stream: Stream,
    snapshot: Snapshot,
    berth: Option<migrate::Seat>,
) -> impl Future<Output = ()> {
    let HttpState { phase, age_ms } = moving::read_http_state(&snapshot).unwrap_or_default();
    let seat = gateway.census.seat_since(phase.into(), moving::ago(age_ms));
    let (peer, read) = (snapshot.peer, snapshot.read.into());
    one_life_after_the_other(gateway, seat, (stream, peer), read, berth)
}

/// Each life has a box of its own, so that a connection carries the room neither for what it was nor for
/// what it may become.
fn one_life_after_the_other(
    gateway: Arc<Gateway>,
    seat: Seat,
    connection: (Stream, Peer),
    read: Bytes,
    berth: Option<migrate::Seat>,
) -> impl Future<Output = ()> {
    let http = Box::pin(speak_http(gateway, seat, connection, read, berth));
    async move {
        if let Some(upgraded) = http.await {
            Box::pin(websocket::serve(upgraded)).await;
        }
    }
}

/// Speaks HTTP to the end of the connection, or until it is to become a WebSocket.
async fn speak_http(
    gateway: Arc<Gateway>,
    seat: Seat,
    (stream, peer): (Stream, Peer),
    read: Bytes,
    berth: Option<migrate::Seat>,
) -> Option<Upgraded> {
    let presence = Arc::new(Presence::new(Arc::clone(&seat.visitor)));
    let io = TokioIo::new(Watched::new(stream, read, Arc::clone(&presence)));
    let desk = Desk::new(Arc::clone(&gateway), presence, peer);
    // hyper would take the FIN of a client that waits for its answer for its end: see `presence`.
    let mut connection =
        http1::Builder::new().half_close(true).max_buf_size(MAX_HEAD).serve_connection(io, desk);
    let end = drive(&mut connection, &seat.visitor, &gateway.limits, berth.as_ref()).await;
    let parts = connection.into_parts();
    let watched = parts.io.into_inner();
    let half_closed = watched.is_half_closed();
    match end {
        End::Finished => match parts.service.into_upgrade() {
            Some(upgrade) => {
                let (rest, stream) = watched.into_parts();
                let unread = joined(parts.read_buf, rest);
                return Some(Upgraded { gateway, seat, stream, peer, unread, upgrade, berth });
            }
            None if half_closed => {}
            None => linger(watched.into_stream()).await,
        },
        End::Wanted => {
            let state = HttpState::of(&seat.visitor);
            seat.visitor.enter(Phase::Away);
            let (rest, stream) = watched.into_parts();
            let read = joined(parts.read_buf, rest).into();
            // Without a berth nobody wants it.
            if let (Some(frozen), Some(berth)) = (freeze_http(stream, peer, read, state), berth) {
                drop(seat);
                berth.give(frozen);
            }
        }
        End::Expired if parts.read_buf.trim_ascii().is_empty() => {}
        End::Expired => {
            seat.visitor.enter(Phase::Idle);
            refuse(watched.into_stream(), &gateway, StatusCode::REQUEST_TIMEOUT).await;
        }
        End::Failed(error) => {
            debug!(error = &error as &dyn std::error::Error, "an HTTP connection failed");
            // What hyper does not answer, like a HTTP/2 preface, is a bad request too.
            let status =
                watched.refused().or_else(|| error.is_parse().then_some(StatusCode::BAD_REQUEST));
            seat.visitor.enter(Phase::Idle);
            if let Some(status) = status.filter(|_| !half_closed || watched.refused().is_some()) {
                refuse(watched.into_stream(), &gateway, status).await;
            }
        }
    }
    None
}

/// How hyper's part of a connection ended.
enum End {
    /// After a last response, or because the client closed it.
    Finished,
    /// Nothing came for too long.
    Expired,
    /// In an error.
    Failed(hyper::Error),
    /// It is to be served elsewhere, and is at rest.
    Wanted,
}

/// Drives the connection until it ends or stands still for too long. hyper's own header timeout
/// counts idle connections too and never answers, so time is kept here.
async fn drive(
    connection: &mut http1::Connection<TokioIo<Watched>, Desk>,
    visitor: &Visitor,
    limits: &Limits,
    berth: Option<&migrate::Seat>,
) -> End {
    let mut timer = pin!(sleep_until(Instant::now() + limits.idle_timeout));
    poll_fn(|context| {
        match connection.poll_without_shutdown(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(End::Finished),
            Poll::Ready(Err(error)) => return Poll::Ready(End::Failed(error)),
            Poll::Pending => {}
        }
        if let Some(berth) = berth
            && berth.poll_wanted(context).is_ready()
        {
            // Between requests everything is written out, and hyper gives back what it has read.
            match visitor.phase() {
                Phase::Idle | Phase::Head => return Poll::Ready(End::Wanted),
                _ => berth.busy(),
            }
        }
        let patience = match visitor.phase() {
            Phase::Idle => limits.idle_timeout,
            Phase::Head => limits.header_timeout,
            // A request being worked on has its own deadlines.
            Phase::Working | Phase::Answered | Phase::Talking | Phase::Told | Phase::Away => {
                return Poll::Pending;
            }
        };
        let due = Instant::from_std(visitor.phase_began_at() + patience);
        // A timer that rings too early costs one look; setting it for each request would cost more.
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(End::Expired);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await
}

/// What hyper had read and not understood, and what it had not read of the first bytes.
fn joined(read_buf: Bytes, rest: Bytes) -> Bytes {
    if rest.is_empty() { read_buf } else { [read_buf, rest].concat().into() }
}

/// Says what hyper would not say, or would say without our headers.
async fn refuse(mut stream: Stream, gateway: &Gateway, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or("Refused");
    let mut response = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    let generation = (GENERATION, gateway.generation.clone());
    for (name, value) in SECURITY.into_iter().chain([generation]) {
        let value = value.to_str().unwrap_or_default();
        response.push_str(&format!("{name}: {value}\r\n"));
    }
    response.push_str(&format!(
        "content-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{reason}",
        reason.len()
    ));
    // A client that does not read, or is gone, misses only this.
    let written = tokio::time::timeout(LINGER, stream.write_all(response.as_bytes())).await;
    if let Ok(Ok(())) = written {
        linger(stream).await;
    }
}

/// Closes our side, and reads on until the client has closed its own, for a while.
pub(super) async fn linger(mut stream: Stream) {
    let until_closed = async {
        // Not in the future, where every connection would carry it all its life.
        let mut unread = vec![0; 4096];
        stream.shutdown().await?;
        while stream.read(&mut unread).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // Whichever way it ends, the connection is dropped next.
    let _ = tokio::time::timeout(LINGER, until_closed).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How large the futures are that a function makes, in bytes.
    const fn room<A, B, C, D, E, F>(_makes: &impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_holds_only_the_room_for_what_it_is() {
        let (any, http) = (room(&one_life_after_the_other), room(&speak_http));
        assert!(any <= 320, "every accepted connection holds {any} bytes");
        assert!(http <= 2560, "every HTTP connection holds {http} bytes");
    }
}
