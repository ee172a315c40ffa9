//! How a front that is started anew finds the workers of one that died, and what they say to one another then.
//!
//! ```text
//! front (killed)         worker g7                      next front
//!   │ Hello{rescue} ───────►│ binds RESCUE/g7.sock          │
//!   ✕  end of the link ····►│ serves on, and accepts there  │
//!                           │◄────────────── connect, Rescue │
//!                           │ Rescued + listening sockets ─►│
//!                           │◄═ the connection is the link ═►│
//! ```
//!
//! **Invariants**
//! - A worker accepts there only once the link to its front has ended; until then a caller waits in the socket's queue. So
//!   there is one front at a time, and none that lives can be pushed aside.
//! - Whoever calls is of the worker's user or root, and whoever answers is of the user whose workers the front has
//!   started: the kernel says so (SO_PEERCRED, unix(7)).
//! - A connection that breaks before it is the link costs nothing: the worker waits for the next one.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::link::Link;
use crate::message::{Drain, GenerationId, SocketEntry, ToWorker};
use crate::socket::SocketFile;

/// How long a caller of a rescue socket may take to say what it wants.
const CALLER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many callers may wait there: fronts that died before they were answered are among them.
const BACKLOG: i32 = 64;

/// What the next front says first over a rescue socket, answered by [`Rescued`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescue {
    /// The version of the link's protocol that it will speak.
    pub protocol: u32,
}

/// What a worker is, for a front that knows nothing of it. Its listening sockets are attached, unless it will never
/// accept again and has let go of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescued {
    /// The generation it is.
    pub generation: GenerationId,
    /// How long it has lived, in ms.
    pub age_ms: u64,
    /// What it was last told to do.
    pub standing: Standing,
    /// The epoch under which it may write schedules, while it may.
    #[serde(default)]
    pub lease: Option<u64>,
    /// The latest epoch it was ever granted.
    #[serde(default)]
    pub latest_epoch: u64,
    /// One entry per attached descriptor, in the same order.
    pub sockets: Vec<SocketEntry>,
    /// As in [`crate::message::Ready`].
    #[serde(default)]
    pub hears_of_orphans: bool,
    /// As in [`crate::message::Ready`].
    #[serde(default)]
    pub stops_only_by_draining: bool,
    /// The generation whose connections come here and that is not known to be gone.
    #[serde(default)]
    pub incumbent: Option<Incumbent>,
}

/// What a worker was last told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// To accept.
    Admitted,
    /// To accept nothing more, and keep what is open.
    Stopped,
    /// To finish, within what is left of its time.
    Draining(Drain),
}

impl Standing {
    /// The word for it in logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Stopped => "stopped",
            Self::Draining(_) => "draining",
        }
    }

    /// Whether it will never be admitted again.
    #[must_use]
    pub const fn is_draining(self) -> bool {
        matches!(self, Self::Draining(_))
    }
}

/// The generation whose connections come to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incumbent {
    /// Who it is.
    pub generation: GenerationId,
    /// Whether the link between the two stands.
    pub linked: bool,
}

/// Where this generation is found below the directory of rescue sockets.
#[must_use]
pub fn socket_path(directory: &Path, generation: GenerationId) -> PathBuf {
    directory.join(format!("{generation}.sock"))
}

/// The generation that a rescue socket's file is of; `None` for any other file.
#[must_use]
pub fn generation_of(path: &Path) -> Option<GenerationId> {
    path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok()
}

/// Calls a worker by its rescue socket, and says who listens there.
///
/// # Errors
/// `ConnectionRefused` and `NotFound` when nobody does; `WouldBlock` when too many wait already.
pub fn call(path: &Path) -> io::Result<(OwnedFd, UCred)> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
    named(path, |name| socket.connect(name))?;
    with_peer(UnixStream::from_std(OwnedFd::from(socket).into())?)
}

/// Whether a process of that user may be a worker's front.
fn is_trusted(peer: &UCred) -> bool {
    peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw()
}

/// A worker's rescue socket. Its file goes when it is dropped.
#[derive(Debug)]
pub(crate) struct RescueSocket {
    listener: UnixListener,
    _file: SocketFile,
}

