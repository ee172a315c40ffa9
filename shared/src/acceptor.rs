//! Accepting from the shared sockets, exactly while the front allows it.
//!
//! **Invariants**
//! - A connection whose `accept(2)` has happened is always handed to the caller: none is dropped
//!   by a change of stance.
//! - While the worker is not admitted, none of its pollers is registered with a shared socket: a
//!   connection neither wakes it nor waits for it. The acknowledgements to the front mean this.
//! - Running out of descriptors pauses accepting and never spins.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tracing::warn;

use crate::places::{Place, Places};
use crate::socket::{Address, ListeningSocket};
use crate::stance::Stance;

/// How long accepting pauses when the process or the machine is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts from one or more shared sockets.
#[derive(Debug)]
pub struct Acceptor {
    doors: Vec<Door>,
    /// Whose turn it is, so that a busy socket does not starve the next.
    turn: usize,
    stance: watch::Receiver<Stance>,
    registered: watch::Sender<bool>,
    places: Places,
}

/// One shared socket, and its registration while the worker is admitted.
#[derive(Debug)]
struct Door {
    socket: Arc<ListeningSocket>,
    open: Option<Listener>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    pub(crate) fn new(
        sockets: impl IntoIterator<Item = Arc<ListeningSocket>>,
        stance: watch::Receiver<Stance>,
        places: Places,
    ) -> (Self, watch::Receiver<bool>) {
        let (registered, registration) = watch::channel(false);
        let doors = sockets.into_iter().map(|socket| Door { socket, open: None }).collect();
        (Self { doors, turn: 0, stance, registered, places }, registration)
    }

    /// The next connection, or `None` once this worker will never accept again.
    ///
    /// Waits while the worker is not admitted, and while `max_connections` are open. Cancel safe.
    pub async fn accept(&mut self) -> Option<(Stream, Peer)> {
        loop {
            let stance = *self.stance.borrow_and_update();
            if !stance.accepts() {
                self.close_doors();
                if stance.is_final() {
                    // Its copies of the sockets would keep a port open that the front has closed.
                    self.doors.clear();
                    return None;
                }
                if self.stance.changed().await.is_err() {
                    return None;
                }
                continue;
            }
            let outcome = match self.open_doors() {
                Ok(()) => tokio::select! {
                    biased;
                    changed = self.stance.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return None,
                    },
                    accepted = accept_any(&self.doors, &mut self.turn, &self.places) => accepted,
                },
                Err(error) => Err(error),
            };
            match outcome {
                Ok(connection) => return Some(connection),
                Err(error) if is_exhausted(&error) => {
                    warn!(error = %error, "accepting pauses");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The connection was gone before it was accepted (accept(2), "Error handling").
                Err(error) => tracing::debug!(error = %error, "a connection ended in the queue"),
            }
        }
    }

    fn open_doors(&mut self) -> io::Result<()> {
        for door in &mut self.doors {
            if door.open.is_none() {
                door.open = Some(Listener::register(&door.socket)?);
            }
        }
        self.registered.send_if_modified(|registered| !std::mem::replace(registered, true));
        Ok(())
    }

    fn close_doors(&mut self) {
        for door in &mut self.doors {
            door.open = None;
        }
        self.registered.send_if_modified(|registered| std::mem::replace(registered, false));
    }
}

impl Listener {
    /// Registers a copy of the socket; dropping it takes the registration back.
    fn register(socket: &ListeningSocket) -> io::Result<Self> {
        let copy = socket.duplicate()?;
        match socket.address {
            Address::Tcp(_) => TcpListener::from_std(copy.into()).map(Self::Tcp),
            Address::Unix(_) => UnixListener::from_std(copy.into()).map(Self::Unix),
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Io, Peer)>> {
        Poll::Ready(Ok(match self {
            Self::Tcp(listener) => {
                let (stream, address) = ready!(listener.poll_accept(context))?;
                (Io::Tcp(stream), Peer::Tcp(address))
            }
            Self::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(context))?;
                (Io::Unix(stream), Peer::Unix)
            }
        }))
    }
}

