//! What the adapter and the preload in the program say to one another: lines, on a socket that the program inherits.
//!
//! | to the program | it |
//! | --- | --- |
//! | `accept` | accepts from the shared sockets, as soon as its servers listen |
//! | `stop` | accepts no more, and may be told to accept again |
//! | `leave SIGUSR1 SIGTERM` | lets go of the sockets, and finishes: by the first of these signals it listens for |
//!
//! | from the program | it |
//! | --- | --- |
//! | `listening 80 127.0.0.1:4711` | would listen on port 80, and does on a private one |
//! | `calm`, `busy` | has its one thread free for clients, or has not |
//! | `accepting`, `stopped` | has obeyed |
//! | `closed 80` | has closed its last server of that port by itself |
//! | `restart SIGUSR1` | would have had itself started anew |
//! | `leaving SIGUSR1` | finishes: by that signal, or its servers are closed for it |
//! | `refuse WORDS` | cannot be served this way |
//!
//! **Invariants**
//! - A line that is not understood is passed over; one without an end is cut off.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as Inherited;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tracing::debug;

/// The longest line, in bytes.
const LONGEST: u64 = 4096;
/// How many words may wait for the adapter.
const WORD_QUEUE: usize = 16;

/// What the program says that somebody has to act upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Listening { port: u16, private: SocketAddr },
    Calm,
    Busy,
    Accepting,
    Stopped,
    Closed { port: u16 },
    Restart { signal: String },
    Leaving { signal: Option<String> },
    Refuse { reason: String },
}

/// What is said of the program's own places by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Its private address for each port.
    pub(crate) places: BTreeMap<u16, SocketAddr>,
    /// Whether it is through with its start.
    pub(crate) calm: bool,
    /// Why it cannot be served.
    pub(crate) refused: Option<String>,
}

impl Announced {
    fn note(&mut self, word: &Word) {
        match word {
            Word::Listening { port, private } => drop(self.places.insert(*port, *private)),
            Word::Calm => self.calm = true,
            Word::Busy => self.calm = false,
            Word::Refuse { reason } => self.refused = Some(reason.clone()),
            _ => {}
        }
    }
}

/// [`Announced`], as it is now.
pub(crate) type Announcement = Arc<Mutex<Announced>>;

/// The adapter's end.
#[derive(Debug)]
pub(super) struct Channel {
    to_program: OwnedWriteHalf,
    pub(super) words: mpsc::Receiver<Word>,
}

impl Channel {
    /// The two ends. What is heard of accepting goes to `accepting`, of places to `announced`, the rest to the words.
    ///
    /// # Errors
    /// When the kernel has no more sockets.
    pub(super) fn open(
        announced: Announcement,
        accepting: watch::Sender<bool>,
    ) -> io::Result<(Self, Inherited)> {
        let (ours, theirs) = Inherited::pair()?;
        ours.set_nonblocking(true)?;
        let (from_program, to_program) = UnixStream::from_std(ours)?.into_split();
        let (heard, words) = mpsc::channel(WORD_QUEUE);
        tokio::spawn(hear(from_program, announced, accepting, heard));
        Ok((Self { to_program, words }, theirs))
    }

    /// Tells the program something. One that is gone hears nothing, and its end is met elsewhere.
    pub(super) async fn tell(&mut self, order: &str) {
        if let Err(error) = self.to_program.write_all(format!("{order}\n").as_bytes()).await {
            debug!(%error, order, "the program does not hear");
        }
    }
}

/// Reads what the program says, as long as it lives.
async fn hear(
    from_program: OwnedReadHalf,
    announced: Announcement,
    accepting: watch::Sender<bool>,
    heard: mpsc::Sender<Word>,
) {
    let mut lines = BufReader::new(from_program);
    loop {
        let mut line = String::new();
        match (&mut lines).take(LONGEST).read_line(&mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(word) = line.trim_end().parse::<Word>() else {
            debug!(line, "the program says what is not understood");
            continue;
        };
        debug!(?word, "the program says");
        match &word {
            Word::Accepting => drop(accepting.send_replace(true)),
            Word::Stopped => drop(accepting.send_replace(false)),
            word => announced.lock().unwrap_or_else(PoisonError::into_inner).note(word),
        }
        // It fails only when the adapter leaves.
        let _ = heard.send(word).await;
    }
}

/// A line that means nothing here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAWord;

impl FromStr for Word {
    type Err = NotAWord;

    fn from_str(line: &str) -> Result<Self, NotAWord> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let port = |word: &str| word.parse().map_err(|_| NotAWord);
        match word {
            "listening" => {
                let (public, private) = rest.split_once(' ').ok_or(NotAWord)?;
                let private = private.parse().map_err(|_| NotAWord)?;
                Ok(Self::Listening { port: port(public)?, private })
            }
            "calm" => Ok(Self::Calm),
            "busy" => Ok(Self::Busy),
            "accepting" => Ok(Self::Accepting),
            "stopped" => Ok(Self::Stopped),
            "closed" => Ok(Self::Closed { port: port(rest)? }),
            "restart" => Ok(Self::Restart { signal: rest.to_owned() }),
            "leaving" => {
                Ok(Self::Leaving { signal: Some(rest.to_owned()).filter(|s| !s.is_empty()) })
            }
            "refuse" => Ok(Self::Refuse { reason: rest.to_owned() }),
            _ => Err(NotAWord),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_the_preload_writes_them() {
        let read = |line: &str| line.parse::<Word>();
        let private = "[::1]:4711".parse().unwrap();
        assert_eq!(read("listening 80 [::1]:4711"), Ok(Word::Listening { port: 80, private }));
        assert_eq!(read("accepting"), Ok(Word::Accepting));
        assert_eq!((read("calm"), read("busy")), (Ok(Word::Calm), Ok(Word::Busy)));
        assert_eq!(read("closed 80"), Ok(Word::Closed { port: 80 }));
        assert_eq!(read("leaving "), Ok(Word::Leaving { signal: None }));
        assert_eq!(read("refuse it is so"), Ok(Word::Refuse { reason: "it is so".into() }));
        for line in ["", "listening 80", "listening x 127.0.0.1:1", "closed", "closed 70000", "hi"]
        {
            assert_eq!(read(line), Err(NotAWord), "{line:?}");
        }
    }

    #[tokio::test]
    async fn a_line_that_is_not_understood_is_passed_over() {
        use std::io::Write as _;
        let (accepting, mut now) = watch::channel(false);
        let announced = Announcement::default();
        let (mut channel, mut program) = Channel::open(Arc::clone(&announced), accepting).unwrap();
        let long = "x".repeat(10_000);
        program
            .write_all(format!("{long}\nlistening 80 127.0.0.1:1\naccepting\n").as_bytes())
            .unwrap();
        now.wait_for(|accepting| *accepting).await.unwrap();
        assert!(announced.lock().unwrap().places.contains_key(&80));
        assert!(matches!(channel.words.recv().await, Some(Word::Listening { port: 80, .. })));
    }
}
