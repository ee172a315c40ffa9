//! A connection under hyper's hands: what passes tells whether a request's head has begun, and keeps
//! back the bare responses that hyper itself would make.
//!
//! **Invariants**
//! - Between requests hyper writes only what it says itself: its answer to a head it cannot parse.
//!   That is swallowed and remembered; the connection's owner says it, with all our headers.
//! - hyper flushes only what it has written out whole, so a flush after an answer means the answer left.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use handoff::Stream;
use handoff::migrate::Prefixed;
use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::census::{Phase, Visitor};

/// See the module.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Prefixed<Stream>,
    visitor: Arc<Visitor>,
    /// Whether the client has closed its side.
    half_closed: bool,
    refused: Option<StatusCode>,
}

impl Watched {
    /// A connection whose first bytes are `read`.
    pub(super) fn new(stream: Stream, read: Bytes, visitor: Arc<Visitor>) -> Self {
        let stream = Prefixed::new(read, stream);
        Self { stream, visitor, half_closed: false, refused: None }
    }

    /// The status of the response that hyper would have made, if it did.
    pub(super) const fn refused(&self) -> Option<StatusCode> {
        self.refused
    }

    /// Whether the client has closed its side.
    pub(super) const fn is_half_closed(&self) -> bool {
        self.half_closed
    }

    /// What hyper did not read of the first bytes, and the connection itself.
    pub(super) fn into_parts(self) -> (Bytes, Stream) {
        self.stream.into_parts()
    }

    /// The connection itself.
    pub(super) fn into_stream(self) -> Stream {
        self.into_parts().1
    }

    /// Whether hyper speaks for itself now.
    fn is_between_requests(&self) -> bool {
        matches!(self.visitor.phase(), Phase::Idle | Phase::Head)
    }

    fn swallow(&mut self, written: &[u8]) {
        // "HTTP/1.1 400 Bad Request"
        let status = written.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
        self.refused = self.refused.or(status);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if buffer.filled().len() == before {
            this.half_closed = true;
        } else if this.visitor.phase() == Phase::Idle {
            this.visitor.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_between_requests() {
            this.swallow(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_between_requests() {
            this.swallow(buffers.first().map_or(&[], |first| first));
            return Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()));
        }
        Pin::new(&mut this.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(context))?;
        if this.visitor.phase() == Phase::Answered {
            this.visitor.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
