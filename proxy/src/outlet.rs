//! Output that nobody waits for: what finds its pipe full is dropped, and counted.
//!
//! A front whose log is read by somebody that stands still would otherwise stand still with it, and its port. The
//! descriptor itself may not be made non-blocking, because workers and whoever started the front share that.
//!
//! **Invariants**
//! - No write waits, but for one to a regular file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, OFlags, fstat};
use rustix::net::{SendFlags, send};

/// Where this process's log goes, once it is written.
pub(crate) static LOG: OnceLock<Outlet> = OnceLock::new();

/// A way out of this process.
#[derive(Debug)]
pub(crate) struct Outlet {
    way: Way,
    lost: AtomicU64,
}

#[derive(Debug)]
enum Way {
    /// A socket, which is told with each send not to wait.
    Socket(OwnedFd),
    /// A pipe or terminal that was opened once more, so that only this process does not wait for it; or a file.
    File(File),
}

impl Outlet {
    /// A way out beside this standard stream.
    ///
    /// # Errors
    /// When the stream is closed.
    pub(crate) fn beside(stream: impl std::os::fd::AsFd) -> io::Result<Self> {
        let copy = stream.as_fd().try_clone_to_owned()?;
        let way = match FileType::from_raw_mode(fstat(&copy)?.st_mode) {
            FileType::Socket => Way::Socket(copy),
            FileType::Fifo | FileType::CharacterDevice => {
                let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
                let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
                let flags = flags.bits().cast_signed();
                let again = File::options().write(true).custom_flags(flags).open(path);
                // One that belongs to somebody else cannot be opened, and is written to as it is.
                Way::File(again.unwrap_or_else(|_| copy.into()))
            }
            _ => Way::File(copy.into()),
        };
        Ok(Self { way, lost: AtomicU64::new(0) })
    }

    /// Writes all of it, or nothing of what there is no room for.
    pub(crate) fn offer(&self, text: &[u8]) {
        let outcome = match &self.way {
            Way::Socket(socket) => send(socket, text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                .map(drop)
                .map_err(Into::into),
            Way::File(file) => (&mut &*file).write_all(text),
        };
        if outcome.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many texts were dropped.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// For a log, whose lines come one write each.
impl Write for &Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.offer(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_full_pipe_is_not_waited_for_and_what_it_loses_is_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::beside(&writer).unwrap();
        let line = [b'x'; 1000];
        while outlet.lost() == 0 {
            outlet.offer(&line);
        }
        // The other end of the pipe is as it was for everybody else.
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
        let mut room = vec![0; 1 << 16];
        reader.read_exact(&mut room[..8000]).unwrap();
        outlet.offer(b"again\n");
        assert_eq!(outlet.lost(), 1);
    }

    #[test]
    fn a_socket_that_nobody_reads_is_not_waited_for_either() {
        let (_reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let outlet = Outlet::beside(&writer).unwrap();
        while outlet.lost() == 0 {
            outlet.offer(&[b'x'; 1000]);
        }
    }
}
