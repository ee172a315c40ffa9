//! The agent that needs no key and no network: it streams the user's message back, word by word.
//!
//! For demonstrations and tests a message can ask for trouble: `/slow 250 …` has it think 250 ms before each
//! word of the rest, and `/fail no idea` has it fail for that reason.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::{Failure, Piece, Reason, Turn};

/// The longest that a message may have it think before a word, in ms.
const LONGEST_DELAY_MS: u64 = 60_000;

/// The echo harness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    /// How long it thinks before each word, unless a turn says otherwise.
    pub(crate) word_delay: Duration,
}

impl Echo {
    pub(super) fn run(self, turn: Turn) -> EchoRun {
        let word_delay = turn.word_delay.unwrap_or(self.word_delay);
        let (begins_at, word_delay, then) = match Wish::of(&turn.message) {
            Wish::Nothing => (0, word_delay, Then::End),
            Wish::Slow { delay, rest } => (turn.message.len() - rest.len(), delay, Then::End),
            Wish::Fail { reason } => {
                let failure = Failure::new(Reason::Unknown, reason);
                (turn.message.len(), word_delay, Then::Fail(failure))
            }
        };
        EchoRun { message: turn.message, said: begins_at, word_delay, thinking: None, then }
    }
}

/// What a message asks for beside being said back.
#[derive(Debug, PartialEq, Eq)]
enum Wish<'a> {
    Nothing,
    Slow { delay: Duration, rest: &'a str },
    Fail { reason: &'a str },
}

impl<'a> Wish<'a> {
    /// A message that asks in a way that is not understood is said back as it is.
    fn of(message: &'a str) -> Self {
        if let Some(reason) = message.strip_prefix("/fail ") {
            return Self::Fail { reason };
        }
        let slow = message.strip_prefix("/slow ").and_then(|rest| {
            let (delay, rest) = rest.split_once(' ')?;
            let ms = delay.parse().ok().filter(|ms| *ms <= LONGEST_DELAY_MS)?;
            Some(Self::Slow { delay: Duration::from_millis(ms), rest })
        });
        slow.unwrap_or(Self::Nothing)
    }
}

/// How an echo ends.
#[derive(Debug)]
enum Then {
    End,
    Fail(Failure),
}

/// An echo under way.
#[derive(Debug)]
pub(crate) struct EchoRun {
    message: String,
    /// How much of the message has been said, in bytes.
    said: usize,
    word_delay: Duration,
    thinking: Option<Pin<Box<Sleep>>>,
    then: Then,
}

impl EchoRun {
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Piece<'_>> {
        if self.said == self.message.len() {
            return Poll::Ready(match &self.then {
                Then::End => Piece::End,
                Then::Fail(failure) => Piece::Failed(failure),
            });
        }
        if !self.word_delay.is_zero() {
            let delay = self.word_delay;
            let thinking = self.thinking.get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
            ready!(thinking.as_mut().poll(context));
            self.thinking = None;
        }
        let begin = self.said;
        self.said += word_length(&self.message[begin..]);
        Poll::Ready(Piece::Text(&self.message[begin..self.said]))
    }
}

/// How many bytes the first word has, with the white space before it, and the white space after it if
/// nothing else follows: the words of a message make up the message.
fn word_length(text: &str) -> usize {
    let start = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
    let end = text[start..].find(char::is_whitespace).map_or(text.len(), |length| start + length);
    if text[end..].trim_start().is_empty() { text.len() } else { end }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn pieces(message: &str, word_delay: Duration) -> Vec<String> {
        let echo = Echo { word_delay: Duration::from_secs(3600) };
        let turn = Turn { message: message.to_owned(), word_delay: Some(word_delay) };
        let mut run = echo.run(turn);
        let mut pieces = Vec::new();
        loop {
            let piece = poll_fn(|context| {
                run.poll_piece(context).map(|piece| match piece {
                    Piece::Text(text) => Some(text.to_owned()),
                    Piece::End => None,
                    Piece::Failed(failure) => panic!("{failure}"),
                })
            });
            match piece.await {
                Some(piece) => pieces.push(piece),
                None => return pieces,
            }
        }
    }

    #[tokio::test]
    async fn the_words_of_a_message_make_up_the_message() {
        assert_eq!(
            pieces("hello from  holdfast", Duration::ZERO).await,
            ["hello", " from", "  holdfast"]
        );
        for message in ["", "a", " a", "a ", " \n ", "ä ö\tü\u{3000}日本 ", "a\n\nb  "] {
            assert_eq!(pieces(message, Duration::ZERO).await.concat(), message, "{message:?}");
        }
    }

    #[test]
    fn a_message_may_ask_for_trouble() {
        let slow = |ms, rest| Wish::Slow { delay: Duration::from_millis(ms), rest };
        for (message, wish) in [
            ("hello", Wish::Nothing),
            ("/slow 250 a b", slow(250, "a b")),
            ("/slow 0 a", slow(0, "a")),
            ("/slow 60001 a", Wish::Nothing),
            ("/slow fast a", Wish::Nothing),
            ("/slow 5", Wish::Nothing),
            ("/fail no idea", Wish::Fail { reason: "no idea" }),
            ("/failure", Wish::Nothing),
        ] {
            assert_eq!(Wish::of(message), wish, "{message}");
        }
    }

    #[tokio::test]
    async fn it_thinks_before_each_word_for_as_long_as_it_was_told() {
        let begun_at = std::time::Instant::now();
        assert_eq!(pieces("a b c", Duration::from_millis(20)).await.len(), 3);
        assert!(begun_at.elapsed() >= Duration::from_millis(60));
    }
}
