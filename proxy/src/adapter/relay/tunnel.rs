//! One relayed connection: bytes both ways, until both sides have said their last.
//!
//! ```text
//! client ── read ──► the common buffer ── write ──► program      small pieces
//! client ── splice ──────► a pipe ────── splice ──► program      bulk, while whole buffers come
//! ```
//!
//! **Invariants**
//! - What was read is written before more is read: a slow reader slows its writer, and holds at most one buffer or
//!   one pipe.
//! - A connection that is silent holds neither.
//! - A side's end is passed on once everything before it is; the other way goes on. A reset is passed on as one: an
//!   answer that was cut must not look whole.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use handoff::Stream;
use rustix::net::{Shutdown, shutdown, sockopt::set_socket_linger};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::counts::Owed;
use super::pipe::{Pipe, SparePipes};

/// The size of the common buffer, in bytes.
const BUFFER: usize = 64 * 1024;
/// So many reads in a row that fill the whole buffer are bulk.
const BULK_AFTER: u8 = 2;
/// A pipe that is filled with less than this was the end of it, in bytes.
const LEAST_BULK: usize = 16 * 1024;
/// How many pieces one direction may move before others have their turn.
const TURNS: usize = 16;

/// What the connections of an adapter share.
#[derive(Debug)]
pub(super) struct Workshop {
    buffer: Box<[u8]>,
    pipes: SparePipes,
}

impl Workshop {
    pub(super) fn open() -> Arc<Mutex<Self>> {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Arc::new(Mutex::new(Self { buffer, pipes: SparePipes::default() }))
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Both sides said their last.
    Finished,
    /// One of them was reset or failed, and so the other was.
    Broken,
    /// It was silent for too long.
    Idle,
}

/// A connection, to be awaited.
#[derive(Debug)]
pub(super) struct Tunnel {
    client: Stream,
    program: Stream,
    up: Direction,
    down: Direction,
    workshop: Arc<Mutex<Workshop>>,
    idle: Option<Idle>,
    /// Until the program has said its last.
    owed: Option<Owed>,
}

#[derive(Debug)]
struct Idle {
    limit: Duration,
    since: Instant,
    sleep: Pin<Box<Sleep>>,
}

/// One way.
#[derive(Debug, Default)]
struct Direction {
    /// Bytes that were read and could not be written at once.
    pending: Vec<u8>,
    /// How many of them have been.
    written: usize,
    pipe: Option<Pipe>,
    /// How many reads in a row filled the whole buffer, up to [`BULK_AFTER`].
    full_reads: u8,
    ended: bool,
    /// All bytes that went this way.
    moved: u64,
}

/// How a side's end is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    /// The other way goes on.
    Half,
    /// Nothing does: both sockets are about to be closed, which says it as well.
    Whole,
}

impl Close {
    const fn after(other_way: &Direction) -> Self {
        if other_way.ended { Self::Whole } else { Self::Half }
    }
}

impl Tunnel {
    /// Relays between the two, `preamble` to the program first.
    pub(super) fn new(
        client: Stream,
        program: Stream,
        preamble: Vec<u8>,
        workshop: Arc<Mutex<Workshop>>,
        idle_timeout: Option<Duration>,
        owed: Owed,
    ) -> Self {
        let up = Direction { pending: preamble, ..Direction::default() };
        let idle = idle_timeout.map(|limit| Idle {
            limit,
            since: Instant::now(),
            sleep: Box::pin(tokio::time::sleep(limit)),
        });
        Self { client, program, up, down: Direction::default(), workshop, idle, owed: Some(owed) }
    }

    fn poll_both(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let workshop = Arc::clone(&self.workshop);
        let mut workshop = workshop.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, program) = (&mut self.client, &mut self.program);
        let close = Close::after(&self.down);
        let up = self.up.poll_move(context, client, program, &mut workshop, close)?;
        let close = Close::after(&self.up);
        let down = self.down.poll_move(context, program, client, &mut workshop, close)?;
        if down.is_ready() {
            self.owed = None;
        }
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    const fn moved(&self) -> u64 {
        self.up.moved.wrapping_add(self.down.moved)
    }

