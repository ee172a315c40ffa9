//! A connection under hyper's hands: what passes tells whether a request's head has begun, keeps back the
//! bare responses that hyper itself would make, and is where a client's leaving is noticed.
//!
//! **Invariants**
//! - Between requests hyper writes only what it says itself: its answer to a head it cannot parse.
//!   That is swallowed and remembered; the connection's owner says it, with all our headers.
//! - hyper flushes only what it has written out whole, so a flush after an answer means the answer left.
//! - hyper flushes at the end of each poll that leaves nothing to write, and does not read while a request is
//!   worked on: that is when and why the client is looked after here.
//! - A client that takes nothing of what it is sent for [`STALLED`] is given up, and with it the run it follows.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use handoff::Stream;
use handoff::migrate::Prefixed;
use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::presence::{Presence, Vigil};
use crate::census::Phase;

/// How long a client may take nothing of its response.
const STALLED: Duration = Duration::from_secs(120);

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
    /// Rings when the client has taken nothing for too long; `None` while it takes what there is.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
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
            stalled: None,
            patience: STALLED,
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
            let written = Pin::new(&mut self.stream).poll_write(context, self.owed);
            match ready!(self.patiently(context, written))? {
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

    /// What came of writing, unless the client has taken nothing for too long.
    fn patiently(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing of its response",
        )))
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
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.patiently(context, written)
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
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, buffers);
        this.patiently(context, written)
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::census::{Census, Seat, Work};

    /// Our end of a connection whose request is being worked on, and the client's.
    fn working() -> (Watched, UnixStream, Seat) {
        let (ours, client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let seat = Arc::new(Census::default()).seat();
        seat.visitor.begin(Work::Completion);
        let presence = Arc::new(Presence::new(Arc::clone(&seat.visitor)));
        let stream = Stream::adopt(ours.into()).unwrap();
        (Watched::new(stream, Bytes::new(), presence), client, seat)
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_response_is_given_up_after_a_while() {
        let (mut watched, _client, _seat) = working();
        watched.patience = Duration::from_millis(50);
        let begun_at = Instant::now();
        let failed = watched.write_all(&vec![0; 16 * 1024 * 1024]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!(begun_at.elapsed() >= watched.patience);
    }

    #[tokio::test]
    async fn a_client_that_takes_a_little_has_as_long_again() {
        let (mut watched, mut client, _seat) = working();
        let bytes = vec![0; 64 * 1024];
        let filled = |watched: &mut Watched, context: &mut Context<'_>| {
            while Pin::new(&mut *watched).poll_write(context, &bytes).is_ready() {}
            Poll::Ready(())
        };
        poll_fn(|context| filled(&mut watched, context)).await;
        assert!(watched.stalled.is_some());
        client.set_nonblocking(true).unwrap();
        while client.read(&mut [0; 4096]).is_ok() {}
        watched.write_all(&bytes[..1]).await.unwrap();
        assert!(watched.stalled.is_none());
    }
}
