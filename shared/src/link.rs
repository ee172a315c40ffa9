//! One end of the packet socket between the front and a worker.
//!
//! ```text
//! front ── socketpair(AF_UNIX, SOCK_SEQPACKET) ── worker
//!   Message { json ≤ 128 KiB, 0..=253 descriptors } in order, whole or not at all
//! ```
//!
//! **Invariants**
//! - A packet is a message: nothing is split, nothing is merged, no length prefix is needed.
//! - The peer's end lives in the peer alone: end of file means the peer is gone.

use std::io;
#[cfg(feature = "fault-points")]
use std::os::fd::AsFd;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::fd_passing;
use crate::message::MAX_MESSAGE;

/// Why a message could not cross a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket itself failed.
    #[error("could not use the link")]
    Socket {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The peer sent something that is no message of this protocol.
    #[error("received what is no message of this protocol")]
    Malformed {
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The peer attached descriptors to a message that has none.
    #[error("received descriptors with a message that has none")]
    Attached,
    /// The message would exceed what a link carries.
    #[error("a message of {size} bytes exceeds the {MAX_MESSAGE} a link carries")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    socket: UnixDatagram,
}

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// Its descriptors, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Makes the two ends of a link, both close-on-exec and non-blocking.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl Link {
    /// Takes one end into this process's event loop.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking or polled.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        // sendfd speaks to datagram and stream sockets; on the wire a SEQPACKET send is the same
        // sendmsg(2).
        let socket = std::os::unix::net::UnixDatagram::from(end);
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)? })
    }

    /// Lets go of the event loop and keeps the socket.
    ///
    /// # Errors
    /// When the descriptor cannot be taken out of the event loop.
    pub fn into_descriptor(self) -> io::Result<OwnedFd> {
        Ok(self.socket.into_std()?.into())
    }

    /// Sends one message. Cancel safe: the message is sent whole or not at all.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`], or the socket's error: `BrokenPipe` when the peer is gone.
    pub async fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let packet = encode(message)?;
        self.socket
            .async_io(Interest::WRITABLE, || fd_passing::send(&self.socket, &packet, descriptors))
            .await
            .map_err(|source| LinkError::Socket { source })
    }

    /// Sends one message if there is room for it now, and says whether there was.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn try_send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<bool, LinkError> {
        self.try_send_packet(&encode(message)?, descriptors)
    }

    /// As [`Self::try_send`], of a message that was encoded before.
    pub(crate) fn try_send_packet(
        &self,
        packet: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<bool, LinkError> {
        let send = || fd_passing::send(&self.socket, packet, descriptors);
        match self.socket.try_io(Interest::WRITABLE, send) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(source) => Err(LinkError::Socket { source }),
        }
    }

    /// Whether a packet is worth making: false while there is known to be no room.
    pub(crate) fn may_have_room(&self) -> bool {
        self.socket.try_io(Interest::WRITABLE, || Ok(())).is_ok()
    }

    /// Ends when there may be room for a message. Cancel safe.
    pub async fn writable(&self) {
        // What is wrong with the socket is met, and handled, by the next send.
        let _ = self.socket.writable().await;
    }

    /// Receives the next message, or `None` when the peer is gone. Cancel safe: no message is lost.
    ///
    /// # Errors
    /// [`LinkError::Malformed`] for bytes that are no message, or the socket's error. Descriptors
    /// that came with a message that cannot be read are closed.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<Option<Received<M>>, LinkError> {
        let received = self.socket.async_io(Interest::READABLE, || self.take()).await;
        let (packet, descriptors) = received.map_err(|source| LinkError::Socket { source })?;
        if packet.is_empty() {
            return Ok(None);
        }
        let message =
            serde_json::from_slice(&packet).map_err(|source| LinkError::Malformed { source })?;
        Ok(Some(Received { message, descriptors }))
    }

    /// As [`Self::receive`], from a peer that may mean harm and whose messages have no descriptors. Of one that has
    /// none is received, since whoever closes them may be held up by that for as long as their sender likes
    /// (`SO_LINGER` in socket(7)): [`Self::close_aside`] is what is left to do. Cancel safe.
    ///
    /// # Errors
    /// As [`Self::receive`], and [`LinkError::Attached`].
    pub async fn receive_bare<M: DeserializeOwned>(&self) -> Result<Option<M>, LinkError> {
        let received = self
            .socket
            .async_io(Interest::READABLE, || match once_more(|| self.next_brings_descriptors())? {
                Some(true) => Ok(None),
                Some(false) | None => self.take().map(Some),
            })
            .await;
        let received = received.map_err(|source| LinkError::Socket { source })?;
        let (packet, _) = received.ok_or(LinkError::Attached)?;
        if packet.is_empty() {
            return Ok(None);
        }
        let message = serde_json::from_slice(&packet);
        message.map(Some).map_err(|source| LinkError::Malformed { source })
    }

    /// Closes this end, and waits for nothing that the peer has sent and nobody has read.
    pub fn close_aside(self) {
        // The peer sends nothing more from here on; an end that is closed already is what was wanted.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        while let Ok(Some(brings_descriptors)) = once_more(|| self.next_brings_descriptors()) {
            if brings_descriptors {
                // On a thread that nobody waits for. Where none can be had, it is done here.
                let aside = std::thread::Builder::new().name("closing".into());
                let _ = aside.spawn(move || drop(self));
                return;
            }
            if self.take().is_err() {
                return;
            }
        }
    }

    fn next_brings_descriptors(&self) -> io::Result<Option<bool>> {
        fd_passing::next_brings_descriptors(&self.socket)
    }

    /// The next packet.
    fn take(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        // Taken per wake-up, so that a thousand quiet links do not hold 128 KiB each.
        let mut buffer = vec![0; MAX_MESSAGE];
        let packet = once_more(|| fd_passing::receive(&self.socket, &mut buffer))?;
        buffer.truncate(packet.bytes);
        Ok((buffer, packet.descriptors))
    }
}

