//! What tungstenite was given and has not yet made into messages.
//!
//! It gives none of its buffers back (tungstenite-rs#555, #556), so what is in them must be known from
//! outside. It returns every ping, pong and data message; each such return is a [`Journal::commit`],
//! which strikes out the frames it was made of (RFC 6455, 5.4).
//!
//! ```text
//!   fragments                     ahead
//!  ┌────────────────────────────┐┌──────────┬───────────────────────┬──────────────┐
//!  │ whole frames of a message  ││ returned │ given to tungstenite, │ still to be  │ ◄── socket
//!  │ that was interrupted       ││          │ not returned          │ given        │
//!  └────────────────────────────┘└──────────┴───────────────────────┴──────────────┘
//!                                0        head                    given          len
//! ```
//!
//! **Invariants**
//! - `fragments` and `ahead[head..]` together, read by a fresh tungstenite, rebuild the state of this
//!   one: no message twice, none lost.
//! - A control frame strikes out itself, a last data frame all of its message.
//! - The header of a frame is looked at once; no byte is moved more than a few times.
//! - A quiet connection holds no buffer here, one in the midst of a message no more than twice that.

use std::cell::Cell;
use std::mem::take;

use tokio::io::ReadBuf;

use super::super::websocket::NotMovable;
use super::frame::{FrameHeader, FrameKind, Skipper};

/// How much is kept of a message that is not whole yet, in bytes. A connection in the middle of a
/// larger one moves after it.
pub const MAX_JOURNAL: usize = 1024 * 1024;

/// A buffer with this much more room than it needs is too large to be held, in bytes.
const SLACK: usize = 4 * 1024;

/// Copied at once, in bytes. From 4 KiB on glibc leaves it to `rep movsb`, which some AMD processors do
/// at a tenth of the speed (glibc bug 30994; measured: 5.9 µs instead of 0.4 µs for 16 KiB).
const COPY_STEP: usize = 1024;

thread_local! {
    /// The roomiest buffer that came back, for the next message on this thread: what is large is not
    /// allocated for each of them (measured: 340 µs of page faults for 512 KiB), nor held in between.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See the picture of the module.
#[derive(Default)]
pub(super) struct Journal {
    fragments: Vec<u8>,
    ahead: Vec<u8>,
    head: usize,
    given: usize,
    keeping: Keeping,
    /// How many messages came whole without being kept, and are not returned yet.
    owed: usize,
}

/// What becomes of the bytes that are read.
#[derive(Default)]
enum Keeping {
    /// They are kept until they are returned.
    #[default]
    All,
    /// They are beyond [`MAX_JOURNAL`]: only the end of their message is looked for.
    NotThisMessage(Skipper),
    /// They and the messages returned do not match. tungstenite would have to err for that.
    Nothing,
}

impl Journal {
    /// A journal of what is to be given first.
    pub(super) fn with_replay(ahead: Vec<u8>) -> Self {
        Self { ahead, ..Self::default() }
    }

    /// Whether it tells all.
    pub(super) const fn is_whole(&self) -> Result<(), NotMovable> {
        match self.keeping {
            Keeping::All if self.owed == 0 => Ok(()),
            Keeping::All | Keeping::NotThisMessage(_) => Err(NotMovable::MessageTooLarge),
            Keeping::Nothing => Err(NotMovable::Untraceable),
        }
    }

    /// Gives what was read in another life, if any is left.
    pub(super) fn give_again(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let left = &self.ahead[self.given..];
        if left.is_empty() {
            return false;
        }
        let size = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..size]);
        self.given += size;
        true
    }

    /// Gives up the room that it does not need: the socket has nothing more for now.
    pub(super) fn rest(&mut self) {
        if self.fragments.is_empty() {
            self.fragments = Vec::new();
        }
        let needed = self.ahead.len() - self.head;
        if needed == 0 || self.ahead.capacity() > 2 * needed + SLACK {
            let held = self.ahead[self.head..].to_vec();
            self.given -= take(&mut self.head);
            give_back(std::mem::replace(&mut self.ahead, held));
        }
    }

    /// These bytes were read from the socket and are given to tungstenite.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        let kept = self.fragments.len() + self.ahead.len() - self.head;
        match &mut self.keeping {
            Keeping::All if kept + bytes.len() <= MAX_JOURNAL => self.keep(bytes),
            Keeping::All => {
                // The fragments are whole frames: they are not needed to find the next one.
                self.fragments = Vec::new();
                let (ahead, head) = (take(&mut self.ahead), take(&mut self.head));
                self.given = 0;
                self.keeping = Keeping::NotThisMessage(Skipper::default());
                self.record(&ahead[head..]);
                give_back(ahead);
                self.record(bytes);
            }
            Keeping::NotThisMessage(skipper) => {
                let (messages, next) = skipper.skip(bytes);
                self.owed += messages;
                if let Some(next) = next {
                    self.keeping = Keeping::All;
                    self.keep(next);
                }
            }
            Keeping::Nothing => {}
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        // tungstenite asks for more only when it has no whole frame left, so what is moved here is
        // less than the last read.
        self.ahead.drain(..take(&mut self.head));
        if self.ahead.capacity() == 0 {
            self.ahead = SPARE.take();
        }
        self.ahead.reserve(bytes.len());
        bytes.chunks(COPY_STEP).for_each(|step| self.ahead.extend_from_slice(step));
        self.given = self.ahead.len();
    }

    /// Strikes out the first message: a control frame, or data frames up to the last of a message.
    pub(super) fn commit(&mut self) {
        if self.owed > 0 {
            self.owed -= 1;
            return;
        }
        if let Keeping::Nothing = self.keeping {
            return;
        }
        let mut at = self.head;
        self.head = loop {
            let given = &self.ahead[at..self.given];
            let Some((kind, size)) = FrameHeader::parse(given).and_then(|it| it.whole_in(given))
            else {
                self.keeping = Keeping::Nothing;
                return;
            };
            let end = at + size;
            match kind {
                FrameKind::Fragment => at = end,
                FrameKind::Last => {
                    self.fragments.clear();
                    break end;
                }
                FrameKind::Control => {
                    self.fragments.extend_from_slice(&self.ahead[self.head..at]);
                    break end;
                }
            }
        };
        if self.head == self.ahead.len() {
            self.ahead.clear();
            (self.head, self.given) = (0, 0);
        }
    }

    /// What is to be given to a fresh tungstenite.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.rest();
        self.ahead.drain(..self.head);
        if self.fragments.is_empty() {
            return self.ahead;
        }
        self.fragments.append(&mut self.ahead);
        self.fragments
    }
}

