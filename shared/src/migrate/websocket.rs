//! A WebSocket that can be frozen at any byte and thawed in another process.
//!
//! ```text
//! accept ─► feed, next, flush … ─► freeze ─► Frozen { io, read, unsent } ─► thaw ─► feed, next, …
//!                                  │ not movable: the same WebSocket, and why
//! ```
//!
//! The client sends and receives the same bytes as if nothing had happened: what tungstenite had read
//! but not returned is read again, what it had not sent is sent first. Bytes in the kernel stay there.
//!
//! **Invariants**
//! - A message that [`MovableWebSocket::next`] returned is never returned again, any other is
//!   returned after the move; a pong is owed by exactly one side.
//! - What was queued before a freeze leaves before what is queued after it.
//! - After a close frame, either way, nothing moves.

use std::fmt;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
/// The WebSocket library whose messages, errors and settings are spoken of here.
pub use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::journal_io::JournalIo;
pub use super::journal_io::MAX_JOURNAL;

/// The server's side of a WebSocket without extensions, over any stream.
///
/// It is quiet about time: deadlines, pings and how much may be queued are the caller's.
pub struct MovableWebSocket<S> {
    inner: WebSocketStream<JournalIo<S>>,
    life: Life,
    flushed: Flushed,
    /// How much was ever queued, in bytes, as [`JournalIo::written`] counts what left.
    queued: u64,
}

/// A WebSocket at rest. Its parts may cross to another process in any way.
pub struct Frozen<S> {
    /// The connection; whoever holds this holds it alone.
    pub io: S,
    /// What was read of it and must be read again, before it: at most [`MAX_JOURNAL`] bytes, or what
    /// came along when it was accepted.
    pub read: Vec<u8>,
    /// What must be sent before anything else, in bytes as they go over the wire.
    pub unsent: Vec<u8>,
}

/// Why a WebSocket stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMovable {
    /// A close frame was queued, or received.
    #[error("it is closing")]
    Closing,
    /// Its stream ended, failed, or broke the protocol.
    #[error("it has ended")]
    Ended,
    /// Too much of a message has come that is not whole yet. It is movable after that message.
    #[error("more than {MAX_JOURNAL} bytes of a message have come that is not whole yet")]
    MessageTooLarge,
    /// What was read and what was returned do not match; never seen.
    #[error("its bytes could not be matched with its messages")]
    Untraceable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    Closing,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    Yes,
    NotYet,
}

impl<S: AsyncRead + AsyncWrite + Unpin> MovableWebSocket<S> {
    /// The WebSocket of a connection that was just upgraded; `unread` is what came with the upgrade.
    ///
    /// `config` should have a small `read_buffer_size`: it is held by every connection, idle or not.
    ///
    /// # Panics
    /// As tungstenite does, when `max_write_buffer_size` is not above `write_buffer_size`.
    #[must_use]
    pub fn accept(io: S, unread: Bytes, config: WebSocketConfig) -> Self {
        Self::thaw(Frozen { io, read: unread.into(), unsent: Vec::new() }, config)
    }

