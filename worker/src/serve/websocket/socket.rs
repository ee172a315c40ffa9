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
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use handoff::Stream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::farewell::Close;
use super::meter::Meter;
use crate::serve::connection::linger;

/// The largest message before a client has connected, in bytes.
pub(super) const MAX_FIRST_MESSAGE: usize = 64 * 1024;
/// The largest message afterwards, in bytes.
pub(super) const MAX_MESSAGE: usize = 25 * 1024 * 1024;
/// tungstenite's own default of 128 KiB would be 1.3 GB for 10,000 connections (measured).
const READ_BUFFER: usize = 4 * 1024;
/// Written out as soon as this much is queued, in bytes.
const WRITE_BUFFER: usize = 16 * 1024;
/// How long a client may take to answer our close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    inner: WebSocketStream<Meter>,
    /// How much was ever queued, in bytes, as [`Meter::written`] counts what left.
    queued: u64,
    max_buffered: u64,
    flushed: Flushed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    Yes,
    NotYet,
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
}

/// The client does not fetch what is queued for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlowConsumer;

impl Socket {
    /// The WebSocket of an upgraded connection, with what was read of it already.
    pub(super) async fn new(stream: Stream, unread: Bytes, max_buffered: u64) -> Self {
        // The header of a frame and what is read ahead come on top.
        let allowance = (MAX_FIRST_MESSAGE + READ_BUFFER).saturating_sub(unread.len());
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let inner = WebSocketStream::from_partially_read(
            Meter::new(stream, allowance),
            unread.into(),
            Role::Server,
            Some(config),
        )
        .await;
        Self { inner, queued: 0, max_buffered, flushed: Flushed::Yes }
    }

    /// The client has connected: it may send messages up to [`MAX_MESSAGE`].
    pub(super) fn trust(&mut self) {
        self.inner.get_mut().lift();
    }

    /// Queues a message; [`Self::hear`] sends it.
    ///
    /// # Errors
    /// [`SlowConsumer`] when too much would be queued.
    pub(super) fn say(&mut self, message: String) -> Result<(), SlowConsumer> {
        let backlog = self.queued.saturating_sub(self.inner.get_ref().written());
        if backlog + message.len() as u64 > self.max_buffered {
            return Err(SlowConsumer);
        }
        self.queued += message.len() as u64;
        self.queue(Message::text(message));
        Ok(())
    }

    /// Queues a ping.
    pub(super) fn ping(&mut self) {
        self.queue(Message::Ping(Bytes::new()));
    }

    fn queue(&mut self, message: Message) {
        // A connection that is broken says so at the next read; a queued message needs no readiness.
        let _ = Pin::new(&mut self.inner).start_send(message);
        self.flushed = Flushed::NotYet;
    }

    /// The next message, while everything queued is being sent. Cancel safe.
    pub(super) async fn hear(&mut self) -> Heard {
        poll_fn(|context| self.poll_hear(context)).await
    }

    fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        loop {
            return Poll::Ready(match Pin::new(&mut self.inner).poll_next(context) {
                Poll::Ready(Some(Ok(Message::Text(text)))) => Heard::Text(text),
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => match Utf8Bytes::try_from(bytes) {
                    Ok(text) => Heard::Text(text),
                    Err(_) => Heard::Wrong(Close::NOT_UTF8),
                },
                // tungstenite answers pings and closes by itself, at the next read.
                Poll::Ready(Some(Ok(_))) => continue,
                Poll::Ready(Some(Err(error))) => what_is_wrong(&error),
                Poll::Ready(None) => Heard::Gone,
                // Only when nothing more is there to be answered, so that answers leave together.
                Poll::Pending => match self.poll_flush(context) {
                    Poll::Ready(Err(_)) => Heard::Gone,
                    Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                },
            });
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), tungstenite::Error>> {
        if self.flushed == Flushed::Yes {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.flushed = Flushed::Yes;
            // Frame headers and pongs are written too, and would be taken for messages in time.
            self.queued = self.inner.get_ref().written();
        }
        flushed
    }

    /// Closes: sends what is queued and the close, waits for the client's, for a while.
    pub(super) async fn close(mut self, close: &Close) {
        self.queue(Message::Close(Some(CloseFrame {
            code: close.code().into(),
            reason: close.reason().into(),
        })));
        let farewell = async {
            poll_fn(|context| self.poll_flush(context)).await?;
            // What a client says after our close has no meaning any more.
            while !matches!(self.hear().await, Heard::Gone | Heard::Wrong(_)) {}
            Ok::<(), tungstenite::Error>(())
        };
        // A client that does not answer has been told all the same.
        if let Ok(Ok(())) = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await {
            linger(self.inner.into_inner().into_stream()).await;
        }
    }
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
