//! What tungstenite was given and has not yet made into messages.
//!
//! It gives none of its buffers back (tungstenite-rs#555, #556), so what is in them must be known from
//! outside. It returns every ping, pong and data message; each such return is a [`Journal::commit`],
//! which strikes out the frames it was made of (RFC 6455, 5.4).
//!
//! ```text
//!   fragments                     ahead
//!  ┌────────────────────────────┐┌──────────┬───────────────────────┬──────────────┐
//!  │ whole frames of a message  ││ returned │ given to tungstenite, │ still to be  │ room ◄── socket
//!  │ that was interrupted       ││          │ not returned          │ given        │
//!  └────────────────────────────┘└──────────┴───────────────────────┴──────────────┘
//!                                0        head                    given         filled
//! ```
//!
//! Read first into the journal and given from there: so a large message takes fewer reads than
//! tungstenite alone would make, a few KiB at a time, which pays for keeping it.
//!
//! **Invariants**
//! - `fragments` and `ahead[head..filled]` together, read by a fresh tungstenite, rebuild the state of this
//!   one: no message twice, none lost.
//! - A control frame strikes out itself, a last data frame all of its message.
//! - The header of a frame is looked at once; no byte is moved more than a few times.
//! - A quiet connection holds no buffer here, one in the midst of a message no more than twice that.

use std::mem::take;

use tokio::io::ReadBuf;

use super::super::websocket::NotMovable;
use super::frame::{FrameHeader, FrameKind, Skipper};
use super::spare;

/// How much is kept of a message that is not whole yet, in bytes. A connection in the middle of a
/// larger one moves after it.
pub const MAX_JOURNAL: usize = 1024 * 1024;

/// A buffer with this much more room than it needs is too large to be held, in bytes.
const SLACK: usize = 4 * 1024;

/// So much is always read at once, if tungstenite asks for less: it holds the room it asks for, and this
/// is only lent.
const LEAST_READ: usize = 4 * 1024;

/// The most that is read at once where tungstenite asks for less, in bytes.
const READ_AHEAD: usize = 16 * 1024;

/// Copied at once, in bytes. From 4 KiB on glibc leaves it to `rep movsb`, which some AMD processors do
/// at a tenth of the speed (glibc bug 30994; measured: 5.9 µs instead of 0.4 µs for 16 KiB).
const COPY_STEP: usize = 1024;

