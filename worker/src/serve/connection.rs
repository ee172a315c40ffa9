//! One connection, from accept to close: HTTP/1.1 until it ends or becomes a WebSocket.
//!
//! ```text
//! accept ─► hyper drives it ─► ends ──────────────► linger ─► close
//!               │ head stalls: 408, unparseable: 400 ──┘
//!               └ 101 ─► into_parts() ─► websocket
//! ```
//!
//! **Invariants**
//! - The task that accepted a connection owns it to the end: no part of it is ever in another task.
//! - A connection that said nothing, or nothing new, is closed without a word; one that began to
//!   speak is answered.
//! - A drain closes nothing here: the next response says `Connection: close`, and what stays idle
//!   is closed when the lifecycle ends.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use handoff::{Peer, Stream};
use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::answer::{GENERATION, SECURITY};
use super::http::Desk;
use super::watched::Watched;
use super::{Gateway, websocket};
use crate::args::Limits;
use crate::census::{Phase, Visitor};

/// How long a connection is read after our last word: closing it over unread bytes resets it, and a
/// reset can overtake the response (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// The most a request's head may have, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Serves one connection until it is closed.
pub(crate) async fn serve(gateway: Arc<Gateway>, stream: Stream, peer: Peer) {
    let seat = gateway.census.seat();
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&seat.visitor)));
    let desk = Desk::new(Arc::clone(&gateway), Arc::clone(&seat.visitor), peer);
    let mut connection = http1::Builder::new().max_buf_size(MAX_HEAD).serve_connection(io, desk);
    let end = drive(&mut connection, &seat.visitor, &gateway.limits).await;
    let parts = connection.into_parts();
    let watched = parts.io.into_inner();
    let half_closed = watched.is_half_closed();
    match end {
        End::Finished => match parts.service.into_upgrade() {
            Some(upgrade) => {
                let stream = watched.into_stream();
                // Boxed: an HTTP connection does not carry the room for what it may become.
                Box::pin(websocket::serve(
                    &gateway,
                    &seat.visitor,
                    stream,
                    parts.read_buf,
                    upgrade,
                ))
                .await;
            }
            None if half_closed => {}
            None => linger(watched.into_stream()).await,
        },
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
}

/// How hyper's part of a connection ended.
enum End {
    /// After a last response, or because the client closed it.
    Finished,
    /// Nothing came for too long.
    Expired,
    /// In an error.
    Failed(hyper::Error),
}

/// Drives the connection until it ends or stands still for too long. hyper's own header timeout
/// counts idle connections too and never answers, so time is kept here.
async fn drive(
    connection: &mut http1::Connection<TokioIo<Watched>, Desk>,
    visitor: &Visitor,
    limits: &Limits,
) -> End {
    let mut timer = pin!(sleep_until(Instant::now() + limits.idle_timeout));
    poll_fn(|context| {
        match connection.poll_without_shutdown(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(End::Finished),
            Poll::Ready(Err(error)) => return Poll::Ready(End::Failed(error)),
            Poll::Pending => {}
        }
        let patience = match visitor.phase() {
            Phase::Idle => limits.idle_timeout,
            Phase::Head => limits.header_timeout,
            // A request being worked on has its own deadlines.
            Phase::Working | Phase::Answered | Phase::Talking | Phase::Told => {
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
        let mut unread = [0; 4096];
        stream.shutdown().await?;
        while stream.read(&mut unread).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // Whichever way it ends, the connection is dropped next.
    let _ = tokio::time::timeout(LINGER, until_closed).await;
}
