//! Listening, accepting and answering.
//!
//! | path | answer |
//! | --- | --- |
//! | `/hold?FILE` | once FILE exists |
//! | `/bytes?N` | N bytes, of which each says where it is |
//! | `/count` | how many bytes the request's body had, and whether each was right |
//! | `/given` | the descriptors, limit and environment of this process, and the PROXY header of this connection |
//! | `/notify?WORDS` | says WORDS to NOTIFY_SOCKET first |
//! | `/abort` | the head of an answer; then the connection is reset |
//! | any other | a line of text |

#![expect(
    unsafe_code,
    reason = "a descriptor that a program is started with is only a number to it"
)]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::net::AddressFamily;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use crate::script::{Place, Script, Speaks};

/// How often a file is looked for.
const GLANCE: Duration = Duration::from_millis(5);
/// How much is written or read at once, in bytes.
const PIECE: usize = 64 * 1024;

/// What every connection may see.
pub(crate) struct Facts {
    pub(crate) script: Script,
    pub(crate) draining: watch::Sender<bool>,
}

pub(crate) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// It listens and never accepts.
    Closed(#[expect(dead_code, reason = "it is held open")] TcpListener),
}

pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Listens where the script says.
pub(crate) fn open(script: &Script) -> io::Result<Vec<Door>> {
    let mut doors = Vec::new();
    for place in &script.places {
        match place {
            Place::ListenFds => {
                let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
                assert_eq!(
                    number("LISTEN_PID"),
                    Some(std::process::id()),
                    "LISTEN_PID is not ours"
                );
                for descriptor in 3..3 + number("LISTEN_FDS").expect("a number of sockets") {
                    doors.push(adopt(i32::try_from(descriptor).expect("a descriptor"))?);
                }
            }
            Place::Descriptor(descriptor) => doors.push(adopt(*descriptor)?),
            Place::Variable(name) => {
                let value = std::env::var(name).expect("the variable is set");
                doors.push(match value.parse::<u16>() {
                    Ok(port) => {
                        let host = std::env::var("HOST").expect("the host is said");
                        tcp(&format!("{host}:{port}"))?
                    }
                    Err(_) => Door::Unix(UnixListener::bind(value)?),
                });
            }
            Place::Address(address) => doors.push(tcp(address)?),
        }
    }
    if !script.accepts {
        doors = doors
            .into_iter()
            .map(|door| match door {
                Door::Tcp(listener) => Door::Closed(listener),
                other => other,
            })
            .collect();
    }
    Ok(doors)
}

/// With SO_REUSEPORT, as a server has it that takes a port beside others.
fn tcp(address: &str) -> io::Result<Door> {
    let address = address.parse().map_err(io::Error::other)?;
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(1024).map(Door::Tcp)
}

/// Takes a descriptor that this process was started with.
fn adopt(descriptor: RawFd) -> io::Result<Door> {
    // SAFETY: this process was told that the descriptor is its own, and takes each once.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    rustix::io::ioctl_fionbio(&socket, true)?;
    // As most servers do, whatever the backlog was.
    rustix::net::listen(&socket, 128)?;
    match rustix::net::sockopt::socket_domain(&socket)? {
        AddressFamily::UNIX => UnixListener::from_std(socket.into()).map(Door::Unix),
        _ => TcpListener::from_std(socket.into()).map(Door::Tcp),
    }
}