    /// Goes on with a frozen WebSocket. `config` must allow what it allowed before.
    ///
    /// # Panics
    /// As tungstenite does, when `max_write_buffer_size` is not above `write_buffer_size`.
    #[must_use]
    pub fn thaw(frozen: Frozen<S>, config: WebSocketConfig) -> Self {
        let queued = frozen.unsent.len() as u64;
        let io = JournalIo::new(frozen.io, frozen.read, frozen.unsent);
        let made = pin!(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)));
        let Poll::Ready(inner) = made.poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("without a handshake there is nothing to wait for");
        };
        let flushed = if queued == 0 { Flushed::Yes } else { Flushed::NotYet };
        Self { inner, life: Life::Open, flushed, queued }
    }

    /// Whether it could be frozen now.
    ///
    /// # Errors
    /// Why it could not.
    pub fn is_movable(&self) -> Result<(), NotMovable> {
        match self.life {
            Life::Open => self.inner.get_ref().is_movable(),
            Life::Closing => Err(NotMovable::Closing),
            Life::Ended => Err(NotMovable::Ended),
        }
    }

    /// Stops it where it is. Waits for nobody, neither reads nor writes the connection.
    ///
    /// # Errors
    /// Itself, unharmed, and why it is not movable.
    #[expect(clippy::result_large_err, reason = "it goes on where it was, which is the rule")]
    pub fn freeze(mut self) -> Result<Frozen<S>, (Self, NotMovable)> {
        if let Err(reason) = self.is_movable() {
            return Err((self, reason));
        }
        self.inner.get_mut().spill();
        // Twice: a pong that did not fit under `max_write_buffer_size` is only queued by the first.
        for _ in 0..2 {
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(())) = Pin::new(&mut self.inner).poll_flush(&mut context) else {
                // Memory takes everything at once, so this is tungstenite giving up.
                self.inner.get_mut().stop_spilling();
                self.flushed = Flushed::NotYet;
                self.life = Life::Ended;
                return Err((self, NotMovable::Ended));
            };
        }
        let (io, read, unsent) = self.inner.into_inner().into_parts();
        Ok(Frozen { io, read, unsent })
    }

    /// The next message, while everything queued is being sent; `None` at the end.
    ///
    /// Pings and closes are answered by themselves, and returned. Cancel safe: no message is lost.
    ///
    /// # Errors
    /// tungstenite's. There is no message after one.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|context| {
            let next = self.poll_next(context);
            match &next {
                Poll::Ready(Some(Ok(_))) => next,
                // Only when nothing more is there to be answered, so that answers leave together.
                Poll::Pending => match self.poll_flush(context) {
                    Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
                    Poll::Ready(Ok(())) | Poll::Pending => next,
                },
                // A client that has sent its last byte may still read; how it ended is said already.
                Poll::Ready(None | Some(Err(_))) => {
                    let _ = self.poll_flush(context);
                    next
                }
            }
        })
        .await
    }

    /// As [`Self::next`], but sends no more than pongs.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        let next = Pin::new(&mut self.inner).poll_next(context);
        match &next {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(message))) => {
                self.inner.get_mut().commit();
                match message {
                    // The answer waits in tungstenite until the next read or flush.
                    Message::Ping(payload) => self.expect_to_send(payload.len()),
                    Message::Close(_) => {
                        self.expect_to_send(message.len() + CLOSE_CODE);
                        self.close_begun();
                    }
                    Message::Text(_)
                    | Message::Binary(_)
                    | Message::Pong(_)
                    | Message::Frame(_) => {}
                }
            }
            Poll::Ready(None | Some(Err(_))) => self.life = Life::Ended,
        }
        next
    }

    /// Queues a message and waits for nobody; [`Self::next`] or [`Self::poll_flush`] sends it.
    ///
    /// The bound is the caller's: see [`Self::backlog`].
    ///
    /// # Errors
    /// tungstenite's, when the connection is closing or broken. A broken one also says so at the next
    /// read.
    pub fn feed(&mut self, message: Message) -> Result<(), Error> {
        let closes = message.is_close();
        let message = match self.past_tungstenite(message) {
            Ok(()) => return Ok(()),
            Err(message) => message,
        };
        self.expect_to_send(message.len() + if closes { CLOSE_CODE } else { 0 });
        let outcome = Pin::new(&mut self.inner).start_send(message);
        match &outcome {
            Ok(()) | Err(Error::WriteBufferFull(_)) => {}
            Err(_) => self.life = Life::Ended,
        }
        if closes {
            self.close_begun();
        }
        outcome
    }

    /// Queues a message and sends everything queued. When it is cancelled, the message stays queued.
    ///
    /// # Errors
    /// tungstenite's.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.feed(message)?;
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Sends everything queued; at once when nothing is.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.flushed == Flushed::Yes {
            return Poll::Ready(Ok(()));
        }
        let mut flushed = Pin::new(&mut self.inner).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            // After its end tungstenite does not ask the stream to flush.
            flushed = Pin::new(self.inner.get_mut()).poll_flush(context).map_err(Error::Io);
        }
        match &flushed {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                self.flushed = Flushed::Yes;
                self.queued = self.inner.get_ref().written();
            }
            Poll::Ready(Err(_)) => self.life = Life::Ended,
        }
        flushed
    }

    /// How many bytes are queued that the kernel has not taken: never too few, and exact where nobody
    /// sends pongs by hand.
    pub fn backlog(&self) -> u64 {
        self.queued.saturating_sub(self.inner.get_ref().written())
    }

    /// The connection. Only to ask about it: it is read and written here.
    pub fn get_ref(&self) -> &S {
        self.inner.get_ref().get_ref()
    }

    /// The connection. Only to set something about it: it is read and written here.
    pub fn get_mut(&mut self) -> &mut S {
        self.inner.get_mut().get_mut()
    }

    /// The connection alone. Everything read, queued or half-way is lost: this is for its end.
    pub fn into_inner(self) -> S {
        self.inner.into_inner().into_parts().0
    }

    /// Queues a message below tungstenite, which would hold room for it as long as the connection lasts; or
    /// gives it back, when something is queued above or it is not of that size.
    fn past_tungstenite(&mut self, message: Message) -> Result<(), Message> {
        let size = message.len();
        let most = self.inner.get_config().max_write_buffer_size;
        let is_quiet = self.life == Life::Open && self.flushed == Flushed::Yes;
        if !is_quiet || !PAST_TUNGSTENITE.contains(&size) || size + LONGEST_HEADER > most {
            return Err(message);
        }
        let frame = match message {
            Message::Text(text) => Frame::message(text, OpCode::Data(Data::Text), true),
            Message::Binary(bytes) => Frame::message(bytes, OpCode::Data(Data::Binary), true),
            other => return Err(other),
        };
        self.expect_to_send(size);
        self.inner.get_mut().send_first(frame);
        Ok(())
    }

    fn expect_to_send(&mut self, payload: usize) {
        let header = match payload {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => LONGEST_HEADER,
        };
        self.queued += (header + payload) as u64;
        self.flushed = Flushed::NotYet;
    }

    fn close_begun(&mut self) {
        if self.life == Life::Open {
            self.life = Life::Closing;
        }
    }
}

