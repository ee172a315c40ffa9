//! Pipes for splice(2): bytes go from one socket to the other without passing through this process.
//!
//! **Invariants**
//! - A pipe that is lent again is empty.
//! - At most [`MOST_SPARE`] wait to be lent: idle connections hold none.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use handoff::Stream;

/// How much a pipe is to hold, in bytes. The kernel gives an unprivileged user 16 MiB in all (pipe(7)); a pipe that
/// may not grow keeps its 64 KiB.
const CAPACITY: usize = 512 * 1024;
/// How many pipes are kept for the next bulk transfer.
const MOST_SPARE: usize = 16;

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
}

/// Pipes that nobody needs now.
#[derive(Debug, Default)]
pub(super) struct SparePipes {
    pipes: Vec<Pipe>,
}

impl SparePipes {
    /// A pipe, if there can be one.
    pub(super) fn lend(&mut self) -> Option<Pipe> {
        self.pipes.pop().or_else(|| Pipe::open().ok())
    }

    /// Takes a pipe back.
    pub(super) fn take_back(&mut self, pipe: Pipe) {
        if pipe.held == 0 && self.pipes.len() < MOST_SPARE {
            self.pipes.push(pipe);
        }
    }
}

impl Pipe {
    fn open() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller one does, too.
        let _ = fcntl_setpipe_size(&writer, CAPACITY);
        Ok(Self { reader, writer, held: 0 })
    }

    /// Fills the pipe, which must be empty: else `WouldBlock` could mean that the pipe is full, and nobody would be
    /// woken. 0 is the end.
    pub(super) fn fill_from(&mut self, stream: &Stream) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "only an empty pipe is filled");
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        self.held = stream
            .try_read_ready(|| Ok(splice(stream, None, &self.writer, None, CAPACITY, flags)?))?;
        Ok(self.held)
    }

    /// Empties some of it.
    pub(super) fn drain_to(&mut self, stream: &Stream) -> io::Result<()> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let held = self.held;
        self.held -= stream
            .try_write_ready(|| Ok(splice(&self.reader, None, stream, None, held, flags)?))?;
        Ok(())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.held == 0
    }
}
