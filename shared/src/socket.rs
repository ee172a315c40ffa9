//! Listening sockets: where they listen, how they are opened, which ones they are.
//!
//! **Invariants**
//! - A socket is opened once and named by its inode from then on: SO_REUSEPORT would let a second
//!   `bind` succeed beside the first, and hide that clients are split between the two.
//! - The backlog is [`BACKLOG`]: std and mio hard-code 128, and a client that overflows the queue
//!   waits a second for its SYN to be sent again (measured).
//! - Nobody calls `shutdown(2)` on one: it would end every copy of it in every process.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Mode, OFlags};
use socket2::{Domain, SockAddr, Socket, Type};

/// How many connections may wait to be accepted. The kernel caps it at `net.core.somaxconn`, 4096
/// by default (listen(2)).
pub const BACKLOG: i32 = 4096;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IPv4 or IPv6 address and port; port 0 lets the kernel choose one.
    Tcp(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
}

impl Address {
    /// Whether only this machine can reach it.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A word that was meant as an address and is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no address; write 127.0.0.1:18789, [::1]:18789 or unix:/path/to/socket")]
pub struct NotAnAddress {
    word: String,
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(word: &str) -> Result<Self, NotAnAddress> {
        let address = match word.strip_prefix("unix:") {
            Some(path) if Path::new(path).is_absolute() => Some(Self::Unix(path.into())),
            Some(_) => None,
            None => word.parse().ok().map(Self::Tcp),
        };
        address.ok_or_else(|| NotAnAddress { word: word.to_owned() })
    }
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailed {
    /// Another socket listens there already.
    #[error("{address} is in use")]
    InUse {
        /// The address asked for.
        address: Address,
    },
    /// This machine has no such address family or address.
    #[error("{address} is not available on this machine")]
    Unavailable {
        /// The address asked for.
        address: Address,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something that is no socket lies at the path.
    #[error("{} exists and is no socket; it is left alone", path.display())]
    NotASocket {
        /// The path asked for.
        path: PathBuf,
    },
    /// Any other refusal.
    #[error("could not listen on {address}")]
    Refused {
        /// The address asked for.
        address: Address,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// One listening socket.
#[derive(Debug)]
pub struct ListeningSocket {
    /// Where it listens; the port is the real one.
    pub address: Address,
    /// Its place among the sockets of this address, from 0.
    pub shard: u32,
    descriptor: OwnedFd,
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl ListeningSocket {
    /// Takes a socket that another process opened.
    #[must_use]
    pub const fn adopt(address: Address, shard: u32, descriptor: OwnedFd) -> Self {
        Self { address, shard, descriptor }
    }

    /// Opens `shards` sockets at `address`: one SO_REUSEPORT group for TCP, one socket for a path.
    ///
    /// `mode` is the file mode of a path's socket. A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// [`OpenFailed`], with the address.
    pub fn open(address: &Address, shards: u32, mode: u32) -> Result<Vec<Self>, OpenFailed> {
        match address {
            Address::Unix(path) => Ok(vec![open_unix(path, mode)?]),
            Address::Tcp(wanted) => {
                refuse_if_taken(*wanted)?;
                let mut group = Vec::new();
                // With port 0 the first socket's port is the group's.
                let mut bound = *wanted;
                for shard in 0..shards {
                    let socket = open_tcp(bound, true)?;
                    bound = local_address(&socket, bound)?;
                    group.push(Self {
                        address: Address::Tcp(bound),
                        shard,
                        descriptor: socket.into(),
                    });
                }
                Ok(group)
            }
        }
    }

    /// The socket's inode: the same in every process that holds a copy.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.descriptor)?.st_ino)
    }

    /// Sets the backlog to [`BACKLOG`] again: any holder's `listen` changes it for all (measured).
    ///
    /// # Errors
    /// Those of listen(2).
    pub fn restore_backlog(&self) -> io::Result<()> {
        Ok(rustix::net::listen(&self.descriptor, BACKLOG)?)
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }
}

/// Refuses an address that anybody listens on: without SO_REUSEPORT on this socket, no bind
/// succeeds beside a listening one (socket(7)).
fn refuse_if_taken(wanted: SocketAddr) -> Result<(), OpenFailed> {
    open_tcp(wanted, false).map(drop)
}

fn open_tcp(address: SocketAddr, reuse_port: bool) -> Result<Socket, OpenFailed> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Connections of an earlier process in TIME_WAIT do not hold the port.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        // Accepted connections inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SockAddr::from(address))?;
        if reuse_port {
            socket.listen(BACKLOG)?;
        }
        Ok(socket)
    };
    open().map_err(|source| {
        let address = Address::Tcp(address);
        match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::ADDRINUSE) => OpenFailed::InUse { address },
            Some(rustix::io::Errno::ADDRNOTAVAIL | rustix::io::Errno::AFNOSUPPORT) => {
                OpenFailed::Unavailable { address, source }
            }
            _ => OpenFailed::Refused { address, source },
        }
    })
}

fn local_address(socket: &Socket, wanted: SocketAddr) -> Result<SocketAddr, OpenFailed> {
    let address = || Address::Tcp(wanted);
    let local =
        socket.local_addr().map_err(|source| OpenFailed::Refused { address: address(), source })?;
    local.as_socket().ok_or_else(|| OpenFailed::Refused {
        address: address(),
        source: io::Error::other("the kernel gave the socket an address of another family"),
    })
}

fn open_unix(path: &Path, mode: u32) -> Result<ListeningSocket, OpenFailed> {
    let address = Address::Unix(path.to_owned());
    let refused = |source| OpenFailed::Refused { address: address.clone(), source };
    remove_if_stale(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(refused)?;
    let name = SockAddr::unix(path).map_err(refused)?;
    socket.bind(&name).map_err(refused)?;
    // Nobody can connect before `listen`, so nobody slips in under the umask's mode.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(refused)?;
    socket.listen(BACKLOG).map_err(refused)?;
    Ok(ListeningSocket { address, shard: 0, descriptor: socket.into() })
}

/// Removes a socket file that nobody listens on; refuses anything else that lies there.
fn remove_if_stale(path: &Path, address: &Address) -> Result<(), OpenFailed> {
    use std::os::unix::fs::FileTypeExt as _;
    let refused = |source| OpenFailed::Refused { address: address.clone(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(OpenFailed::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(refused)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue is somebody listening.
        Ok(_) => Err(OpenFailed::InUse { address: address.clone() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(OpenFailed::InUse { address: address.clone() })
        }
        Err(error) => Err(refused(error)),
    }
}

/// Removes a socket's file when its owner is dropped, if it is still that owner's file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Held open, so that its inode number is not given to another file meanwhile.
    file: OwnedFd,
}

impl SocketFile {
    /// Takes charge of the socket file at `path`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn own(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, file })
    }

    /// Whether it is the file at this path.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        self.path == path
    }

    fn is_still_ours(&self) -> io::Result<bool> {
        let ours = rustix::fs::fstat(&self.file)?;
        let there = rustix::fs::lstat(&self.path)?;
        Ok((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_still_ours().unwrap_or(false) {
            // A file that stays behind is replaced by the next owner.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn loopback() -> Address {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for word in ["127.0.0.1:18789", "[::1]:18789", "0.0.0.0:80", "unix:/run/x.sock"] {
            assert_eq!(word.parse::<Address>().unwrap().to_string(), word);
        }
        for word in ["", "18789", "localhost:80", "127.0.0.1", "unix:", "unix:relative"] {
            assert!(word.parse::<Address>().is_err(), "{word}");
        }
    }

    #[test]
    fn the_shards_of_an_address_share_its_port_and_have_their_own_inodes() {
        let group = ListeningSocket::open(&loopback(), 3, 0o600).unwrap();
        assert_eq!(group.len(), 3);
        let mut inodes: Vec<_> = group.iter().map(|s| s.inode().unwrap()).collect();
        inodes.sort_unstable();
        inodes.dedup();
        assert_eq!(inodes.len(), 3);
        assert!(group.iter().all(|s| s.address == group[0].address));
    }

    #[test]
    fn an_address_with_a_listener_is_refused_even_if_that_one_would_share_its_port() {
        let first = ListeningSocket::open(&loopback(), 1, 0o600).unwrap();
        let second = ListeningSocket::open(&first[0].address, 1, 0o600);
        assert!(matches!(second, Err(OpenFailed::InUse { .. })), "{second:?}");
    }

    #[test]
    fn a_stale_socket_file_is_replaced_a_live_one_and_a_plain_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let address = Address::Unix(path.clone());
        let first = ListeningSocket::open(&address, 1, 0o640).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let second = ListeningSocket::open(&address, 1, 0o600);
        assert!(matches!(second, Err(OpenFailed::InUse { .. })), "{second:?}");
        drop(first);
        ListeningSocket::open(&address, 1, 0o600).unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "precious").unwrap();
        let third = ListeningSocket::open(&Address::Unix(plain.clone()), 1, 0o600);
        assert!(matches!(third, Err(OpenFailed::NotASocket { .. })), "{third:?}");
        assert_eq!(std::fs::read_to_string(plain).unwrap(), "precious");
    }

    #[test]
    fn a_socket_file_is_removed_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let address = Address::Unix(path.clone());
        let socket = ListeningSocket::open(&address, 1, 0o600).unwrap();
        let owner = SocketFile::own(path.clone()).unwrap();
        drop(socket);
        let _successor = ListeningSocket::open(&address, 1, 0o600).unwrap();
        drop(owner);
        assert!(path.exists(), "the first owner removed the second one's file");
        drop(SocketFile::own(path.clone()).unwrap());
        assert!(!path.exists());
    }
}