/// The size of a close frame's code, which [`Message::len`] leaves out, in bytes.
const CLOSE_CODE: usize = 2;
/// The longest header of a frame of ours, in bytes (RFC 6455, 5.2).
const LONGEST_HEADER: usize = 10;
/// Messages that are too large to hold room for, and not so large that room anew each time would be slow, in
/// bytes.
const PAST_TUNGSTENITE: RangeInclusive<usize> = 1024..=64 * 1024;

// What clients say is not for logs: only sizes are shown.
impl<S> fmt::Debug for Frozen<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen")
            .field("read", &self.read.len())
            .field("unsent", &self.unsent.len())
            .finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for MovableWebSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MovableWebSocket")
            .field("life", &self.life)
            .field("flushed", &self.flushed)
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn messages_leave_in_their_order_whatever_their_size_and_all_of_them_travel() {
        let sizes = [2000, 3, 2000, 70_000, 1024, 65_536];
        let wire = |flushed_after: &[usize]| {
            let config = WebSocketConfig::default().write_buffer_size(16 * 1024);
            let io = Cursor::new(Vec::new());
            let mut websocket = MovableWebSocket::accept(io, Bytes::new(), config);
            for (index, size) in sizes.into_iter().enumerate() {
                let payload = vec![u8::try_from(index).unwrap(); size];
                websocket.feed(Message::binary(payload)).unwrap();
                if flushed_after.contains(&index) {
                    let mut context = Context::from_waker(Waker::noop());
                    assert!(websocket.poll_flush(&mut context).is_ready());
                    assert_eq!(websocket.backlog(), 0);
                }
            }
            let backlog = websocket.backlog();
            let Frozen { io, unsent, .. } = websocket.freeze().map_err(|(_, why)| why).unwrap();
            assert_eq!(unsent.len() as u64, backlog);
            [io.into_inner(), unsent].concat()
        };
        let expected = wire(&[]);
        assert_eq!(expected.len(), sizes.iter().sum::<usize>() + 3 * 4 + 2 + 2 * 10);
        for flushed_after in [&[0][..], &[0, 1], &[2], &[1, 3, 4], &[0, 1, 2, 3, 4, 5]] {
            assert!(wire(flushed_after) == expected, "flushed after {flushed_after:?}");
        }
    }
}
