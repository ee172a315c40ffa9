//! What is to be said over one migration link, in order.
//!
//! **Invariants**
//! - Nothing waits without bound: a link whose other side does not read is given up.
//! - A text that would not fit into a packet travels in a memfd.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::link::{Link, LinkError, encode};
use crate::migrate::blob::{self, NotABlob};

/// The longest text inside a packet, in bytes: JSON writes a byte as six at the worst, and a packet
/// holds 128 KiB.
const LONGEST_INSIDE: usize = 16 * 1024;
/// The longest text of all, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;
/// The most that may wait, in bytes.
const MOST_WAITING: usize = 128 * 1024 * 1024;

/// What the two generations say beside moving connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Word {
    /// For the connection whose mailbox had this number where it came from.
    Late { mailbox: u64, text: Text },
    /// Nobody will write to it any more who might have.
    Severed { mailbox: u64 },
    /// Letters for it were lost.
    Lost { mailbox: u64 },
    /// These have had all that was published by the reader before it served them.
    Settled { mailboxes: Vec<u64> },
    /// For every connection.
    Publish { text: Text },
    /// For the other generation itself.
    Tell { text: Text },
}

/// A text, or that it is in the memfd that came along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Text {
    /// Here it is.
    Inside(String),
    /// It is attached.
    Attached,
}

impl Text {
    /// The text, read from what was attached if it has to be.
    pub(crate) fn read(self, descriptors: Vec<OwnedFd>) -> Result<String, NotABlob> {
        match self {
            Self::Inside(text) => Ok(text),
            Self::Attached => {
                let memfd = descriptors.into_iter().next().ok_or(NotABlob::Missing)?;
                String::from_utf8(blob::read(&memfd, LONGEST)?).map_err(|_| NotABlob::NotText)
            }
        }
    }
}

/// The queue of one link.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    packets: VecDeque<Packet>,
    bytes: usize,
    /// Whether something had no room: nothing is right after that.
    overrun: bool,
}

#[derive(Debug)]
struct Packet {
    words: Vec<u8>,
    /// What travels in a memfd.
    attached: Option<Vec<u8>>,
}

impl Packet {
    fn size(&self) -> usize {
        self.words.len() + self.attached.as_ref().map_or(0, Vec::len)
    }
}

impl Outgoing {
    /// A message, with a text that is made part of it wherever there is room.
    pub(crate) fn push_text<M: Serialize>(&mut self, text: &str, message: impl Fn(Text) -> M) {
        if text.len() <= LONGEST_INSIDE {
            return self.push(&message(Text::Inside(text.to_owned())), None);
        }
        if text.len() > LONGEST {
            self.overrun = true;
            return;
        }
        self.push(&message(Text::Attached), Some(text.as_bytes().to_vec()));
    }

    /// A message that is small by its nature.
    pub(crate) fn push_message<M: Serialize>(&mut self, message: &M) {
        self.push(message, None);
    }

    fn push<M: Serialize>(&mut self, message: &M, attached: Option<Vec<u8>>) {
        let Ok(words) = encode(message) else {
            self.overrun = true;
            return;
        };
        let packet = Packet { words, attached };
        self.bytes += packet.size();
        self.overrun |= self.bytes > MOST_WAITING;
        self.packets.push_back(packet);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty() && !self.overrun
    }

    /// Sends as much as there is room for, and says whether that was all.
    /// # Errors
    /// [`FlushFailed`]; the link is of no more use then.
    pub(crate) fn flush(&mut self, link: &Link) -> Result<bool, FlushFailed> {
        if self.overrun {
            return Err(FlushFailed::Overrun);
        }
        while let Some(packet) = self.packets.front() {
            let memfd = match &packet.attached {
                Some(bytes) => {
                    Some(blob::write(bytes).map_err(|source| LinkError::Socket { source })?)
                }
                None => None,
            };
            let descriptors: Vec<_> = memfd.iter().map(|memfd| memfd.as_fd()).collect();
            if !link.try_send_packet(&packet.words, &descriptors)? {
                return Ok(false);
            }
            self.bytes -= packet.size();
            self.packets.pop_front();
        }
        Ok(true)
    }
}

/// Why what waits for a link will not be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushFailed {
    /// The link broke.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The other side reads too slowly, or a text is too long.
    #[error("more than {MOST_WAITING} bytes wait for the other generation")]
    Overrun,
}