/// See the picture of the module.
#[derive(Default)]
pub(super) struct Journal {
    fragments: Vec<u8>,
    /// All of it is room that can be read into; `filled` of it has been.
    ahead: Vec<u8>,
    head: usize,
    given: usize,
    filled: usize,
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
        Self { filled: ahead.len(), ahead, ..Self::default() }
    }

    /// Whether it tells all.
    pub(super) const fn is_whole(&self) -> Result<(), NotMovable> {
        match self.keeping {
            Keeping::All if self.owed == 0 => Ok(()),
            Keeping::All | Keeping::NotThisMessage(_) => Err(NotMovable::MessageTooLarge),
            Keeping::Nothing => Err(NotMovable::Untraceable),
        }
    }

    /// Gives what was read and not given yet, if there is any.
    pub(super) fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let left = &self.ahead[self.given..self.filled];
        if left.is_empty() {
            return false;
        }
        let size = left.len().min(buffer.remaining());
        left[..size].chunks(COPY_STEP).for_each(|step| buffer.put_slice(step));
        self.given += size;
        true
    }

    /// Gives up the room that it does not need: the socket has nothing more for now.
    pub(super) fn rest(&mut self) {
        if self.fragments.is_empty() {
            self.fragments = Vec::new();
        }
        let needed = self.filled - self.head;
        if needed == 0 {
            spare::give_back(take(&mut self.ahead));
            (self.head, self.given, self.filled) = (0, 0, 0);
        } else if self.ahead.len() > most_held(needed) {
            let held = spare::take(needed..=most_held(needed)).unwrap_or_else(|| vec![0; needed]);
            self.replace(held);
        }
    }

    /// Where to read to when everything was given, `asked` bytes or more; `None` where what comes is only
    /// [recorded](Self::record).
    pub(super) fn room(&mut self, asked: usize) -> Option<&mut [u8]> {
        let kept = self.fragments.len() + self.filled - self.head;
        if !matches!(self.keeping, Keeping::All) || kept >= MAX_JOURNAL {
            return None;
        }
        // As much again as has come of a message that is not whole, so that somebody who sends little
        // is given little.
        let size = asked.max(kept.clamp(LEAST_READ, READ_AHEAD)).min(MAX_JOURNAL - kept);
        if self.filled + size > self.ahead.len() {
            self.make_room(size);
        }
        Some(&mut self.ahead[self.filled..self.filled + size])
    }

    /// So much was read into the room.
    pub(super) const fn read(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    /// These bytes were read from the socket and given to tungstenite.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        let kept = self.fragments.len() + self.filled - self.head;
        match &mut self.keeping {
            Keeping::All if kept + bytes.len() <= MAX_JOURNAL => self.keep(bytes),
            Keeping::All => {
                // The fragments are whole frames: they are not needed to find the next one.
                self.fragments = Vec::new();
                let ahead = take(&mut self.ahead);
                let begun = take(&mut self.head)..take(&mut self.filled);
                self.given = 0;
                self.keeping = Keeping::NotThisMessage(Skipper::default());
                self.record(&ahead[begun]);
                spare::give_back(ahead);
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
        if self.filled + bytes.len() > self.ahead.len() {
            self.make_room(bytes.len());
        }
        self.ahead[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        self.given = self.filled;
    }

    /// Makes room for so much more.
    fn make_room(&mut self, size: usize) {
        let needed = self.filled - self.head + size;
        if needed <= self.ahead.len() {
            // tungstenite asks for more only when it has no whole frame left, so what is moved here is
            // less than the last read, or part of a large message whose beginning was returned.
            self.ahead.copy_within(self.head..self.filled, 0);
            self.filled -= self.head;
            self.given -= take(&mut self.head);
            return;
        }
        // The first may be the largest there is: this is given back before anybody waits.
        let most = if self.ahead.is_empty() { MAX_JOURNAL } else { most_held(needed) };
        let roomy =
            spare::take(needed..=most).unwrap_or_else(|| vec![0; needed.next_power_of_two()]);
        self.replace(roomy);
    }

    /// Goes on in another buffer.
    fn replace(&mut self, mut buffer: Vec<u8>) {
        let kept = &self.ahead[self.head..self.filled];
        for (to, from) in buffer.chunks_mut(COPY_STEP).zip(kept.chunks(COPY_STEP)) {
            to[..from.len()].copy_from_slice(from);
        }
        self.filled -= self.head;
        self.given -= take(&mut self.head);
        spare::give_back(std::mem::replace(&mut self.ahead, buffer));
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
        if self.head == self.filled {
            (self.head, self.given, self.filled) = (0, 0, 0);
        }
    }

    /// What is to be given to a fresh tungstenite.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.rest();
        self.ahead.truncate(self.filled);
        self.ahead.drain(..self.head);
        if self.fragments.is_empty() {
            return self.ahead;
        }
        self.fragments.append(&mut self.ahead);
        self.fragments
    }
}

/// The most room that may be held for this much, in bytes.
const fn most_held(needed: usize) -> usize {
    2 * needed + SLACK
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::super::frame::tests::frame;
    use super::super::spare::tests::addresses;
    use super::*;

    /// These bytes come from the socket, are read as `JournalIo` does, and given as tungstenite asks.
    fn arrive(journal: &mut Journal, mut bytes: &[u8]) {
        let mut asked = [0; 4096];
        while !bytes.is_empty() {
            let size = if let Some(room) = journal.room(asked.len()) {
                let size = room.len().min(bytes.len());
                room[..size].copy_from_slice(&bytes[..size]);
                journal.read(size);
                while journal.give(&mut ReadBuf::new(&mut asked)) {}
                size
            } else {
                let size = asked.len().min(bytes.len());
                journal.record(&bytes[..size]);
                size
            };
            bytes = &bytes[size..];
        }
    }

    /// What a message of so many bytes and no more begins with.
    fn large(size: u32) -> Vec<u8> {
        let mut bytes = [&[0x82, 0x7f, 0, 0, 0, 0][..], &size.to_be_bytes()].concat();
        bytes.resize(bytes.len() + size as usize, 0);
        bytes
    }

    proptest! {
        #[test]
        fn whatever_comes_and_is_returned_nothing_panics_and_little_is_kept(
            steps in vec((vec(any::<u8>(), 0..40), 0_usize..4), 0..40),
            begun_beyond in any::<bool>(),
        ) {
            let mut journal = Journal::default();
            if begun_beyond {
                arrive(&mut journal, &[0x02, 0x7f, 0, 0, 0, 0, 0, 0x11, 0, 0]);
                arrive(&mut journal, &vec![0; MAX_JOURNAL + 1]);
                prop_assert_eq!(journal.is_whole(), Err(NotMovable::MessageTooLarge));
            }
            for (bytes, returned) in steps {
                arrive(&mut journal, &bytes);
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
        arrive(&mut journal, &interrupted);
        journal.commit();
        journal.commit();
        assert!(journal.ahead.capacity() + journal.fragments.capacity() > 0);
        journal.rest();
        assert_eq!(journal.ahead.capacity() + journal.fragments.capacity(), 0);
    }

    #[test]
    fn a_connection_in_the_midst_of_a_message_holds_little_more_than_that() {
        let mut journal = Journal::default();
        spare::give_back(vec![0; MAX_JOURNAL]);
        arrive(&mut journal, &frame(0x82, 300)[..200]);
        assert!(journal.ahead.capacity() >= MAX_JOURNAL, "the spare one is used");
        journal.rest();
        assert!(journal.ahead.capacity() < 2 * SLACK);
        assert_eq!(journal.into_bytes(), frame(0x82, 300)[..200]);
    }

    #[test]
    fn messages_that_come_by_turns_are_kept_in_the_same_buffers_again() {
        let message = large(100_000);
        let mut journals = [Journal::default(), Journal::default(), Journal::default()];
        let mut round = || {
            for piece in message.chunks(30_000) {
                for journal in &mut journals {
                    arrive(journal, piece);
                    journal.rest();
                }
            }
            for journal in &mut journals {
                journal.commit();
                journal.rest();
            }
            addresses()
        };
        // At first none is there, and those that come back are larger and smaller than was asked for.
        round();
        let before = round();
        assert_eq!(round(), before);
    }

    #[test]
    fn more_is_read_than_tungstenite_asks_for_only_in_the_midst_of_what_is_large() {
        let mut journal = Journal::default();
        let message = large(500_000);
        let mut seen = 0;
        for expected in [4096, 4096, 8192, READ_AHEAD, READ_AHEAD] {
            assert_eq!(journal.room(4096).map(|room| room.len()), Some(expected));
            arrive(&mut journal, &message[seen..seen + expected]);
            seen += expected;
        }
        arrive(&mut journal, &message[seen..]);
        journal.commit();
        assert_eq!(journal.room(4096).map(|room| room.len()), Some(4096));
    }

    #[test]
    fn where_tungstenite_asks_for_little_more_is_read_into_room_that_is_only_lent() {
        let mut journal = Journal::default();
        assert_eq!(journal.room(512).map(|room| room.len()), Some(LEAST_READ));
        arrive(&mut journal, &frame(0x82, 7));
        journal.commit();
        journal.rest();
        assert_eq!(journal.ahead.capacity(), 0);
    }

    #[test]
    fn no_more_than_is_kept_of_a_message_is_read_ahead() {
        let mut journal = Journal::default();
        arrive(&mut journal, &large(2_000_000)[..MAX_JOURNAL - 100]);
        assert_eq!(journal.room(4096).map(|room| room.len()), Some(100));
        arrive(&mut journal, &[0; 100]);
        assert_eq!(journal.is_whole(), Ok(()));
        arrive(&mut journal, &[0]);
        assert_eq!(journal.is_whole(), Err(NotMovable::MessageTooLarge));
    }

    #[test]
    fn a_control_frame_strikes_out_itself_and_a_last_frame_all_of_its_message() {
        let parts = [frame(0x01, 5), frame(0x89, 2), frame(0x00, 0), frame(0x8a, 0)];
        let mut journal = Journal::default();
        arrive(&mut journal, &parts.concat());
        journal.commit();
        journal.commit();
        let kept = [&journal.fragments[..], &journal.ahead[journal.head..journal.filled]].concat();
        assert_eq!(kept, [&parts[0][..], &parts[2]].concat());
        arrive(&mut journal, &frame(0x80, 300)[..20]);
        arrive(&mut journal, &frame(0x80, 300)[20..]);
        arrive(&mut journal, b"next");
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
        assert!(journal.give(&mut buffer));
        assert_eq!(buffer.filled(), b"again");
    }
}
