//! A pipe from the program, and what is left in it when the program is gone.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::unix::pipe;

/// How much is read at once, in bytes.
pub(super) const READ_SIZE: usize = 16 * 1024;
/// How much a pipe may still hold after its writer's end, in bytes (pipe(7), /proc/sys/fs/pipe-max-size).
const PIPE_MOST: usize = 1024 * 1024;

/// A pipe from the program.
#[derive(Debug)]
pub(super) struct Ear {
    pub(super) pipe: pipe::Receiver,
    has_ended: bool,
}

impl Ear {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: pipe::Receiver::from_owned_fd(descriptor)?, has_ended: false })
    }

    /// Reads what is there into `buffer`, and says how much: nothing at its end, after which it waits forever.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<usize> {
        if self.has_ended {
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(buffer);
        let result = ready!(Pin::new(&mut self.pipe).poll_read(context, &mut buffer));
        // A pipe that cannot be read says no more.
        self.has_ended = result.is_err() || buffer.filled().is_empty();
        Poll::Ready(buffer.filled().len())
    }

    /// What a dead writer has left: the runtime may not have heard of it yet, so the kernel is asked.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let mut buffer = [0; READ_SIZE];
        while !self.has_ended && rest.len() < PIPE_MOST {
            match rustix::io::read(self.pipe.as_fd(), &mut buffer[..]) {
                Ok(0) => self.has_ended = true,
                Ok(length) => rest.extend_from_slice(&buffer[..length]),
                Err(rustix::io::Errno::INTR) => {}
                // Nothing there: a grandchild may hold the other end, and is not waited for.
                Err(_) => self.has_ended = true,
            }
        }
        rest
    }
}