/// The next connection of any door.
pub(crate) async fn accept(doors: &mut [Door]) -> Accepted {
    std::future::poll_fn(|context| {
        for door in doors.iter() {
            let accepted = match door {
                Door::Tcp(door) => door.poll_accept(context).map_ok(|(io, _)| Accepted::Tcp(io)),
                Door::Unix(door) => door.poll_accept(context).map_ok(|(io, _)| Accepted::Unix(io)),
                Door::Closed(_) => continue,
            };
            if let Poll::Ready(Ok(accepted)) = accepted {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Serves one connection to its end.
pub(crate) async fn connection(accepted: Accepted, facts: Arc<Facts>) {
    // A client that leaves ends its connection, whatever was being done.
    let _ = match accepted {
        Accepted::Tcp(stream) => {
            let raw = stream.as_fd().try_clone_to_owned().ok();
            serve(stream, raw, &facts).await
        }
        Accepted::Unix(stream) => serve(stream, None, &facts).await,
    };
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    raw: Option<OwnedFd>,
    facts: &Facts,
) -> io::Result<()> {
    let mut connection = Connection { stream, unread: Vec::new(), proxy_header: Vec::new() };
    if facts.script.proxied {
        connection.read_proxy_header().await?;
    }
    match facts.script.speaks {
        Speaks::Echo => connection.echo().await,
        Speaks::Http => connection.requests(raw, facts).await,
    }
}

struct Connection<S> {
    stream: S,
    unread: Vec<u8>,
    proxy_header: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn echo(mut self) -> io::Result<()> {
        loop {
            let bytes = std::mem::take(&mut self.unread);
            self.stream.write_all(&bytes).await?;
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                self.stream.write_all(b"bye").await?;
                return self.stream.shutdown().await;
            }
        }
    }

    /// A line of text, or 16 bytes and as many more as these say.
    async fn read_proxy_header(&mut self) -> io::Result<()> {
        while self.unread.len() < 16 {
            self.fill().await?;
        }
        let end = if self.unread.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            16 + usize::from(u16::from_be_bytes([self.unread[14], self.unread[15]]))
        } else {
            find(&self.unread, b"\r\n").expect("a line of the PROXY protocol") + 2
        };
        while self.unread.len() < end {
            self.fill().await?;
        }
        self.proxy_header = self.unread.drain(..end).collect();
        Ok(())
    }

    async fn requests(mut self, raw: Option<OwnedFd>, facts: &Facts) -> io::Result<()> {
        let mut draining = facts.draining.subscribe();
        let mut answered = false;
        loop {
            let head = loop {
                if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                    break self.unread.drain(..end + 4).collect::<Vec<u8>>();
                }
                let idle = answered && self.unread.is_empty();
                tokio::select! {
                    read = self.stream.read_buf(&mut self.unread) => if read? == 0 { return Ok(()) },
                    _ = draining.wait_for(|draining| *draining), if idle => return Ok(()),
                }
            };
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
            let of = |name: &str| {
                head.lines().find_map(|line| {
                    let (found, value) = line.split_once(':')?;
                    found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let length = of("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            let sound = self.read_body(length).await?;
            if path == "/abort" {
                self.stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf").await?;
                self.stream.flush().await?;
                let raw = raw.expect("only TCP has resets");
                rustix::net::sockopt::set_socket_linger(&raw, Some(Duration::ZERO))?;
                return Ok(());
            }
            let body = self.body(&path, length, sound).await;
            let closes = *draining.borrow() || of("connection").is_some_and(|v| v == "close");
            self.answer(&body, closes).await?;
            if closes {
                return self.stream.shutdown().await;
            }
            answered = true;
        }
    }

    async fn body(&self, path: &str, length: usize, sound: bool) -> Vec<u8> {
        match path.split_once('?').unwrap_or((path, "")) {
            ("/hold", file) => {
                while !Path::new(file).exists() {
                    tokio::time::sleep(GLANCE).await;
                }
                b"held".to_vec()
            }
            ("/bytes", count) => (0..count.parse().expect("a number")).map(byte_at).collect(),
            ("/count", _) => format!("{length} {sound}").into_bytes(),
            ("/given", _) => given(&self.proxy_header).into_bytes(),
            ("/notify", words) => {
                crate::notify(words);
                b"said".to_vec()
            }
            _ => format!("served by {}", std::process::id()).into_bytes(),
        }
    }

    async fn read_body(&mut self, length: usize) -> io::Result<bool> {
        let (mut read, mut sound) = (0, true);
        while read < length {
            if self.unread.is_empty() {
                self.fill().await?;
            }
            let piece: Vec<u8> =
                self.unread.drain(..self.unread.len().min(length - read)).collect();
            sound &= piece.iter().enumerate().all(|(i, byte)| *byte == byte_at(read + i));
            read += piece.len();
        }
        Ok(sound)
    }

    async fn answer(&mut self, body: &[u8], closes: bool) -> io::Result<()> {
        let connection = if closes { "close" } else { "keep-alive" };
        let generation = std::env::var("HOLDFAST_GENERATION").unwrap_or_else(|_| "g0".to_owned());
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-holdfast-generation: {generation}\r\nconnection: {connection}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).await?;
        self.stream.flush().await
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.unread.reserve(PIECE);
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// What a stream of bytes has at this place, so that a loss, a repetition or a swap shows.
fn byte_at(place: usize) -> u8 {
    u8::try_from(place % 251).expect("less than 251")
}

/// What this process was given, a line each.
fn given(proxy_header: &[u8]) -> String {
    let mut text = format!("pid {}\nproxy {}\n", std::process::id(), proxy_header.escape_ascii());
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        if let Ok(target) = fs::read_link(entry.path()) {
            let number = entry.file_name();
            let _ = writeln!(text, "descriptor {} {}", number.to_string_lossy(), target.display());
        }
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let _ = writeln!(
        text,
        "limit {}",
        limit.unwrap_or_default().split_whitespace().next().unwrap_or_default()
    );
    for (index, word) in std::env::args().enumerate() {
        let _ = writeln!(text, "argument {index} {word}");
    }
    for (name, value) in std::env::vars() {
        let _ = writeln!(text, "environment {name}={value}");
    }
    text
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
