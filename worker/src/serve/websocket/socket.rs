//! A WebSocket of text messages: reads and writes in one task, and never waits for a client that
//! does not read.
//!
//! **Invariants**
//! - What is queued is bounded; who does not fetch it in time is a slow consumer.
//! - A close frame can be queued at any time: the bound is kept here and not in tungstenite, whose own
//!   bound would refuse that too.
//! - Nothing is lost when [`Socket::hear`] is dropped half-way.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use handoff::Stream;
use handoff::migrate::Seat;
use handoff::migrate::websocket::{self, MovableWebSocket, tungstenite};
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Message, Utf8Bytes};

use super::allowance::Allowance;
use super::farewell::Close;
use crate::serve::connection::linger;
use crate::serve::moving::{Carried, may_carry};

/// The largest message before a client has connected, in bytes.
pub(super) const MAX_FIRST_MESSAGE: usize = 64 * 1024;
/// The largest message afterwards, in bytes.
pub(super) const MAX_MESSAGE: usize = 25 * 1024 * 1024;
/// tungstenite's own default of 128 KiB would be 1.3 GB for 10,000 connections (measured). More is read at
/// once into room that is only lent, see the journal below it.
const READ_BUFFER: usize = 1024;
/// What a client that has not connected may send beyond its message, in bytes: a frame's header, and what
/// it says next without waiting.
const READ_AHEAD: usize = 4 * 1024;
/// Written out as soon as this much is queued, in bytes.
const WRITE_BUFFER: usize = 16 * 1024;
/// How long a client may take to answer our close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    inner: MovableWebSocket<Allowance>,
    max_buffered: u64,
}

/// What came from the client.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message.
    Text(Utf8Bytes),
    /// The client has closed, or is gone.
    Gone,
    /// Something this protocol does not allow.
    Wrong(Close),
    /// Nothing: the connection is to go on elsewhere, from here.
    Wanted,
}

/// The client does not fetch what is queued for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlowConsumer;

impl Socket {
    /// The WebSocket of an upgraded connection, with what was read of it already.
    pub(super) fn new(stream: Stream, unread: Bytes, max_buffered: u64) -> Self {
        let allowance = (MAX_FIRST_MESSAGE + READ_AHEAD).saturating_sub(unread.len());
        let io = Allowance::new(stream, Some(allowance));
        Self { inner: MovableWebSocket::accept(io, unread, config()), max_buffered }
    }

    /// The WebSocket of a connection that came from another generation; `allowance` as
    /// [`Self::allowance`] told it there.
    pub(super) fn thaw(
        stream: Stream,
        Carried { read, unsent }: Carried,
        allowance: Option<usize>,
        max_buffered: u64,
    ) -> Self {
        let frozen = websocket::Frozen { io: Allowance::new(stream, allowance), read, unsent };
        Self { inner: MovableWebSocket::thaw(frozen, config()), max_buffered }
    }

    /// Whether it could move now: not in its close, not in the middle of a message larger than
    /// what travels, and not with more unsent than that.
    fn is_movable(&self) -> bool {
        self.inner.is_movable().is_ok() && may_carry(self.inner.backlog())
    }

    /// Stops it where it is: the connection, and what is unread and unsent of it.
    ///
    /// # Errors
    /// Itself, when it cannot move after all.
    #[expect(clippy::result_large_err, reason = "it goes on where it was, which is the rule")]
    pub(super) fn freeze(self) -> Result<(Stream, Carried), Self> {
        let Self { inner, max_buffered } = self;
        match inner.freeze() {
            Ok(websocket::Frozen { io, read, unsent }) => {
                Ok((io.into_stream(), Carried { read, unsent }))
            }
            Err((inner, _)) => Err(Self { inner, max_buffered }),
        }
    }

    /// The client has connected: it may send messages up to [`MAX_MESSAGE`].
    pub(super) fn trust(&mut self) {
        self.inner.get_mut().lift();
    }

    /// How much more a client that has not connected may send, in bytes.
    pub(super) fn allowance(&self) -> usize {
        self.inner.get_ref().left().unwrap_or_default()
    }

    /// Queues a message; [`Self::hear`] sends it.
    ///
    /// # Errors
    /// [`SlowConsumer`] when too much would be queued.
    pub(super) fn say(&mut self, message: String) -> Result<(), SlowConsumer> {
        if self.inner.backlog() + message.len() as u64 > self.max_buffered {
            return Err(SlowConsumer);
        }
        self.queue(Message::text(message));
        Ok(())
    }

    /// Queues a ping.
    pub(super) fn ping(&mut self) {
        self.queue(Message::Ping(Bytes::new()));
    }

    fn queue(&mut self, message: Message) {
        // A connection that is broken says so at the next read.
        let _ = self.inner.feed(message);
    }

    /// What comes next, while everything queued is being sent: a message, or that the connection is to
    /// move and can. Cancel safe.
    pub(super) async fn hear(&mut self, berth: Option<&Seat>) -> Heard {
        poll_fn(|context| {
            if let Some(berth) = berth
                && berth.poll_wanted(context).is_ready()
            {
                if self.is_movable() {
                    return Poll::Ready(Heard::Wanted);
                }
                // Looked at again whenever something has come or left.
                berth.busy();
            }
            self.poll_hear(context)
        })
        .await
    }

    fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        loop {
            // Cancel safe, so that it may be begun anew at each poll.
            return Poll::Ready(match ready!(pin!(self.inner.next()).poll(context)) {
                Some(Ok(Message::Text(text))) => Heard::Text(text),
                Some(Ok(Message::Binary(bytes))) => match Utf8Bytes::try_from(bytes) {
                    Ok(text) => Heard::Text(text),
                    Err(_) => Heard::Wrong(Close::NOT_UTF8),
                },
                // Pings and closes are answered by themselves, at the next read.
                Some(Ok(_)) => continue,
                Some(Err(error)) => what_is_wrong(&error),
                None => Heard::Gone,
            });
        }
    }

    /// Closes: sends what is queued and the close, waits for the client's, for a while.
    pub(super) async fn close(mut self, close: &Close) {
        self.queue(Message::Close(Some(CloseFrame {
            code: close.code().into(),
            reason: close.reason().into(),
        })));
        let farewell = async {
            poll_fn(|context| self.inner.poll_flush(context)).await?;
            // What a client says after our close has no meaning any more.
            while !matches!(self.hear(None).await, Heard::Gone | Heard::Wrong(_)) {}
            Ok::<(), tungstenite::Error>(())
        };
        // A client that does not answer has been told all the same.
        if let Ok(Ok(())) = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await {
            linger(self.inner.into_inner().into_stream()).await;
        }
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

fn what_is_wrong(error: &tungstenite::Error) -> Heard {
    match error {
        tungstenite::Error::Capacity(_) => Heard::Wrong(Close::TOO_LARGE),
        tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
            Heard::Wrong(Close::TOO_LARGE_TOO_EARLY)
        }
        tungstenite::Error::Utf8(_) => Heard::Wrong(Close::NOT_UTF8),
        tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => Heard::Gone,
        tungstenite::Error::Protocol(_) => Heard::Wrong(Close::NOT_WEBSOCKET),
        _ => Heard::Gone,
    }
}
