//! A connection under hyper's hands: what passes tells whether a request's head has begun, keeps back the
//! bare responses that hyper itself would make, and is where a client's leaving is noticed.
//!
//! **Invariants**
//! - Between requests hyper writes only what it says itself: its answer to a head it cannot parse.
//!   That is swallowed and remembered; the connection's owner says it, with all our headers.
//! - hyper flushes only what it has written out whole, so a flush after an answer means the answer left.
//! - hyper flushes at the end of each poll that leaves nothing to write, and does not read while a request is
//!   worked on: that is when and why the client is looked after here.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use handoff::Stream;
use handoff::migrate::Prefixed;
use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::presence::{Presence, Vigil};
use crate::census::Phase;

/// See the module.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Prefixed<Stream>,
    presence: Arc<Presence>,
    vigil: Vigil,
    /// What is to be said before anything else, or is half said.
    owed: &'static [u8],
    /// Whether the client has closed its side.
    half_closed: bool,
    refused: Option<StatusCode>,
}

impl Watched {
    /// A connection whose first bytes are `read`.
    pub(super) fn new(stream: Stream, read: Bytes, presence: Arc<Presence>) -> Self {
        let stream = Prefixed::new(read, stream);
        Self {
            stream,
            presence,
            vigil: Vigil::default(),
            owed: &[],
            half_closed: false,
            refused: None,
        }
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
        matches!(self.presence.visitor.phase(), Phase::Idle | Phase::Head)
    }

    fn poll_owed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, self.owed))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.owed = &self.owed[written..],
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sees whether the client is there, and has what it takes to find out said.
    fn poll_vigil(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(words) = self.vigil.poll(context, self.stream.get_ref(), &self.presence)? {
            self.owed = words;
            ready!(self.poll_owed(context))?;
        }
        Poll::Ready(Ok(()))
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
        } else if this.presence.visitor.phase() == Phase::Idle {
            this.presence.visitor.enter(Phase::Head);
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
        ready!(this.poll_owed(context))?;
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
        ready!(this.poll_owed(context))?;
        Pin::new(&mut this.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_owed(context))?;
        ready!(Pin::new(&mut this.stream).poll_flush(context))?;
        match this.presence.visitor.phase() {
            Phase::Answered => this.presence.visitor.enter(Phase::Idle),
            Phase::Working => ready!(this.poll_vigil(context))?,
            Phase::Idle | Phase::Head | Phase::Talking | Phase::Told | Phase::Away => {}
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