/// Keeps a buffer for the next message, if it is the best there is.
fn give_back(mut buffer: Vec<u8>) {
    // A vector that grows doubles its room; what is larger came from elsewhere.
    if buffer.capacity() <= 2 * MAX_JOURNAL {
        buffer.clear();
        let spare = SPARE.take();
        SPARE.set(if spare.capacity() < buffer.capacity() { buffer } else { spare });
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::super::frame::tests::frame;
    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_and_is_returned_nothing_panics_and_little_is_kept(
            steps in vec((vec(any::<u8>(), 0..40), 0_usize..4), 0..40),
            begun_beyond in any::<bool>(),
        ) {
            let mut journal = Journal::default();
            if begun_beyond {
                journal.record(&[0x02, 0x7f, 0, 0, 0, 0, 0, 0x11, 0, 0]);
                journal.record(&vec![0; MAX_JOURNAL + 1]);
                prop_assert_eq!(journal.is_whole(), Err(NotMovable::MessageTooLarge));
            }
            for (bytes, returned) in steps {
                journal.record(&bytes);
                (0..returned).for_each(|_| journal.commit());
                journal.rest();
            }
            assert!(journal.into_bytes().len() <= 40 * 40);
        }
    }

    #[test]
    fn a_quiet_connection_holds_no_buffer() {
        let mut journal = Journal::default();
        let interrupted = [frame(0x02, 200), frame(0x89, 3), frame(0x80, 7)].concat();
        journal.record(&interrupted);
        journal.commit();
        journal.commit();
        assert!(journal.ahead.capacity() + journal.fragments.capacity() > 0);
        journal.rest();
        assert_eq!(journal.ahead.capacity() + journal.fragments.capacity(), 0);
    }

    #[test]
    fn a_connection_in_the_midst_of_a_message_holds_little_more_than_that() {
        let mut journal = Journal::default();
        give_back(Vec::with_capacity(MAX_JOURNAL));
        journal.record(&frame(0x82, 300)[..200]);
        assert!(journal.ahead.capacity() >= MAX_JOURNAL, "the spare one is used");
        journal.rest();
        assert!(journal.ahead.capacity() < 2 * SLACK);
        assert_eq!(journal.into_bytes(), frame(0x82, 300)[..200]);
    }

    #[test]
    fn a_control_frame_strikes_out_itself_and_a_last_frame_all_of_its_message() {
        let parts = [frame(0x01, 5), frame(0x89, 2), frame(0x00, 0), frame(0x8a, 0)];
        let mut journal = Journal::default();
        journal.record(&parts.concat());
        journal.commit();
        journal.commit();
        let kept = [&journal.fragments[..], &journal.ahead[journal.head..]].concat();
        assert_eq!(kept, [&parts[0][..], &parts[2]].concat());
        journal.record(&frame(0x80, 300)[..20]);
        journal.record(&frame(0x80, 300)[20..]);
        journal.record(b"next");
        journal.commit();
        assert_eq!(journal.into_bytes(), b"next");
    }

    #[test]
    fn a_message_that_no_byte_stands_for_ends_the_bookkeeping_but_not_the_connection() {
        let mut journal = Journal::with_replay(b"again".to_vec());
        journal.commit();
        assert_eq!(journal.is_whole(), Err(NotMovable::Untraceable));
        let mut room = [0; 8];
        let mut buffer = ReadBuf::new(&mut room);
        assert!(journal.give_again(&mut buffer));
        assert_eq!(buffer.filled(), b"again");
    }
}
