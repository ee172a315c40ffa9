//! A closed loop of small HTTP requests, over connections that are kept or over a new one each time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::closed_loop::{Client, THREADS};

/// How many connections there are at a time.
pub(crate) const CONNECTIONS: usize = THREADS * Visitor::PER_THREAD;

/// Whether a connection is used for one request or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    KeepAlive,
    NewConnections,
}

impl Reuse {
    const fn request(self) -> &'static [u8] {
        match self {
            Self::KeepAlive => b"GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n",
            Self::NewConnections => {
                b"GET /healthz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
            }
        }
    }
}

/// A client over HTTP.
pub(crate) struct Visitor {
    address: SocketAddr,
    reuse: Reuse,
    /// What is used for the next request.
    kept: Option<Connection>,
}

impl Client for Visitor {
    type Plan = Reuse;

    const PER_THREAD: usize = 16;
    const WARM_UP: Duration = Duration::from_millis(50);

    async fn open(address: SocketAddr, reuse: Reuse) -> io::Result<Self> {
        Ok(Self { address, reuse, kept: None })
    }

    async fn exchange(&mut self) -> io::Result<()> {
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => Connection::open(self.address).await?,
        };
        connection.exchange(self.reuse.request()).await?;
        match self.reuse {
            Reuse::KeepAlive => self.kept = Some(connection),
            Reuse::NewConnections => connection.end().await?,
        }
        Ok(())
    }
}

/// A connection on which every answer is as long as the first.
struct Connection {
    stream: TcpStream,
    buffer: [u8; 2048],
    /// How long an answer is, once one has come.
    length: Option<usize>,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: [0; 2048], length: None })
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let answer = &self.buffer[..filled];
            self.length = self.length.or_else(|| length_of(answer));
            if self.length == Some(filled) {
                return if answer.starts_with(b"HTTP/1.1 200 ") {
                    Ok(())
                } else {
                    Err(io::ErrorKind::InvalidData.into())
                };
            }
        }
    }

    /// Lets the server close first: it is the one that said it would.
    async fn end(&mut self) -> io::Result<()> {
        match self.stream.read(&mut self.buffer).await? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// How long the answer is that begins with these bytes, if its head is whole.
fn length_of(answer: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head.len() + 4 + length.parse::<usize>().ok()?)
}
