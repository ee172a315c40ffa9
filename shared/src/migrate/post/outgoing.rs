//! What is to be said over one migration link, in order.
//!
//! **Invariants**
//! - Nothing waits without bound: a link whose other side does not read is given up.
//! - A text that would not fit into a packet travels in a memfd.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

use serde::{Deserialize, Deserializer, Serialize};

use crate::link::{Link, LinkError, encode};
use crate::migrate::blob::{self, NotABlob};

/// The longest text inside a packet, in bytes: JSON writes a byte as six at the worst, and a packet
/// holds 128 KiB.
const LONGEST_INSIDE: usize = 16 * 1024;
/// How many bytes of words travel together: a packet each would fill the kernel's buffer with little, and wake the
/// reader for each.
const PACKET: usize = 96 * 1024;
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
    /// The same text for each of these.
    LateTogether { mailboxes: Vec<u64>, text: Text },
    /// Who had it so many moves ago writes to it no more.
    Severed {
        mailbox: u64,
        #[serde(default = "one")]
        moves: u32,
    },
    /// Letters for it were lost.
    Lost { mailbox: u64 },
    /// These have had all that was published by the reader before it served them.
    Settled { mailboxes: Vec<u64> },
    /// For every connection.
    Publish { text: Text },
    /// For the other generation itself.
    Tell { text: Text },
}

/// As those mean who do not say it.
const fn one() -> u32 {
    1
}

/// Words as they come: in a list, or one by itself, as the first workers sent them.
pub(crate) fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Word>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrSeveral {
        Several(Vec<Word>),
        One(Word),
    }
    Ok(match OneOrSeveral::deserialize(from)? {
        OneOrSeveral::Several(words) => words,
        OneOrSeveral::One(word) => vec![word],
    })
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
    pub(crate) fn read(
        self,
        attached: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<String, NotABlob> {
        match self {
            Self::Inside(text) => Ok(text),
            Self::Attached => {
                let memfd = attached.next().ok_or(NotABlob::Missing)?;
                String::from_utf8(blob::read(&memfd, LONGEST)?).map_err(|_| NotABlob::NotText)
            }
        }
    }
}

/// The queue of one link.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<Queued>,
    bytes: usize,
    /// Whether something had no room: nothing is right after that.
    overrun: bool,
    /// Whether the other side understands [`Word::LateTogether`].
    together: bool,
}

#[derive(Debug)]
struct Queued {
    json: Vec<u8>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A [`Word`]: those that stand together travel in one packet.
    Word,
    /// A word whose text travels in a memfd.
    Attached(Vec<u8>),
    /// A message of its own.
    Message,
    /// The message that gives these mailboxes away.
    Commit(Promise),
}

/// What a commit is about.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// The offer's number.
    pub(crate) seq: u64,
    /// Its mailboxes.
    pub(crate) mailboxes: Vec<u64>,
}

impl Queued {
    fn size(&self) -> usize {
        let attached = if let Kind::Attached(bytes) = &self.kind { bytes.len() } else { 0 };
        self.json.len() + attached
    }
}

impl Outgoing {
    /// A word, with a text that is made part of it wherever there is room.
    pub(crate) fn push_text(&mut self, text: &str, word: impl Fn(Text) -> Word) {
        if text.len() <= LONGEST_INSIDE {
            return self.push(&word(Text::Inside(text.to_owned())), Kind::Word);
        }
        if text.len() > LONGEST {
            self.overrun = true;
            return;
        }
        self.push(&word(Text::Attached), Kind::Attached(text.as_bytes().to_vec()));
    }

    /// From now on the other side understands one letter for several mailboxes.
    pub(crate) const fn write_together(&mut self) {
        self.together = true;
    }

    /// The same letter for each of these mailboxes: written once, if that is understood there.
    pub(crate) fn push_late(&mut self, mailboxes: &[u64], text: &str) {
        if self.together {
            let mailboxes = || mailboxes.to_vec();
            return self
                .push_text(text, |text| Word::LateTogether { mailboxes: mailboxes(), text });
        }
        for &mailbox in mailboxes {
            self.push_text(text, |text| Word::Late { mailbox, text });
        }
    }

    /// A word that is small by its nature.
    pub(crate) fn push_word(&mut self, word: &Word) {
        self.push(word, Kind::Word);
    }

    /// A message that is small by its nature.
    pub(crate) fn push_message<M: Serialize>(&mut self, message: &M) {
        self.push(message, Kind::Message);
    }

    /// A commit.
    pub(crate) fn push_commit<M: Serialize>(&mut self, message: &M, promise: Promise) {
        self.push(message, Kind::Commit(promise));
    }

    fn push<M: Serialize>(&mut self, message: &M, kind: Kind) {
        let Ok(json) = encode(message) else {
            self.overrun = true;
            return;
        };
        let queued = Queued { json, kind };
        self.bytes += queued.size();
        self.overrun |= self.bytes > MOST_WAITING;
        self.queue.push_back(queued);
    }

    /// Takes a commit back that was not sent, and says what it was about.
    pub(crate) fn recall(&mut self, seq: u64) -> Option<Promise> {
        let is_it =
            |queued: &Queued| matches!(&queued.kind, Kind::Commit(promise) if promise.seq == seq);
        let queued = self.queue.remove(self.queue.iter().position(is_it)?)?;
        self.bytes -= queued.size();
        match queued.kind {
            Kind::Commit(promise) => Some(promise),
            Kind::Word | Kind::Attached(_) | Kind::Message => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.overrun
    }

    /// Sends as much as there is room for, and says whether that was all. Each commit is told of as soon as it
    /// was sent.
    ///
    /// # Errors
    /// [`FlushFailed`]; the link is of no more use then.
    pub(crate) fn flush(
        &mut self,
        link: &Link,
        mut committed: impl FnMut(Promise),
    ) -> Result<bool, FlushFailed> {
        if self.overrun {
            return Err(FlushFailed::Overrun);
        }
        while let Some(first) = self.queue.front() {
            if !link.may_have_room() {
                return Ok(false);
            }
            let words = self.words_together();
            let (packet, memfd) = match &first.kind {
                Kind::Message | Kind::Commit(_) => (Cow::Borrowed(&*first.json), None),
                Kind::Word => (Cow::Owned(posted(self.queue.iter().take(words))), None),
                Kind::Attached(bytes) => {
                    let memfd =
                        blob::write(bytes).map_err(|source| LinkError::Socket { source })?;
                    (Cow::Owned(posted(std::iter::once(first))), Some(memfd))
                }
            };
            let descriptors: Vec<_> = memfd.iter().map(|memfd| memfd.as_fd()).collect();
            if !link.try_send_packet(&packet, &descriptors)? {
                return Ok(false);
            }
            for sent in self.queue.drain(..words.max(1)) {
                self.bytes -= sent.size();
                if let Kind::Commit(promise) = sent.kind {
                    committed(promise);
                }
            }
        }
        Ok(true)
    }

    /// How many words at the front of the queue go into one packet.
    fn words_together(&self) -> usize {
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            bytes += queued.json.len();
            matches!(queued.kind, Kind::Word) && bytes <= PACKET
        };
        self.queue.iter().take_while(fits).count()
    }
}

/// The message with these words.
fn posted<'a>(words: impl Iterator<Item = &'a Queued>) -> Vec<u8> {
    let mut packet = br#"{"type":"post","post":["#.to_vec();
    for (index, word) in words.enumerate() {
        if index > 0 {
            packet.push(b',');
        }
        packet.extend_from_slice(&word.json);
    }
    packet.extend_from_slice(b"]}");
    packet
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
