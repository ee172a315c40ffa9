//! Server-sent events out of bytes that come in any portions. Pure.
//!
//! ```text
//! bytes ─► lines (LF, CR or CRLF) ─► fields; an empty line ends an event ─► the data of events
//! ```
//!
//! **Invariants**
//! - However the bytes are cut, the same events come out.
//! - A line, and the data of an event, are bounded; one that is longer ends the stream.
//!
//! The format is that of the HTML standard, section 9.2.6; only `data` is of interest here.

/// The longest line, and the most data of one event, in bytes.
const LONGEST: usize = 1024 * 1024;

/// An event is longer than anybody would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {LONGEST} bytes")]
pub(super) struct TooLong;

/// What has come and was not taken yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    bytes: Vec<u8>,
    /// Up to where they were taken.
    taken: usize,
    /// Up to where no line ends, after what was taken.
    searched: usize,
    /// The last line ended with CR, and an LF would belong to it.
    after_cr: bool,
    begun: bool,
    data: Option<String>,
}

impl Events {
    /// More bytes have come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The data of the next event that is there whole.
    ///
    /// # Errors
    /// [`TooLong`]
    pub(super) fn next_event(&mut self) -> Result<Option<String>, TooLong> {
        while let Some(line) = self.next_line()? {
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            if name != "data" {
                continue;
            }
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) if data.len() + value.len() < LONGEST => {
                    data.push('\n');
                    data.push_str(value);
                }
                Some(_) => return Err(TooLong),
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<String>, TooLong> {
        if self.after_cr && self.taken < self.bytes.len() {
            self.after_cr = false;
            if self.bytes[self.taken] == b'\n' {
                self.taken += 1;
            }
            self.searched = self.searched.max(self.taken);
        }
        let unsearched = &self.bytes[self.searched..];
        let Some(length) = unsearched.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.searched = self.bytes.len();
            let length = self.searched - self.taken;
            return if length > LONGEST { Err(TooLong) } else { Ok(None) };
        };
        let end = self.searched + length;
        let line = &self.bytes[self.taken..end];
        if line.len() > LONGEST {
            return Err(TooLong);
        }
        let line = String::from_utf8_lossy(line);
        let line = if self.begun { line } else { line.trim_start_matches('\u{feff}').into() };
        let line = line.into_owned();
        self.begun = true;
        self.after_cr = self.bytes[end] == b'\r';
        self.taken = end + 1;
        self.searched = self.taken;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events<'a>(portions: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, TooLong> {
        let (mut events, mut all) = (Events::default(), Vec::new());
        for portion in portions {
            events.push(portion);
            while let Some(data) = events.next_event()? {
                all.push(data);
            }
        }
        Ok(all)
    }

    #[test]
    fn the_data_of_whole_events_comes_out() {
        for (stream, expected) in [
            ("data: a\n\ndata: b\n\n", &["a", "b"][..]),
            ("\u{feff}data:a\r\n\r\ndata:  b\r\r", &["a", " b"]),
            (": comment\nevent: x\nid: 7\ndata: a\ndata\ndata: b\n\n\n\n", &["a\n\nb"]),
            ("data: ä\u{1F980}\n\ndata: not whole\n", &["ä\u{1F980}"]),
            ("event: ping\n\ndatax: a\n\n", &[]),
            ("data\n\n", &[""]),
        ] {
            assert_eq!(events([stream.as_bytes()]).unwrap(), expected, "{stream:?}");
        }
    }

    #[test]
    fn a_line_that_does_not_end_and_data_that_do_not_end_stop_the_stream() {
        let portion = vec![b'x'; LONGEST / 4];
        assert_eq!(events(std::iter::repeat_n(&portion[..], 5)), Err(TooLong));
        let line = [b"data: ".as_slice(), &portion, b"\n"].concat();
        assert_eq!(events(std::iter::repeat_n(&line[..], 5)), Err(TooLong));
        let event = [&line[..], b"\n"].concat();
        assert_eq!(events(std::iter::repeat_n(&event[..], 20)).unwrap().len(), 20);
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_same_events_come_out(
            lines in prop::collection::vec("(data: ?|data|:|event: )?(\\PC{0,6}|)(\n|\r|\r\n){1,2}", 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream = lines.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(stream.len());
            let mut from = 0;
            let portions: Vec<_> = cuts
                .into_iter()
                .map(|to| {
                    let portion = &stream[from..to];
                    from = to;
                    portion
                })
                .collect();
            prop_assert_eq!(events(portions), events([&stream[..]]));
        }
    }
}