/// The first connection any door has, once there is a place for it. A place is taken only while a
/// door is looked at: several acceptors share them.
async fn accept_any(
    doors: &[Door],
    turn: &mut usize,
    places: &Places,
) -> io::Result<(Stream, Peer)> {
    loop {
        let mut room = pin!(places.room());
        // Registered before looking, so that no departure is missed in between.
        room.as_mut().enable();
        let accepted = poll_fn(|context| match places.try_take() {
            Some(place) => poll_doors(doors, turn, context).map(|accepted| Some((accepted, place))),
            None => room.as_mut().poll(context).map(|()| None),
        });
        if let Some((accepted, place)) = accepted.await {
            let (io, peer) = accepted?;
            return Ok((Stream { io, place: Some(place) }, peer));
        }
    }
}

fn poll_doors(
    doors: &[Door],
    turn: &mut usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<(Io, Peer)>> {
    for step in 0..doors.len() {
        let index = (*turn + step) % doors.len();
        let Some(listener) = &doors[index].open else { continue };
        if let Poll::Ready(outcome) = listener.poll_accept(context) {
            *turn = index + 1;
            return Poll::Ready(outcome);
        }
    }
    Poll::Pending
}

/// Whether an `accept(2)` failed for want of descriptors or memory, which a retry at once would
/// only repeat.
fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw_os_error).is_some_and(|errno| {
        matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    })
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A client of a Unix socket: a process of this machine that may open its file.
    Unix,
}

impl Peer {
    /// Whether the client is on this machine.
    #[must_use]
    pub const fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix => true,
        }
    }
}

/// An accepted connection. It keeps its place under `max_connections` until it is dropped.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    place: Option<Place>,
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that is of this process's event loop already.
impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self { io: Io::Tcp(stream), place: None }
    }
}

/// As for TCP.
impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self { io: Io::Unix(stream), place: None }
    }
}

impl Stream {
    /// Takes a connection into this process's event loop that another one had accepted.
    ///
    /// # Errors
    /// When the descriptor is no stream socket of a kind that is listened on, or cannot be polled.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        let io = match socket_domain(&descriptor)? {
            AddressFamily::UNIX => Io::Unix(UnixStream::from_std(descriptor.into())?),
            AddressFamily::INET | AddressFamily::INET6 => {
                Io::Tcp(TcpStream::from_std(descriptor.into())?)
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no connection")),
        };
        Ok(Self { io, place: None })
    }

    /// Gives the connection a place under `max_connections`, free or not.
    pub(crate) fn seated(mut self, places: &Places) -> Self {
        self.place = Some(places.take());
        self
    }

    /// Ready when the event loop knows of anything to be read, an end or an error; else whoever polls is
    /// woken by the next such news. Reads nothing, and is no system call.
    ///
    /// # Errors
    /// When the event loop has ended.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.io {
            Io::Tcp(stream) => stream.poll_read_ready(context),
            Io::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    /// Does something that waits for what [`Self::poll_read_ready`] waits for. `WouldBlock`, of `act` or
    /// because there are no news, means that the next news wake whoever polls.
    ///
    /// # Errors
    /// Those of `act`, and `WouldBlock`.
    pub fn try_read_ready<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &self.io {
            Io::Tcp(stream) => stream.try_io(Interest::READABLE, act),
            Io::Unix(stream) => stream.try_io(Interest::READABLE, act),
        }
    }

    /// Ready when the event loop knows of room to write, or of an error; else whoever polls is woken by the next
    /// such news. Writes nothing, and is no system call.
    ///
    /// # Errors
    /// When the event loop has ended.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.io {
            Io::Tcp(stream) => stream.poll_write_ready(context),
            Io::Unix(stream) => stream.poll_write_ready(context),
        }
    }

    /// As [`Self::try_read_ready`], of what [`Self::poll_write_ready`] waits for.
    ///
    /// # Errors
    /// Those of `act`, and `WouldBlock`.
    pub fn try_write_ready<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &self.io {
            Io::Tcp(stream) => stream.try_io(Interest::WRITABLE, act),
            Io::Unix(stream) => stream.try_io(Interest::WRITABLE, act),
        }
    }

    /// Takes the connection out of the event loop, with its descriptor still non-blocking.
    ///
    /// # Errors
    /// When it cannot be deregistered.
    pub fn into_descriptor(self) -> io::Result<OwnedFd> {
        Ok(match self.io {
            Io::Tcp(stream) => stream.into_std()?.into(),
            Io::Unix(stream) => stream.into_std()?.into(),
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.io {
            Io::Tcp(stream) => stream.as_fd(),
            Io::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Tcp($stream) => $call,
            Io::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}
