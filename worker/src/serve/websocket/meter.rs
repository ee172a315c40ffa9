//! A connection under tungstenite's hands: how much came before it connected, how much has left.
//!
//! tungstenite tells neither, and its own limit cannot change once a client has connected.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use handoff::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    stream: Stream,
    /// How much more may be read; `None` is any amount.
    allowance: Option<usize>,
    written: u64,
}

impl Meter {
    pub(super) const fn new(stream: Stream, allowance: usize) -> Self {
        Self { stream, allowance: Some(allowance), written: 0 }
    }

    /// From now on any amount may be read.
    pub(super) const fn lift(&mut self) {
        self.allowance = None;
    }

    /// How much the kernel has taken, in bytes.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for Meter {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.allowance == Some(0) {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        this.allowance = this.allowance.map(|allowance| allowance.saturating_sub(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Meter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
