//! What the program says of itself over NOTIFY_SOCKET (sd_notify(3)).
//!
//! The socket has no file: its name is one the kernel chose in the abstract namespace, so nothing of it stays behind.
//!
//! **Invariants**
//! - Only the program is believed, this user and root: anybody may send to an abstract name.
//! - Descriptors that are sent along are closed at once, which is what `sd_notify_barrier` waits for.

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::time::Duration;

use handoff::fd_passing::MAX_DESCRIPTORS;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, UCred, bind, recvmsg, socket_with, sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tracing::debug;

use super::census;

/// The variable that names the socket.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET";
/// The longest message that is read whole, in bytes.
const LONGEST: usize = 8 * 1024;
/// The longest status that is passed on, in characters.
const LONGEST_STATUS: usize = 80;

/// The socket.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: UnixDatagram,
    name: String,
}

/// What one message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) ready: bool,
    pub(crate) stopping: bool,
    pub(crate) status: Option<String>,
    /// How much longer it wants, from now.
    pub(crate) extend: Option<Duration>,
}

impl Notify {
    /// Opens a socket that nobody has the name of yet.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // Before anybody can send: a message without credentials is not believed.
        sockopt::set_socket_passcred(&socket, true)?;
        // No name at all asks for one (unix(7), "Autobind feature").
        bind(&socket, &SocketAddrUnix::new_unnamed())?;
        let name = SocketAddrUnix::try_from(rustix::net::getsockname(&socket)?)?;
        let name = name.abstract_name().map(String::from_utf8_lossy);
        let name = name.ok_or_else(|| io::Error::other("the kernel gave the socket no name"))?;
        let name = format!("@{name}");
        Ok(Self { socket: UnixDatagram::from_std(socket.into())?, name })
    }

    /// The name, as the program is told it.
    pub(crate) fn name(&self) -> OsString {
        (&self.name).into()
    }

    /// The next thing the program says. Cancel safe.
    pub(crate) async fn next(&self) -> Notice {
        loop {
            let received = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await;
            match received {
                Ok((text, Some(sender))) if is_believed(sender) => return Notice::read(&text),
                Ok((_, sender)) => {
                    debug!(uid = sender.map(|s| s.uid.as_raw()), "a stranger notifies");
                }
                // A message that cannot be received is one that was not sent.
                Err(error) => debug!(%error, "could not receive a notification"),
            }
        }
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<(String, Option<UCred>)> {
    let mut buffer = [0; LONGEST];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut buffer)];
    let received = recvmsg(socket.as_fd(), parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut sender = None;
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
            // Dropped, they are closed.
            RecvAncillaryMessage::ScmRights(rights) => rights.for_each(drop),
            _ => {}
        }
    }
    Ok((String::from_utf8_lossy(&buffer[..received.bytes]).into_owned(), sender))
}

fn is_believed(sender: UCred) -> bool {
    let uid = sender.uid;
    uid == rustix::process::geteuid()
        || uid.is_root()
        // One that gave its rights up is still the program.
        || census::family().iter().any(|pid| pid.as_raw() == sender.pid.as_raw_nonzero().get())
}

impl Notice {
    /// Assignments, one a line; those that mean nothing here are passed over.
    fn read(text: &str) -> Self {
        let mut notice = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match (name, value) {
                ("READY", "1") => notice.ready = true,
                ("STOPPING", "1") => notice.stopping = true,
                ("STATUS", status) => {
                    let printable = |c: &char| !c.is_control();
                    let status: String =
                        status.chars().filter(printable).take(LONGEST_STATUS).collect();
                    notice.status = Some(status);
                }
                ("EXTEND_TIMEOUT_USEC", micros) => {
                    notice.extend = micros.parse().ok().map(Duration::from_micros);
                }
                _ => {}
            }
        }
        notice
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram as Sender};

    use super::*;

    #[test]
    fn a_message_is_read_line_by_line() {
        let text = "READY=1\nSTATUS=half\tdone\nEXTEND_TIMEOUT_USEC=1500000\nMAINPID=7\nodd";
        let expected = Notice {
            ready: true,
            stopping: false,
            status: Some("halfdone".into()),
            extend: Some(Duration::from_millis(1500)),
        };
        assert_eq!(Notice::read(text), expected);
        assert_eq!(
            Notice::read("READY=0\nSTOPPING=yes\nEXTEND_TIMEOUT_USEC=soon"),
            Notice::default()
        );
        assert!(Notice::read("STOPPING=1").stopping);
    }

    #[tokio::test]
    async fn what_is_sent_to_the_name_is_heard() {
        let notify = Notify::open().unwrap();
        let name = notify.name().into_string().unwrap();
        let address = SocketAddr::from_abstract_name(name.strip_prefix('@').unwrap()).unwrap();
        Sender::unbound().unwrap().send_to_addr(b"STOPPING=1", &address).unwrap();
        assert!(notify.next().await.stopping);
    }
}
