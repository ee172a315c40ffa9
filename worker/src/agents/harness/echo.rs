//! The agent that needs no key and no network: it streams the user's message back, word by word.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::Turn;

/// The echo harness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    /// How long it thinks before each word, unless a turn says otherwise.
    pub(crate) word_delay: Duration,
}

impl Echo {
    pub(super) fn run(self, turn: Turn) -> EchoRun {
        EchoRun {
            message: turn.message,
            said: 0,
            word_delay: turn.word_delay.unwrap_or(self.word_delay),
            thinking: None,
        }
    }
}

/// An echo under way.
#[derive(Debug)]
pub(crate) struct EchoRun {
    message: String,
    /// How much of the message has been said, in bytes.
    said: usize,
    word_delay: Duration,
    thinking: Option<Pin<Box<Sleep>>>,
}

impl EchoRun {
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<&str>> {
        if self.said == self.message.len() {
            return Poll::Ready(None);
        }
        if !self.word_delay.is_zero() {
            let delay = self.word_delay;
            let thinking = self.thinking.get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
            ready!(thinking.as_mut().poll(context));
            self.thinking = None;
        }
        let begin = self.said;
        self.said += word_length(&self.message[begin..]);
        Poll::Ready(Some(&self.message[begin..self.said]))
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
        while let Some(piece) =
            poll_fn(|context| run.poll_piece(context).map(|piece| piece.map(str::to_owned))).await
        {
            pieces.push(piece);
        }
        pieces
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

    #[tokio::test]
    async fn it_thinks_before_each_word_for_as_long_as_it_was_told() {
        let begun_at = std::time::Instant::now();
        assert_eq!(pieces("a b c", Duration::from_millis(20)).await.len(), 3);
        assert!(begun_at.elapsed() >= Duration::from_millis(60));
    }
}
