//! Where in a JSON5 text each value lies, so that a problem can be placed and one value replaced
//! without touching the rest.
//!
//! **Invariants**
//! - It reads texts that [`super::text::parse`] has accepted; of another it may answer `None`, and never
//!   panics or goes deeper than that.

use std::ops::Range;

use json5::char::{is_json5_line_terminator, is_json5_whitespace};

use super::key_path::{KeyPath, Step};
use super::text::DEEPEST;

/// A value's place.
#[derive(Debug)]
pub(crate) struct Spanned {
    /// Its bytes in the text.
    pub(crate) span: Range<usize>,
    /// What is in it.
    pub(crate) inside: Inside,
}

/// What is in a value.
#[derive(Debug)]
pub(crate) enum Inside {
    /// Members, in the order of the text.
    Object(Vec<Item>),
    /// Elements; their keys are empty.
    Array(Vec<Item>),
    /// Nothing that has a place of its own.
    Scalar,
}

/// A member or an element.
#[derive(Debug)]
pub(crate) struct Item {
    /// The member's key.
    pub(crate) key: String,
    /// Where the item begins: at its key, or at its value.
    pub(crate) start: usize,
    /// Its value.
    pub(crate) value: Spanned,
    /// The comma behind it.
    pub(super) comma: Option<usize>,
}

impl Spanned {
    /// The place of the value at `path`, or as far as the text has that path.
    pub(super) fn nearest(&self, path: &KeyPath) -> &Self {
        let mut here = self;
        for step in path.steps() {
            let found = match (step, &here.inside) {
                // The last of several is the one that counts.
                (Step::Key(key), Inside::Object(items)) => {
                    items.iter().rev().find(|item| item.key == *key)
                }
                (Step::Index(index), Inside::Array(items)) => items.get(*index),
                _ => None,
            };
            match found {
                Some(item) => here = &item.value,
                None => break,
            }
        }
        here
    }
}

/// The places of a text's values.
pub(crate) fn spans(text: &str) -> Option<Spanned> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip_trivia()?;
    scanner.value(0)
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Whitespace and comments.
    fn skip_trivia(&mut self) -> Option<()> {
        while let Some(c) = self.peek() {
            let rest = &self.text[self.at..];
            if is_json5_whitespace(c) {
                self.next();
            } else if rest.starts_with("//") {
                self.at += rest.find(is_json5_line_terminator).unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                self.at += 2 + comment.find("*/")? + 2;
            } else {
                break;
            }
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Spanned> {
        let start = self.at;
        let inside = match self.peek()? {
            '{' if depth < DEEPEST => Inside::Object(self.items('}', depth)?),
            '[' if depth < DEEPEST => Inside::Array(self.items(']', depth)?),
            '{' | '[' => return None,
            '"' | '\'' => {
                self.string()?;
                Inside::Scalar
            }
            _ => {
                self.word(&[',', ']', '}', '/']);
                Inside::Scalar
            }
        };
        (self.at > start).then_some(Spanned { span: start..self.at, inside })
    }

    fn items(&mut self, close: char, depth: usize) -> Option<Vec<Item>> {
        self.next();
        let mut items = Vec::new();
        loop {
            self.skip_trivia()?;
            if self.peek()? == close {
                self.next();
                return Some(items);
            }
            let start = self.at;
            let key = if close == '}' { self.key()? } else { String::new() };
            let value = self.value(depth + 1)?;
            self.skip_trivia()?;
            let comma = (self.peek()? == ',').then_some(self.at);
            match comma {
                Some(_) => _ = self.next(),
                None if self.peek()? != close => return None,
                None => {}
            }
            items.push(Item { key, start, value, comma });
        }
    }

    /// A key, and all until its value.
    fn key(&mut self) -> Option<String> {
        let start = self.at;
        match self.peek()? {
            '"' | '\'' => self.string()?,
            _ => self.word(&[':', '/']),
        }
        let written = &self.text[start..self.at];
        let bare = written.trim_matches(['"', '\'']);
        let key = if bare.contains(['"', '\'', '\\']) || bare.len() + 2 < written.len() {
            let as_member = format!("{{{written}:0}}");
            json5::from_str::<std::collections::BTreeMap<String, u8>>(&as_member)
                .ok()?
                .pop_first()?
                .0
        } else {
            bare.to_owned()
        };
        self.skip_trivia()?;
        if self.next()? != ':' {
            return None;
        }
        self.skip_trivia()?;
        Some(key)
    }

    fn string(&mut self) -> Option<()> {
        let quote = self.next()?;
        loop {
            match self.next()? {
                '\\' => _ = self.next()?,
                c if c == quote => return Some(()),
                _ => {}
            }
        }
    }

    fn word(&mut self, ends: &[char]) {
        while let Some(c) = self.peek()
            && !is_json5_whitespace(c)
            && !ends.contains(&c)
        {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'t>(text: &'t str, path: &KeyPath) -> &'t str {
        &text[spans(text).unwrap().nearest(path).span.clone()]
    }

    #[test]
    fn every_value_is_found_where_it_was_written() {
        let text = "// {a: 1}\n{ gateway /*:*/ : { 'po\\u0072t': 1 /* , */, }, list: [ {id: '}'}, -1.5,] }";
        assert_eq!(at(text, &KeyPath::of("gateway.port")), "1");
        let list = KeyPath::of("list");
        assert_eq!(at(text, &list.index(0)), "{id: '}'}");
        assert_eq!(at(text, &list.index(0).key("id")), "'}'");
        assert_eq!(at(text, &list.index(1)), "-1.5");
        assert_eq!(at(text, &KeyPath::of("list.nothing")), "[ {id: '}'}, -1.5,]");
    }

    #[test]
    fn a_text_that_is_none_costs_nothing() {
        for text in ["", "{", "{a", "{a:", "{a:1", "[1 2]", "/*", "'", &"[".repeat(100_000)] {
            assert!(spans(text).is_none(), "{:.9}", text);
        }
    }
}