impl RescueSocket {
    /// Listens for the next front.
    pub(crate) fn bind(directory: &Path, generation: GenerationId) -> io::Result<Self> {
        let path = socket_path(directory, generation);
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // A number is used once: one that left a file of it is gone.
            _ => {}
        }
        named(&path, |name| socket.bind(name))?;
        let file = SocketFile::own(path.clone())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
        Ok(Self { listener, _file: file })
    }

    /// The next caller that may call and says [`Rescue`]; whoever else does is let go of.
    pub(crate) async fn caller(&self) -> (Link, Rescue) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match introduced(stream).await {
                    Ok(caller) => return caller,
                    Err(reason) => warn!(reason, "a caller of the rescue socket is let go of"),
                },
                Err(error) => {
                    warn!(%error, "could not accept a caller of the rescue socket");
                    // Out of descriptors, for example: a retry at once would only repeat it.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }
}

async fn introduced(stream: UnixStream) -> Result<(Link, Rescue), &'static str> {
    let (end, peer) = with_peer(stream).map_err(|_| "it is gone")?;
    if !is_trusted(&peer) {
        return Err("it is of another user");
    }
    let link = Link::new(end).map_err(|_| "it cannot be polled")?;
    match tokio::time::timeout(CALLER_TIMEOUT, link.receive::<ToWorker>()).await {
        Err(_) => Err("it says nothing"),
        Ok(Ok(Some(received))) => match received.message {
            ToWorker::Rescue(rescue) => Ok((link, rescue)),
            _ => Err("it says something else than a front"),
        },
        Ok(Ok(None)) => Err("it is gone"),
        Ok(Err(_)) => Err("it says what is no message"),
    }
}

fn with_peer(stream: UnixStream) -> io::Result<(OwnedFd, UCred)> {
    let peer = stream.peer_cred()?;
    Ok((stream.into_std()?.into(), peer))
}

/// Does something with a socket's name, by way of its directory's descriptor when the path is too long for one.
fn named(path: &Path, act: impl FnOnce(&SockAddr) -> io::Result<()>) -> io::Result<()> {
    if let Ok(name) = SockAddr::unix(path) {
        return act(&name);
    }
    let (Some(directory), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = (OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).bits().cast_signed();
    let directory = File::options().read(true).custom_flags(flags).open(directory)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(file);
    act(&SockAddr::unix(short)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{PROTOCOL, ToFront};

    fn g7() -> GenerationId {
        GenerationId::new(7)
    }

    #[tokio::test]
    async fn a_caller_becomes_the_link_and_whoever_says_something_else_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let socket = RescueSocket::bind(directory.path(), g7()).unwrap();
        let path = socket_path(directory.path(), g7());
        assert_eq!(generation_of(&path), Some(g7()));
        // One that leaves, one that is no front, and the front.
        drop(call(&path).unwrap());
        let (stranger, _) = call(&path).unwrap();
        let stranger = Link::new(stranger).unwrap();
        stranger.send(&ToWorker::Admit, &[]).await.unwrap();
        let (front, peer) = call(&path).unwrap();
        assert_eq!(peer.pid(), Some(std::process::id().cast_signed()));
        let front = Link::new(front).unwrap();
        front.send(&ToWorker::Rescue(Rescue { protocol: PROTOCOL }), &[]).await.unwrap();
        let (link, rescue) = socket.caller().await;
        assert_eq!(rescue.protocol, PROTOCOL);
        link.send(&ToFront::Stopped, &[]).await.unwrap();
        assert_eq!(front.receive::<ToFront>().await.unwrap().unwrap().message, ToFront::Stopped);
        assert!(stranger.receive::<ToFront>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_for_a_socket_is_none_for_a_rescue_socket() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let socket = RescueSocket::bind(&long, g7()).unwrap();
        call(&socket_path(&long, g7())).unwrap();
        drop(socket);
        let refused = call(&socket_path(&long, g7())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound, "its file goes with it");
    }

    #[test]
    fn a_file_that_is_no_generations_is_nobodys() {
        for name in ["g7", "7.sock", "g7.sock.lock", ".sock", "control.sock"] {
            assert_eq!(generation_of(Path::new(name)), None, "{name}");
        }
    }
}
