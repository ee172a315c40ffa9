//! A closed loop of calls over WebSockets: so many connections, each with one call under way.
//!
//! An answer is told from an event by how it begins, and nothing is parsed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use holdfast_tests::rig::TOKEN;
use holdfast_tests::rig::moving::{Part, UPGRADE, call, connect_call, frame};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::closed_loop::{Client, THREADS};

/// How many connections there are.
pub(crate) const CONNECTIONS: usize = THREADS * Calling::PER_THREAD;
/// How every answer begins that is none of an event.
const ANSWER: &[u8] = b"{\"type\":\"res\"";

/// A connection that has connected.
pub(crate) struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Where in the buffer the next frame begins.
    next: usize,
}

impl Caller {
    /// From TCP's connect to `hello-ok`.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut caller = Self { stream, buffer: vec![0; 64 * 1024], filled: 0, next: 0 };
        caller.stream.write_all(UPGRADE).await?;
        loop {
            let head = caller.buffer[..caller.filled].windows(4).position(|at| at == b"\r\n\r\n");
            if let Some(end) = head {
                caller.next = end + 4;
                break;
            }
            caller.read().await?;
        }
        // The challenge: a backend with the shared token has nothing to sign.
        caller.frame().await?;
        caller.stream.write_all(&frame(Part::Text, connect_call((4, 4), TOKEN))).await?;
        caller.answer().await?;
        Ok(caller)
    }

    /// Sends these bytes and ends with their answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.answer().await
    }

    /// Ends with the next answer; events are passed over.
    async fn answer(&mut self) -> io::Result<()> {
        loop {
            let (begin, end) = self.frame().await?;
            let text = &self.buffer[begin..end];
            if text.starts_with(ANSWER) {
                let well = text.windows(9).any(|part| part == b"\"ok\":true");
                return if well { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
        }
    }

    /// Where in the buffer the payload of the next text lies.
    async fn frame(&mut self) -> io::Result<(usize, usize)> {
        loop {
            let seen = &self.buffer[self.next..self.filled];
            let head = match seen {
                [_, 126, a, b, ..] => Some((4, usize::from(u16::from_be_bytes([*a, *b])))),
                [_, length @ 0..=125, ..] => Some((2, usize::from(*length))),
                // Longer than any answer here, or not there yet.
                [_, 127..=255, ..] => return Err(io::ErrorKind::InvalidData.into()),
                _ => None,
            };
            if let Some((head, length)) = head
                && seen.len() >= head + length
            {
                let (first, begin) = (seen[0], self.next + head);
                self.next = begin + length;
                match first {
                    0x81 => return Ok((begin, self.next)),
                    // A ping may wait: no loop is as long as a worker's patience.
                    0x89 => continue,
                    _ => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.next == self.filled {
            (self.next, self.filled) = (0, 0);
        } else if self.filled == self.buffer.len() {
            self.buffer.copy_within(self.next..self.filled, 0);
            (self.next, self.filled) = (0, self.filled - self.next);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

/// A client that calls one method, again and again.
pub(crate) struct Calling {
    caller: Caller,
    request: Vec<u8>,
}

impl Client for Calling {
    type Plan = &'static str;

    const PER_THREAD: usize = 32;
    const WARM_UP: Duration = Duration::from_millis(500);

    async fn open(address: SocketAddr, method: &'static str) -> io::Result<Self> {
        let request = frame(Part::Text, call("1", method, json!({})));
        Ok(Self { caller: Caller::connect(address).await?, request })
    }

    async fn exchange(&mut self) -> io::Result<()> {
        self.caller.exchange(&self.request).await
    }
}
