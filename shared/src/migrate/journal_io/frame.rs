//! Where frames begin and end (RFC 6455, 5.2); everything else about them is tungstenite's.
//!
//! **Invariants**
//! - No length that a peer announces is allocated, and none makes anything overflow.
//! - What is no frame makes no panic: tungstenite ends that connection.

/// The longest header in bytes: a 64-bit length and a mask.
const MAX_HEADER: usize = 14;

/// What a frame does to its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// A ping, a pong or a close: a message of its own, perhaps in the midst of another.
    Control,
    /// Data, and more of the message follows.
    Fragment,
    /// Data, and the message is whole.
    Last,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    kind: FrameKind,
    /// Its own size in bytes.
    size: usize,
    /// What the peer announces, in bytes: any number.
    payload: u64,
}

impl FrameHeader {
    /// The header at the start of `bytes`, if it is whole.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (length, payload) = match second & 0x7f {
            126 => (2, u16::from_be_bytes(*rest.first_chunk()?).into()),
            127 => (8, u64::from_be_bytes(*rest.first_chunk()?)),
            short => (0, short.into()),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let size = 2 + length + mask;
        let kind = match (first & 0x08, first & 0x80) {
            (0, 0) => FrameKind::Fragment,
            (0, _) => FrameKind::Last,
            (_, _) => FrameKind::Control,
        };
        (bytes.len() >= size).then_some(Self { kind, size, payload })
    }

    /// Its frame's kind and size, if `bytes`, which begin with it, hold all of that.
    pub(super) fn whole_in(self, bytes: &[u8]) -> Option<(FrameKind, usize)> {
        let size = usize::try_from(self.payload).ok()?.checked_add(self.size)?;
        (size <= bytes.len()).then_some((self.kind, size))
    }
}

/// Reads over frames that are not kept, to know where their message ends.
#[derive(Default)]
pub(super) struct Skipper {
    /// The part of a header that has come.
    header: [u8; MAX_HEADER],
    filled: usize,
    /// The frame after a whole header, and how much of its payload is to come.
    frame: Option<(FrameKind, u64)>,
}

impl Skipper {
    /// Reads over `bytes`: how many messages ended in them, and what follows the first that was no
    /// control frame, if that ended.
    pub(super) fn skip<'b>(&mut self, mut bytes: &'b [u8]) -> (usize, Option<&'b [u8]>) {
        let mut messages = 0;
        loop {
            if let Some((kind, left)) = self.frame {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[here..];
                let left = left - here as u64;
                if left > 0 {
                    self.frame = Some((kind, left));
                    return (messages, None);
                }
                self.frame = None;
                match kind {
                    FrameKind::Fragment => {}
                    FrameKind::Control => messages += 1,
                    FrameKind::Last => return (messages + 1, Some(bytes)),
                }
            } else {
                let Some((&byte, rest)) = bytes.split_first() else { return (messages, None) };
                bytes = rest;
                self.header[self.filled] = byte;
                self.filled += 1;
                if let Some(header) = FrameHeader::parse(&self.header[..self.filled]) {
                    self.frame = Some((header.kind, header.payload));
                    self.filled = 0;
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use tokio_tungstenite::tungstenite::protocol::frame;

    use super::*;

    proptest! {
        #[test]
        fn headers_are_read_as_tungstenite_reads_them(bytes in vec(any::<u8>(), 0..20)) {
            let theirs = frame::FrameHeader::parse(&mut Cursor::new(&bytes));
            // Opcodes that do not exist are an error there, and the end of the connection.
            if let Ok(theirs) = theirs {
                let theirs = theirs.map(|(header, payload)| (size_on_wire(&header, &bytes), payload));
                let ours = FrameHeader::parse(&bytes).map(|ours| (ours.size, ours.payload));
                prop_assert_eq!(ours, theirs);
            }
        }

        #[test]
        fn a_message_that_is_read_over_ends_where_it_ends(
            fragments in vec((0_usize..300, any::<bool>()), 1..20),
            bite in 1_usize..50,
        ) {
            let mut bytes = Vec::new();
            for (size, interrupted) in &fragments {
                bytes.extend(frame(0x02, *size));
                if *interrupted {
                    bytes.extend(frame(0x89, size % 126));
                }
            }
            bytes.extend(frame(0x80, 5));
            let whole = bytes.len();
            bytes.extend(b"next");
            let pings = fragments.iter().filter(|(_, interrupted)| *interrupted).count();
            let mut skipper = Skipper::default();
            let (mut seen, mut messages, mut end) = (0, 0, None);
            for chunk in bytes.chunks(bite) {
                let (ended, rest) = skipper.skip(chunk);
                seen += chunk.len();
                messages += ended;
                end = rest.map(|rest| seen - rest.len());
                if end.is_some() {
                    break;
                }
            }
            prop_assert_eq!(end, Some(whole));
            prop_assert_eq!(messages, pings + 1);
        }
    }

    /// An unmasked frame of zeros.
    pub(in super::super) fn frame(first: u8, size: usize) -> Vec<u8> {
        let size = u16::try_from(size).unwrap();
        let mut bytes = vec![first];
        match size {
            0..=125 => bytes.push(size.to_be_bytes()[1]),
            _ => bytes.extend([[126].as_slice(), &size.to_be_bytes()].concat()),
        }
        bytes.resize(bytes.len() + usize::from(size), 0);
        bytes
    }

    /// tungstenite's own is the shortest possible, which a peer need not choose.
    fn size_on_wire(header: &frame::FrameHeader, bytes: &[u8]) -> usize {
        let length = match bytes[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if header.mask.is_some() { 4 } else { 0 }
    }
}
