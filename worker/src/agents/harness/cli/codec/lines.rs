//! Bytes cut into lines, whatever the pieces in which they come.

/// The longest line there may be was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of its output had more than {most} bytes")]
pub(crate) struct LineTooLong {
    /// What was allowed.
    pub(crate) most: usize,
}

/// What was read, and not yet understood.
#[derive(Debug)]
pub(in super::super) struct Lines {
    waiting: Vec<u8>,
    /// Up to where the lines were taken out.
    taken: usize,
    /// Up to where there is no line's end.
    searched: usize,
    longest: usize,
}

impl Lines {
    /// Lines of at most `longest` bytes, the first of which begin with what was read ahead.
    pub(in super::super) const fn resumed(longest: usize, read_ahead: Vec<u8>) -> Self {
        Self { waiting: read_ahead, taken: 0, searched: 0, longest }
    }

    /// Takes in what was read. Whoever does so takes the lines out before the next read.
    pub(in super::super) fn push(&mut self, bytes: &[u8]) {
        self.waiting.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.waiting.extend_from_slice(bytes);
    }

    /// The next whole line, without its end.
    ///
    /// # Errors
    /// [`LineTooLong`], again and again: what follows would be the rest of a line.
    pub(in super::super) fn next(&mut self) -> Option<Result<&[u8], LineTooLong>> {
        let most = self.longest;
        let found = self.waiting[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(found) = found else {
            self.searched = self.waiting.len();
            return (self.searched - self.taken > most).then_some(Err(LineTooLong { most }));
        };
        let (begin, end) = (self.taken, self.searched + found);
        if end - begin > most {
            return Some(Err(LineTooLong { most }));
        }
        (self.taken, self.searched) = (end + 1, end + 1);
        let line = &self.waiting[begin..end];
        Some(Ok(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// How many bytes were read and are in no line yet.
    pub(in super::super) const fn ahead(&self) -> usize {
        self.waiting.len() - self.taken
    }

    /// What was read and is in no line yet: the last line of a program that has ended without ending it.
    pub(in super::super) fn into_read_ahead(mut self) -> Vec<u8> {
        self.waiting.drain(..self.taken);
        self.waiting
    }
}
