//! What is done to an entry of the corpus before a decoder gets it.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::Index;

/// Numbers at which a reader may stumble.
const NUMBERS: [u32; 8] = [0, 1, 0x7f, 0xff, 0xffff, 1 << 20, i32::MAX as u32, u32::MAX];

/// What is done to an entry of the corpus.
#[derive(Clone, Debug)]
pub(super) enum Mutation {
    /// One bit is another.
    Flip { at: Index, bit: u8 },
    /// It ends here.
    Cut { at: Index },
    /// So many bytes are missing.
    Lack { at: Index, bytes: usize },
    /// A part of another entry is in it.
    Splice { other: Index, from: Index, bytes: usize, at: Index },
    /// Four bytes are this number, as a length is written.
    Length { at: Index, number: usize },
    /// The digits of a number are all this one.
    Digits { which: Index, digit: u8 },
    /// Bytes that mean something elsewhere are in it.
    Insert { at: Index, word: usize },
}

/// What means something in JSON, or might.
const WORDS: [&[u8]; 8] = [
    b"\"",
    b"\\u0000",
    b"{\"type\":",
    b"null",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        at().prop_map(|at| Mutation::Cut { at }),
        (at(), 1..40_usize).prop_map(|(at, bytes)| Mutation::Lack { at, bytes }),
        (at(), at(), 1..400_usize, at()).prop_map(|(other, from, bytes, at)| Mutation::Splice {
            other,
            from,
            bytes,
            at
        }),
        (at(), 0..NUMBERS.len()).prop_map(|(at, number)| Mutation::Length { at, number }),
        (at(), b'0'..=b'9').prop_map(|(which, digit)| Mutation::Digits { which, digit }),
        (at(), 0..WORDS.len()).prop_map(|(at, word)| Mutation::Insert { at, word }),
    ]
}

/// An entry of the corpus, and what is done to it.
pub(super) fn mutations() -> impl Strategy<Value = (Index, Vec<Mutation>)> {
    (any::<Index>(), vec(mutation(), 0..5))
}

pub(super) fn mutated(corpus: &[Vec<u8>], entry: Index, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = entry.get(corpus).clone();
    for mutation in mutations {
        let length = bytes.len();
        let place = |at: &Index| at.index(length + 1);
        match mutation {
            Mutation::Flip { at, bit } => {
                if let Some(byte) = bytes.get_mut(place(at)) {
                    *byte ^= 1 << bit;
                }
            }
            Mutation::Cut { at } => bytes.truncate(place(at)),
            Mutation::Lack { at, bytes: lack } => {
                let from = place(at);
                let to = bytes.len().min(from + lack);
                bytes.drain(from..to);
            }
            Mutation::Splice { other, from, bytes: most, at } => {
                let other = other.get(corpus);
                let from = from.index(other.len() + 1);
                let part = &other[from..other.len().min(from + most)];
                let at = place(at);
                bytes.splice(at..at, part.iter().copied());
            }
            Mutation::Length { at, number } => {
                let from = place(at);
                let to = bytes.len().min(from + 4);
                bytes.splice(from..to, NUMBERS[*number].to_le_bytes());
            }
            Mutation::Digits { which, digit } => {
                let begins = |at: &usize| {
                    bytes[*at].is_ascii_digit() && (*at == 0 || !bytes[at - 1].is_ascii_digit())
                };
                let numbers: Vec<usize> = (0..bytes.len()).filter(begins).collect();
                if !numbers.is_empty() {
                    let from = *which.get(&numbers);
                    let digits = bytes[from..].iter_mut().take_while(|byte| byte.is_ascii_digit());
                    digits.for_each(|byte| *byte = *digit);
                }
            }
            Mutation::Insert { at, word } => {
                let at = place(at);
                bytes.splice(at..at, WORDS[*word].iter().copied());
            }
        }
    }
    bytes
}
