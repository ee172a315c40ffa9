//! Reading a file that others write, rename, make anew and cut short.
//!
//! ```text
//! worker.log ──rename──► worker.log.1   read on: the incumbent writes there until it is gone
//!     └── made anew by the next generation ──► read from its begin
//! ```
//!
//! **Invariants**
//! - No more than [`BLOCK`] bytes of a file are in memory, however long its lines are.
//! - Lines of two files do not mix: a begun line waits for its end.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How much is read at once, and the most that is kept of a begun line, in bytes.
const BLOCK: usize = 64 << 10;

/// Why a log could not be shown.
#[derive(Debug, thiserror::Error)]
#[error("could not read {}", path.display())]
pub(crate) struct ReadFailed {
    path: PathBuf,
    source: io::Error,
}

/// Whether somebody reads what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    All,
    ToNobody,
}

/// A path, and the files that are read because of it.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    /// What was at the path before: who has it open may still write.
    earlier: Option<Opened>,
    current: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    at: u64,
    /// A line without an end so far.
    begun: Vec<u8>,
}

impl Followed {
    /// Begins so many lines before the end of what is there. A file that nobody has made yet is waited for.
    pub(super) fn open(path: &Path, lines: usize) -> Result<Self, ReadFailed> {
        let failed = |source| ReadFailed { path: path.to_owned(), source };
        let current = match File::open(path) {
            Ok(mut file) => {
                let at = before_last(&mut file, lines).map_err(failed)?;
                Some(Opened { file, at, begun: Vec::new() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path: path.to_owned(), earlier: None, current })
    }

    /// Writes what has come.
    pub(super) fn go_on(&mut self, output: &mut impl Write) -> Result<Written, ReadFailed> {
        loop {
            for opened in self.earlier.iter_mut().chain(&mut self.current) {
                let path = &self.path;
                let come = opened.pass_on(output);
                match come.map_err(|source| ReadFailed { path: path.clone(), source })? {
                    Written::All => {}
                    Written::ToNobody => return Ok(Written::ToNobody),
                }
            }
            if !self.turn() {
                return Ok(Written::All);
            }
        }
    }

    /// Writes what has come, and a begun line as well.
    pub(super) fn finish(&mut self, output: &mut impl Write) -> Result<(), ReadFailed> {
        if self.go_on(output)? == Written::All
            && let Some(opened) = &self.current
        {
            // A reader that is gone has read enough.
            let _ = output.write_all(&opened.begun).and_then(|()| output.flush());
        }
        Ok(())
    }

    /// Turns to the file that is at the path now, if it is another one.
    fn turn(&mut self) -> bool {
        let Ok(there) = File::open(&self.path) else { return false };
        let same =
            |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        let known = self.current.as_ref().and_then(|opened| opened.file.metadata().ok());
        match (known, there.metadata()) {
            (Some(known), Ok(found)) if same(&known, &found) => false,
            (_, Err(_)) => false,
            (_, Ok(_)) => {
                let next = Opened { file: there, at: 0, begun: Vec::new() };
                self.earlier = self.current.replace(next);
                true
            }
        }
    }
}

impl Opened {
    /// Writes the whole lines that have come.
    fn pass_on(&mut self, output: &mut impl Write) -> io::Result<Written> {
        if self.file.metadata()?.len() < self.at {
            // It was cut short, and is written from its begin again.
            self.at = 0;
            self.begun.clear();
        }
        self.file.seek(SeekFrom::Start(self.at))?;
        loop {
            let kept = self.begun.len();
            self.begun.resize(BLOCK, 0);
            let read = self.file.read(&mut self.begun[kept..])?;
            self.begun.truncate(kept + read);
            self.at += read as u64;
            if read == 0 {
                return Ok(Written::All);
            }
            let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            // A line longer than that is shown in parts.
            let ready = whole.unwrap_or(if self.begun.len() == BLOCK { BLOCK } else { 0 });
            let written = output.write_all(&self.begun[..ready]).and_then(|()| output.flush());
            if written.is_err() {
                return Ok(Written::ToNobody);
            }
            self.begun.drain(..ready);
        }
    }
}

/// Where the last so many lines begin. A line without an end counts.
fn before_last(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    let (mut at, mut ends) = (end, 0);
    let mut block = vec![0; BLOCK];
    while at > 0 {
        let from = at.saturating_sub(BLOCK as u64);
        file.seek(SeekFrom::Start(from))?;
        let length = usize::try_from(at - from).unwrap_or(BLOCK);
        file.read_exact(&mut block[..length])?;
        for (index, byte) in block[..length].iter().enumerate().rev() {
            let position = from + index as u64;
            // The last line's own end begins no other line.
            if *byte == b'\n' && position + 1 < end {
                ends += 1;
                if ends >= lines {
                    return Ok(if lines == 0 { end } else { position + 1 });
                }
            }
        }
        at = from;
    }
    Ok(if lines == 0 { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn with(text: &str) -> Self {
            let place = Self { directory: tempfile::tempdir().unwrap() };
            fs::write(place.path(), text).unwrap();
            place
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("worker.log")
        }

        fn append(&self, text: &str) {
            File::options()
                .append(true)
                .open(self.path())
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
    }

    fn next(followed: &mut Followed) -> String {
        let mut output = Vec::new();
        assert_eq!(followed.go_on(&mut output).unwrap(), Written::All);
        String::from_utf8(output).unwrap()
    }

    fn last(text: &str, lines: usize) -> String {
        let place = Place::with(text);
        let mut output = Vec::new();
        Followed::open(&place.path(), lines).unwrap().finish(&mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn the_last_lines_are_shown_and_no_more() {
        assert_eq!(last("1\n2\n3\n", 2), "2\n3\n");
        assert_eq!(last("1\n2\n3", 2), "2\n3");
        assert_eq!(last("1\n2\n3\n", 9), "1\n2\n3\n");
        assert_eq!(last("1\n2\n3\n", 0), "");
        assert_eq!(last("", 3), "");
        assert_eq!(last("\n\n\n", 2), "\n\n");
        let long = format!("{}\nend\n", "x".repeat(3 * BLOCK));
        assert_eq!(last(&long, 1), "end\n");
        assert_eq!(last(&long, 2), long);
    }

    #[test]
    fn what_is_written_is_followed_line_by_line() {
        let place = Place::with("before\n");
        let mut followed = Followed::open(&place.path(), 0).unwrap();
        assert_eq!(next(&mut followed), "");
        place.append("one\ntw");
        assert_eq!(next(&mut followed), "one\n");
        place.append("o\n");
        assert_eq!(next(&mut followed), "two\n");
    }

    #[test]
    fn a_file_that_is_renamed_is_read_to_the_end_of_who_writes_it_and_the_next_one_from_its_begin()
    {
        let place = Place::with("");
        let mut incumbent = File::options().append(true).open(place.path()).unwrap();
        let mut followed = Followed::open(&place.path(), 9).unwrap();
        fs::rename(place.path(), place.directory.path().join("worker.log.1")).unwrap();
        writeln!(incumbent, "in the one that was renamed").unwrap();
        assert_eq!(next(&mut followed), "in the one that was renamed\n");
        fs::write(place.path(), "in the next one\n").unwrap();
        assert_eq!(next(&mut followed), "in the next one\n");
        write!(incumbent, "the incumbent ").unwrap();
        place.append("more\n");
        assert_eq!(next(&mut followed), "more\n");
        writeln!(incumbent, "drains").unwrap();
        assert_eq!(next(&mut followed), "the incumbent drains\n");
        // Two rotations later nobody writes the first one any more.
        fs::rename(place.path(), place.directory.path().join("worker.log.2")).unwrap();
        fs::write(place.path(), "third\n").unwrap();
        assert_eq!(next(&mut followed), "third\n");
    }

    #[test]
    fn a_file_that_is_cut_short_is_read_from_its_begin() {
        let place = Place::with("a long line before the cut\n");
        let mut followed = Followed::open(&place.path(), 0).unwrap();
        fs::write(place.path(), "after\n").unwrap();
        assert_eq!(next(&mut followed), "after\n");
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("worker.log");
        let mut followed = Followed::open(&path, 5).unwrap();
        assert_eq!(next(&mut followed), "");
        fs::write(&path, "made\n").unwrap();
        assert_eq!(next(&mut followed), "made\n");
    }

    #[test]
    fn a_line_of_any_length_takes_no_more_memory_than_a_block() {
        let place = Place::with("");
        let mut followed = Followed::open(&place.path(), 0).unwrap();
        let line = "x".repeat(5 * BLOCK + 7);
        place.append(&line);
        let shown = next(&mut followed);
        assert_eq!(shown.len(), 5 * BLOCK);
        let opened = followed.current.as_ref().unwrap();
        assert!(opened.begun.capacity() <= 2 * BLOCK, "{}", opened.begun.capacity());
    }

    #[test]
    fn a_reader_that_is_gone_ends_it() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let place = Place::with("line\n");
        let mut followed = Followed::open(&place.path(), 1).unwrap();
        assert_eq!(followed.go_on(&mut Gone).unwrap(), Written::ToNobody);
    }
}