    /// The timer is set again when it goes off, not at every byte.
    fn poll_idle(&mut self, context: &mut Context<'_>, active: bool) -> Poll<Ending> {
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        if active {
            idle.since = Instant::now();
        }
        loop {
            ready!(idle.sleep.as_mut().poll(context));
            let until = idle.since + idle.limit;
            if until <= Instant::now() {
                return Poll::Ready(Ending::Idle);
            }
            idle.sleep.as_mut().reset(until);
        }
    }

    /// Has both sides see a reset: with no time to linger, close(2) sends one (socket(7)).
    fn reset(&self) {
        for stream in [&self.client, &self.program] {
            // Unix sockets have no reset, and just end.
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

impl Future for Tunnel {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ending> {
        let this = self.get_mut();
        let before = this.moved();
        match this.poll_both(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ending::Finished),
            Poll::Ready(Err(_)) => {
                this.reset();
                return Poll::Ready(Ending::Broken);
            }
            Poll::Pending => {}
        }
        let active = before != this.moved();
        this.poll_idle(context, active)
    }
}

impl Direction {
    /// Moves what there is; ready once the end was passed on.
    fn poll_move(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        workshop: &mut Workshop,
        close: Close,
    ) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            ready!(self.poll_flush(context, to))?;
            let end = if self.pipe.is_some() || self.begins_bulk(workshop) {
                ready!(self.poll_splice(context, from, workshop))?
            } else {
                ready!(self.poll_copy(context, from, to, workshop))?
            };
            if end {
                self.ended = true;
                if let Some(pipe) = self.pipe.take() {
                    workshop.pipes.take_back(pipe);
                }
                if close == Close::Half {
                    shutdown(&*to, Shutdown::Write)?;
                }
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was read; ready once all of it is written.
    fn poll_flush(&mut self, context: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            self.written += ready!(Pin::new(&mut *to).poll_write(context, rest))?;
        }
        self.pending = Vec::new();
        self.written = 0;
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) {
            match pipe.drain_to(to) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(to.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what can be written at once. The answer says whether that was the end.
    fn poll_copy(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        workshop: &mut Workshop,
    ) -> Poll<io::Result<bool>> {
        let mut buffer = ReadBuf::new(&mut workshop.buffer);
        ready!(Pin::new(from).poll_read(context, &mut buffer))?;
        let read = buffer.filled();
        self.moved = self.moved.wrapping_add(read.len() as u64);
        self.full_reads = if read.len() == BUFFER { self.full_reads + 1 } else { 0 };
        if read.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let written = match Pin::new(to).poll_write(context, read) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.pending.extend_from_slice(&read[written..]);
        Poll::Ready(Ok(false))
    }

    /// Whether a pipe is in place of the buffer from now on.
    fn begins_bulk(&mut self, workshop: &mut Workshop) -> bool {
        if self.full_reads >= BULK_AFTER {
            self.pipe = workshop.pipes.lend();
            // Without one the buffer does.
            self.full_reads = if self.pipe.is_some() { BULK_AFTER } else { 0 };
        }
        self.pipe.is_some()
    }

    /// Fills the pipe. The answer says whether that was the end.
    fn poll_splice(
        &mut self,
        context: &mut Context<'_>,
        from: &Stream,
        workshop: &mut Workshop,
    ) -> Poll<io::Result<bool>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(false)) };
        match pipe.fill_from(from) {
            Ok(filled) => {
                self.moved = self.moved.wrapping_add(filled as u64);
                if filled < LEAST_BULK {
                    self.full_reads = 0;
                }
                Poll::Ready(Ok(filled == 0))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Who waits holds no pipe, but is given one at once when the bulk goes on.
                if let Some(pipe) = self.pipe.take() {
                    workshop.pipes.take_back(pipe);
                }
                ready!(from.poll_read_ready(context))?;
                Poll::Ready(Ok(false))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
