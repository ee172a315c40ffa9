//! A connection under tungstenite's hands: how much may come before the client has connected, since
//! tungstenite's own limit cannot change afterwards.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use handoff::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
#[derive(Debug)]
pub(super) struct Allowance {
    stream: Stream,
    /// How much more may be read; `None` is any amount.
    left: Option<usize>,
}

impl Allowance {
    pub(super) const fn new(stream: Stream, left: Option<usize>) -> Self {
        Self { stream, left }
    }

    /// From now on any amount may be read.
    pub(super) const fn lift(&mut self) {
        self.left = None;
    }

    /// How much more may be read, in bytes; `None` is any amount.
    pub(super) const fn left(&self) -> Option<usize> {
        self.left
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for Allowance {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == Some(0) {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        this.left = this.left.map(|left| left.saturating_sub(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Allowance {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