/// The peer may have died with words of ours unread. The kernel says so once, ahead of the peer's own last words
/// (unix(7)).
fn once_more<T>(mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match receive() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => receive(),
        outcome => outcome,
    }
}

/// So that a fault can be done to the socket itself.
#[cfg(feature = "fault-points")]
impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A message as one packet.
pub(crate) fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, LinkError> {
    let packet = serde_json::to_vec(message).map_err(|source| LinkError::Malformed { source })?;
    if packet.len() > MAX_MESSAGE {
        return Err(LinkError::TooLarge { size: packet.len() });
    }
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::message::ToFront;

    fn links() -> (Link, Link) {
        let (a, b) = pair().unwrap();
        (Link::new(a).unwrap(), Link::new(b).unwrap())
    }

    #[tokio::test]
    async fn a_message_arrives_with_its_descriptors_close_on_exec() {
        let (a, b) = links();
        let file = File::open("/dev/null").unwrap();
        let descriptors = vec![file.as_fd(); 253];
        a.send(&ToFront::Accepting, &descriptors).await.unwrap();
        let received = b.receive::<ToFront>().await.unwrap().unwrap();
        assert_eq!(received.message, ToFront::Accepting);
        assert_eq!(received.descriptors.len(), 253);
        for descriptor in &received.descriptors {
            let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[tokio::test]
    async fn more_descriptors_than_a_message_carries_are_refused_before_anything_is_sent() {
        let (a, b) = links();
        let file = File::open("/dev/null").unwrap();
        assert!(a.send(&ToFront::Accepting, &vec![file.as_fd(); 254]).await.is_err());
        a.send(&ToFront::Stopped, &[]).await.unwrap();
        assert_eq!(b.receive::<ToFront>().await.unwrap().unwrap().message, ToFront::Stopped);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_the_end_of_the_link_after_its_last_words() {
        let (a, b) = links();
        a.send(&ToFront::Stopped, &[]).await.unwrap();
        b.send(&ToFront::Accepting, &[]).await.unwrap();
        drop(a);
        let last = b.receive::<ToFront>().await.unwrap().unwrap();
        assert_eq!(last.message, ToFront::Stopped);
        assert!(b.receive::<ToFront>().await.unwrap().is_none());
        assert!(b.send(&ToFront::Accepting, &[]).await.is_err());
    }

    #[tokio::test]
    async fn bytes_that_are_no_message_are_an_error_and_the_next_message_is_read() {
        let (a, b) = links();
        a.send(&"hello", &[]).await.unwrap();
        a.send(&ToFront::Stopped, &[]).await.unwrap();
        assert!(matches!(b.receive::<ToFront>().await, Err(LinkError::Malformed { .. })));
        assert_eq!(b.receive::<ToFront>().await.unwrap().unwrap().message, ToFront::Stopped);
    }

    #[tokio::test]
    async fn descriptors_that_are_not_wanted_are_not_received() {
        let (a, b) = links();
        let (there, here) = io::pipe().unwrap();
        a.send(&ToFront::Stopped, &[]).await.unwrap();
        a.send(&ToFront::Accepting, &[here.as_fd()]).await.unwrap();
        drop(here);
        assert_eq!(b.receive_bare::<ToFront>().await.unwrap(), Some(ToFront::Stopped));
        for _ in 0..2 {
            let refused = b.receive_bare::<ToFront>().await;
            assert!(matches!(refused, Err(LinkError::Attached)), "{refused:?}");
        }
        // They are still on their way, and end with the link.
        b.close_aside();
        let ended = tokio::task::spawn_blocking(move || io::read_to_string(there));
        assert_eq!(ended.await.unwrap().unwrap(), "");
        assert!(a.send(&ToFront::Stopped, &[]).await.is_err());
    }

    #[tokio::test]
    async fn a_bare_peer_that_is_gone_is_the_end_of_the_link_after_its_last_words() {
        let (a, b) = links();
        a.send(&ToFront::Stopped, &[]).await.unwrap();
        b.send(&ToFront::Accepting, &[]).await.unwrap();
        drop(a);
        assert_eq!(b.receive_bare::<ToFront>().await.unwrap(), Some(ToFront::Stopped));
        assert_eq!(b.receive_bare::<ToFront>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_message_larger_than_a_packet_is_refused() {
        let (a, _b) = links();
        let message = ToFront::Refuse { reason: "x".repeat(MAX_MESSAGE) };
        assert!(matches!(a.send(&message, &[]).await, Err(LinkError::TooLarge { .. })));
    }
}
