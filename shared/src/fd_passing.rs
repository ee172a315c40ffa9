//! Descriptors across a process boundary, without losing or leaking one.
//!
//! **Invariants**
//! - A received descriptor is close-on-exec from birth (`MSG_CMSG_CLOEXEC`, recvmsg(2)); sendfd
//!   itself receives without it, so it only sends here.
//! - Every received descriptor is owned before any flag is looked at: an error closes them all.
//! - The buffer always has room for the most a message can carry, so the kernel never drops some
//!   silently; if it does all the same (`MSG_CTRUNC`: the process is out of descriptors) none is
//!   delivered, and the message says how many there should be.

#![expect(unsafe_code, reason = "no safe crate reaches close_range(2)")]

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg,
};
use sendfd::SendWithFd;

/// The most descriptors one message carries: `SCM_MAX_FD` of the kernel (unix(7)).
pub const MAX_DESCRIPTORS: usize = 253;

/// Sends one packet with its descriptors; all of it or nothing. Never blocks when the socket does
/// not.
///
/// # Errors
/// Those of sendmsg(2); `WouldBlock` when the peer's queue is full.
pub fn send<S: AsFd + SendWithFd>(
    socket: &S,
    packet: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} descriptors, and a message carries {MAX_DESCRIPTORS}", descriptors.len()),
        ));
    }
    let sent = if descriptors.is_empty() {
        rustix::net::send(socket, packet, SendFlags::NOSIGNAL)?
    } else {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        socket.send_with_fd(packet, &raw)?
    };
    debug_assert_eq!(sent, packet.len(), "SEQPACKET sends a packet whole or not at all");
    Ok(())
}

/// One packet as it arrived.
#[derive(Debug)]
pub struct Packet {
    /// How many bytes of the buffer it filled; 0 means the peer has closed its end.
    pub bytes: usize,
    /// What came with it: every descriptor that was sent, or none when they could not all be
    /// installed.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives one packet into `buffer`, with the descriptors attached to it.
///
/// # Errors
/// Those of recvmsg(2), and `InvalidData` for a packet larger than the buffer. Whatever had been
/// received is closed then.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // All or none: the reader compares their number with what the message says.
        descriptors.clear();
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet larger than allowed"));
    }
    Ok(Packet { bytes: received.bytes, descriptors })
}

/// Whether descriptors are attached to the next packet, which is left where it is: nothing is received, and nothing
/// closed. `None` when there is no packet, for there is nobody any more who could send one.
///
/// # Errors
/// Those of recvmsg(2).
pub fn next_brings_descriptors(socket: impl AsFd) -> io::Result<Option<bool>> {
    let mut first = [0];
    // Without room for them they are only said to be there, and the packet keeps them.
    let mut no_room = RecvAncillaryBuffer::default();
    let peeked =
        recvmsg(socket, &mut [IoSliceMut::new(&mut first)], &mut no_room, RecvFlags::PEEK)?;
    Ok((peeked.bytes > 0).then_some(peeked.flags.contains(ReturnFlags::CTRUNC)))
}

/// Marks every descriptor from `first` on close-on-exec, whoever opened it: a shell or service
/// manager may have left some open that no worker was meant to have.
///
/// # Errors
/// Those of close_range(2), which Linux has since 5.9 (the flag since 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = nix::libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: with CLOSE_RANGE_CLOEXEC the call closes nothing and only sets a flag on the
    // descriptors of this process, so no owner of one is deceived.
    let outcome = unsafe { nix::libc::close_range(first, u32::MAX, flags) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
