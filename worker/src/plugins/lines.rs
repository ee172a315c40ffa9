//! Lines from a program that may never end one.
//!
//! **Invariants**
//! - No more than the limit is kept of a line, whatever is written.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineFailed {
    /// The pipe.
    #[error("could not read what it says")]
    Read {
        /// What the kernel said.
        source: io::Error,
    },
    /// It is longer than it may be.
    #[error("it said a line of more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
}

/// The lines of a stream.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: R,
    /// What has come of the next line; in it is what [`Self::next`] has returned last.
    line: Vec<u8>,
    limit: usize,
    returned: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Of lines that are no longer than `limit` bytes.
    pub(super) const fn new(from: R, limit: usize) -> Self {
        Self { from, line: Vec::new(), limit, returned: false }
    }

    /// The next line without its end; `None` at the end of the stream. What is there without an end then is no
    /// line. Cancel safe.
    ///
    /// # Errors
    /// [`LineFailed`]; there are no further lines.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, LineFailed> {
        if std::mem::take(&mut self.returned) {
            self.line.clear();
        }
        loop {
            let read = self.from.fill_buf().await.map_err(|source| LineFailed::Read { source })?;
            if read.is_empty() {
                return Ok(None);
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let more = &read[..end.unwrap_or(read.len())];
            if self.line.len() + more.len() > self.limit {
                return Err(LineFailed::TooLong { limit: self.limit });
            }
            self.line.extend_from_slice(more);
            let used = more.len() + usize::from(end.is_some());
            self.from.consume(used);
            if end.is_some() {
                self.returned = true;
                return Ok(Some(&self.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn lines_come_whole_however_they_were_written() {
        let written = b"one\n\ntwo words\nno end";
        for capacity in [1, 2, 5, 100] {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, &written[..]), 9);
            for expected in [&b"one"[..], b"", b"two words"] {
                assert_eq!(lines.next().await.unwrap(), Some(expected));
            }
            assert_eq!(lines.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_refused_before_it_is_kept() {
        let written = [b'x'; 1000];
        let mut lines = Lines::new(BufReader::with_capacity(4, &written[..]), 10);
        assert!(matches!(lines.next().await, Err(LineFailed::TooLong { limit: 10 })));
        assert!(lines.line.len() <= 10);
    }
}
