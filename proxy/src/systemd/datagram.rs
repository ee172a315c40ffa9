//! One message to the service manager: a datagram to the socket that NOTIFY_SOCKET names.
//!
//! **Invariants**
//! - A message is sent at once or not at all.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use handoff::fd_passing;

/// Where messages go.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    address: SocketAddr,
}

impl Destination {
    /// `/run/systemd/notify`, or `@name` for an abstract one (unix(7)).
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn named(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let reason = format!("NOTIFY_SOCKET is neither a path nor abstract: {name:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
        };
        Ok(Self { address })
    }

    /// Sends assignments, one a line, and descriptors.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full, and those of socket(2), connect(2) and sendmsg(2).
    pub(super) fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.address)?;
        fd_passing::send(&socket, text.as_bytes(), descriptors)
    }
}
