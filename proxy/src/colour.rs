//! Whether what is printed has colours: only on a terminal, and not for who does not want them.

use std::env;
use std::io::{self, IsTerminal as _};

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    None,
    Some,
}

/// What a piece of text says of how things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Changing,
    Bad,
    Faint,
}

impl Colour {
    /// What suits stdout (<https://no-color.org>: `NO_COLOR` that is not empty).
    pub(crate) fn of_stdout() -> Self {
        let is = |name, word| env::var_os(name).is_some_and(|value| value == word);
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if unwanted || is("TERM", "dumb") || !io::stdout().is_terminal() {
            Self::None
        } else {
            Self::Some
        }
    }

    /// The text in the tone's colour.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match (self, tone) {
            (Self::None, _) | (_, Tone::Plain) => return text.to_owned(),
            (Self::Some, Tone::Good) => "32",
            (Self::Some, Tone::Changing) => "33",
            (Self::Some, Tone::Bad) => "31",
            (Self::Some, Tone::Faint) => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl Tone {
    /// Of the state of a generation.
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "serving" => Self::Good,
            "standby" => Self::Plain,
            "ending" => Self::Faint,
            _ => Self::Changing,
        }
    }

    /// Of something that happened.
    pub(crate) fn of_event(kind: &str) -> Self {
        match kind {
            "crashed" | "not-serving" | "rolled-back" | "overran" | "standby-failed"
            | "not-renewed" | "went-back" | "held-too-long" | "awaits-worker" => Self::Bad,
            "committed" | "serving" | "renewed" | "resumed" | "drained" | "returned" => Self::Good,
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_the_text_is_as_it_was() {
        assert_eq!(Colour::None.paint(Tone::Bad, "crashed"), "crashed");
        assert_eq!(Colour::Some.paint(Tone::Plain, "g1"), "g1");
        assert_eq!(Colour::Some.paint(Tone::Bad, "crashed"), "\u{1b}[31mcrashed\u{1b}[0m");
    }
}
