//! Between tungstenite and the socket: reads go through a journal, writes can be kept instead of sent.
//!
//! ```text
//!            tungstenite
//!     read ▲             │ write
//!  ┌───────┴──────┐ ┌────▼─────────────────────────────┐
//!  │   journal    │ │ unsent, and then what is written │
//!  └───────▲──────┘ └────┬────────────────────────┬────┘
//!          │             ▼                        ▼
//!        socket        socket         while spilling: memory, as more of unsent
//! ```
//!
//! **Invariants**
//! - What is unsent leaves before anything that is written after it.
//! - Spilling waits for nobody.

mod frame;
mod journal;
mod spare;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;

use self::journal::Journal;
pub use self::journal::MAX_JOURNAL;
use super::websocket::NotMovable;

/// A stream whose reads are journalled, and whose writes can be kept instead of sent.
pub(super) struct JournalIo<S> {
    io: S,
    journal: Journal,
    /// What leaves before anything else; `sent` of it has left.
    unsent: Vec<u8>,
    sent: usize,
    output: Output,
    /// How much the socket has taken, in bytes.
    written: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Socket,
    /// Appended to what is unsent.
    Memory,
}

impl<S> JournalIo<S> {
    /// A stream that reads `read` before `io`, and writes `unsent` before anything else.
    pub(super) fn new(io: S, read: Vec<u8>, unsent: Vec<u8>) -> Self {
        let journal = Journal::with_replay(read);
        Self { io, journal, unsent, sent: 0, output: Output::Socket, written: 0 }
    }

    /// A message was returned: what it was made of is struck out.
    pub(super) fn commit(&mut self) {
        self.journal.commit();
    }

    /// Whether the journal tells all.
    pub(super) const fn is_movable(&self) -> Result<(), NotMovable> {
        self.journal.is_whole()
    }

    /// From now on what is written is kept, behind what was unsent already.
    pub(super) fn spill(&mut self) {
        self.output = Output::Memory;
    }

    /// Undoes [`Self::spill`]: what was kept is sent first.
    pub(super) fn stop_spilling(&mut self) {
        self.output = Output::Socket;
    }

    /// Queues a frame, to be sent before whatever is written from now on. Whatever was written before must
    /// have left.
    pub(super) fn send_first(&mut self, frame: Frame) {
        self.unsent.reserve_exact(frame.len());
        frame.format(&mut self.unsent).expect("memory takes everything");
    }

    /// How much the socket has taken since this stream was made, in bytes.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    pub(super) const fn get_ref(&self) -> &S {
        &self.io
    }

    pub(super) const fn get_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// The stream, what is to be read again, and what is to be sent.
    pub(super) fn into_parts(mut self) -> (S, Vec<u8>, Vec<u8>) {
        self.unsent.drain(..self.sent);
        (self.io, self.journal.into_bytes(), self.unsent)
    }
}

impl<S: AsyncWrite + Unpin> JournalIo<S> {
    /// Sends what is unsent.
    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let rest = &self.unsent[self.sent..];
            let taken = ready!(Pin::new(&mut self.io).poll_write(context, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
            self.written += taken as u64;
        }
        if self.sent > 0 {
            self.unsent = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for JournalIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.journal.give(buffer) {
            return Poll::Ready(Ok(()));
        }
        if let Some(room) = this.journal.room(buffer.remaining()) {
            let mut room = ReadBuf::new(room);
            let Poll::Ready(outcome) = Pin::new(&mut this.io).poll_read(context, &mut room) else {
                this.journal.rest();
                return Poll::Pending;
            };
            let read = room.filled().len();
            outcome?;
            this.journal.read(read);
            this.journal.give(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let Poll::Ready(outcome) = Pin::new(&mut this.io).poll_read(context, buffer) else {
            this.journal.rest();
            return Poll::Pending;
        };
        outcome?;
        this.journal.record(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for JournalIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.output == Output::Memory {
            this.unsent.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(this.poll_unsent(context))?;
        let taken = ready!(Pin::new(&mut this.io).poll_write(context, bytes))?;
        this.written += taken as u64;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.output == Output::Memory {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_unsent(context))?;
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_unsent(context))?;
        Pin::new(&mut this.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::task::Waker;

    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    #[test]
    fn a_frame_that_is_sent_first_precedes_what_is_written_and_leaves_no_room_behind() {
        let mut io = JournalIo::new(Cursor::new(Vec::new()), Vec::new(), Vec::new());
        io.send_first(Frame::message(vec![7; 2000], OpCode::Data(Data::Binary), true));
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(4)) = Pin::new(&mut io).poll_write(&mut context, b"next") else {
            panic!("a vector takes everything");
        };
        assert_eq!((io.unsent.capacity(), io.written()), (0, 2008));
        let wire = io.into_parts().0.into_inner();
        assert_eq!((wire.len(), &wire[..4]), (2008, &[0x82, 126, 0x07, 0xd0][..]));
        assert!(wire.ends_with(b"next"));
    }
}
