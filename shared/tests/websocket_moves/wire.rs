//! A connection in memory: as slow as a test wants it, and the same after every move.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The server's end, or another handle of it. Nobody is woken: whoever uses it polls again.
#[derive(Clone)]
pub(crate) struct Wire(Rc<RefCell<Kernel>>);

struct Kernel {
    to_server: VecDeque<u8>,
    to_client: Vec<u8>,
    /// How much more fits towards the client, in bytes.
    room: usize,
    /// The most that one read or write takes, in bytes.
    bite: usize,
}

impl Wire {
    pub(crate) fn new(bite: usize) -> Self {
        let kernel = Kernel { to_server: VecDeque::new(), to_client: Vec::new(), room: 0, bite };
        Self(Rc::new(RefCell::new(kernel)))
    }

    /// The client has sent these.
    pub(crate) fn arrive(&self, bytes: &[u8]) {
        self.0.borrow_mut().to_server.extend(bytes);
    }

    /// The client reads so many more bytes.
    pub(crate) fn make_room(&self, size: usize) {
        let mut kernel = self.0.borrow_mut();
        kernel.room = kernel.room.saturating_add(size);
    }

    /// Everything the client was sent.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.0.borrow().to_client.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut kernel = self.0.borrow_mut();
        let size = kernel.bite.min(buffer.remaining()).min(kernel.to_server.len());
        if size == 0 {
            return Poll::Pending;
        }
        kernel.to_server.drain(..size).for_each(|byte| buffer.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut kernel = self.0.borrow_mut();
        let size = kernel.bite.min(kernel.room).min(bytes.len());
        if size == 0 {
            return Poll::Pending;
        }
        kernel.room -= size;
        kernel.to_client.extend_from_slice(&bytes[..size]);
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
