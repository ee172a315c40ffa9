//! Whether the client of a request that is being worked on is still there.
//!
//! Its FIN does not say: it comes from one that sends no more and reads on (RFC 9293, 3.6) as from one that
//! closed altogether. What we write tells them apart, since a closed socket answers it with a reset.
//!
//! ```text
//! request begins ─► quiet: the event loop wakes us by the next news
//!                     ▼
//!                   poll(2): reset or hung up ───────────────────────────► gone: the run ends
//!                     │      FIN ─► something is said (below), and looked again ─┘
//!                     └      unread bytes, behind which a FIN is not told ─► looked again
//!
//! nothing is answered yet    `100 Continue`; HTTP/1.0 does not know it: a FIN is the end there
//! events are being streamed  a comment
//! ```
//!
//! **Invariants**
//! - Nothing is read here, and a request that is answered at once costs no system call.
//! - Only a client that has closed its sending side is ever said anything by us alone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use handoff::Stream;
use hyper::Version;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{ioctl_fionread, retry_on_intr};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::census::Visitor;

/// The one interim response that every client passes over unasked (RFC 9110, 15.2.1): Python's `http.client`
/// takes 102 for the answer. Node's `fetch` fails on 100, but never closes one side alone.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How soon after a FIN the next look is, which asks: most answers are out by then. The pauses double, up to
/// [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may be gone before it is noticed, once a look is due; also while unread bytes hide a FIN.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long it takes until a client that was there is asked again; then twice as long, and so on: some
/// clients, as Go's, pass over five interim responses and no more.
const ASKED_AGAIN: Duration = Duration::from_secs(30);

/// What a connection's io and its responses know of one another.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) visitor: Arc<Visitor>,
    means: AtomicU8,
    comment_due: AtomicBool,
}

/// How a client can be asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Means {
    /// In no way.
    None,
    /// By an interim response.
    Interim,
    /// By a comment between two events.
    Comment,
}

impl Means {
    const ALL: [Self; 3] = [Self::None, Self::Interim, Self::Comment];
}

impl Presence {
    pub(super) fn new(visitor: Arc<Visitor>) -> Self {
        let means = AtomicU8::new(Means::None as u8);
        Self { visitor, means, comment_due: AtomicBool::new(false) }
    }

    /// A request of this version begins to be worked on.
    pub(super) fn request_begun(&self, version: Version) {
        let knows_interim = version >= Version::HTTP_11;
        let means = if knows_interim { Means::Interim } else { Means::None };
        self.means.store(means as u8, Relaxed);
    }

    /// The response begins: from now on only its body can say anything.
    pub(super) fn response_begun(&self) {
        self.comment_due.store(false, Relaxed);
        self.means.store(Means::Comment as u8, Relaxed);
    }

    /// Whether a stream of events is to say something now, whatever it says; asking takes it back.
    pub(super) fn take_comment_due(&self) -> bool {
        self.comment_due.load(Relaxed) && self.comment_due.swap(false, Relaxed)
    }

    fn means(&self) -> Means {
        Means::ALL[usize::from(self.means.load(Relaxed))]
    }
}

/// Keeps an eye on a client while its requests are worked on.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    /// `None` while the event loop would tell us.
    doubt: Option<Box<Doubt>>,
}

/// The event loop has told all it will: it must be looked by the clock.
#[derive(Debug)]
struct Doubt {
    again: Pin<Box<Sleep>>,
    pause: Duration,
    ask_at: Instant,
    ask_pause: Duration,
}

impl Vigil {
    /// Looks, if there is a reason to, and sees to it that the next reason wakes us. What is returned is to be
    /// said to the client, after which this is to be polled again.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        stream: &Stream,
        presence: &Presence,
    ) -> io::Result<Option<&'static [u8]>> {
        loop {
            let news = match &mut self.doubt {
                Some(doubt) => doubt.again.as_mut().poll(context).map(Ok),
                None => stream.poll_read_ready(context),
            };
            match news {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => return Ok(None),
            }
            // A look that sees nothing turns the event loop's news back.
            match stream.try_read_ready(|| look(stream)) {
                Ok(Seen::Unread) => self.doubt().look_in(LONGEST_PAUSE),
                Ok(Seen::HalfClosed) => match self.doubt().ask(presence.means(), stream)? {
                    Some(Means::Interim) => return Ok(Some(INTERIM)),
                    Some(Means::Comment) => {
                        presence.comment_due.store(true, Relaxed);
                        context.waker().wake_by_ref();
                    }
                    Some(Means::None) | None => {}
                },
                Ok(Seen::Gone) => return Err(gone()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.doubt = None,
                Err(error) => return Err(error),
            }
        }
    }

    fn doubt(&mut self) -> &mut Doubt {
        let now = Instant::now();
        self.doubt.get_or_insert_with(|| {
            Box::new(Doubt {
                again: Box::pin(sleep_until(now)),
                pause: FIRST_PAUSE,
                ask_at: now + FIRST_PAUSE,
                ask_pause: ASKED_AGAIN,
            })
        })
    }
}

impl Doubt {
    /// The client has closed its sending side: asks it by these means if it is time to.
    fn ask(&mut self, means: Means, stream: &Stream) -> io::Result<Option<Means>> {
        let now = Instant::now();
        let due = (self.ask_at <= now).then_some(means);
        match due {
            // Unread bytes mean that a body is still being received; its FIN says nothing yet.
            Some(Means::None) if ioctl_fionread(stream)? == 0 => return Err(gone()),
            Some(Means::None) | None => {}
            Some(Means::Interim | Means::Comment) => {
                self.ask_at = now + self.ask_pause;
                self.ask_pause *= 2;
                self.pause = FIRST_PAUSE;
            }
        }
        self.look_in(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(due)
    }

    fn look_in(&mut self, pause: Duration) {
        self.again.as_mut().reset(Instant::now() + pause);
    }
}

/// What the kernel tells of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It has sent something, and its sending side is open as far as that is known.
    Unread,
    /// It sends no more.
    HalfClosed,
    /// It does not read either.
    Gone,
}

/// # Errors
/// `WouldBlock` when there is nothing to be seen.
fn look(stream: &Stream) -> io::Result<Seen> {
    let mut seen = [PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)];
    retry_on_intr(|| poll(&mut seen, Some(&Timespec::default())))?;
    let seen = seen[0].revents();
    if seen.intersects(PollFlags::HUP | PollFlags::ERR) {
        Ok(Seen::Gone)
    } else if seen.contains(PollFlags::RDHUP) {
        Ok(Seen::HalfClosed)
    } else if seen.contains(PollFlags::IN) {
        Ok(Seen::Unread)
    } else {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the client has left")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::os::unix::net::UnixStream;

    /// Our end of a connection, and the client's.
    fn connection() -> (Stream, UnixStream) {
        let (ours, client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::adopt(ours.into()).unwrap(), client)
    }

    /// A request of this version that is being worked on.
    fn working(version: Version) -> Presence {
        let seat = Arc::new(crate::census::Census::default()).seat();
        let presence = Presence::new(Arc::clone(&seat.visitor));
        presence.request_begun(version);
        presence
    }

    /// The first thing that comes of keeping an eye on it.
    async fn watched(stream: &Stream, presence: &Presence) -> io::Result<&'static [u8]> {
        let mut vigil = Vigil::default();
        let outcome = poll_fn(|context| match vigil.poll(context, stream, presence) {
            Ok(None) if presence.take_comment_due() => Poll::Ready(Ok(&b"a comment"[..])),
            Ok(None) => Poll::Pending,
            Ok(Some(words)) => Poll::Ready(Ok(words)),
            Err(error) => Poll::Ready(Err(error)),
        });
        tokio::time::timeout(Duration::from_secs(20), outcome).await.expect("it is noticed")
    }

    #[tokio::test]
    async fn a_client_that_sends_no_more_is_asked_by_what_it_can_pass_over() {
        let (stream, client) = connection();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let presence = working(Version::HTTP_11);
        assert_eq!(watched(&stream, &presence).await.unwrap(), INTERIM);
        presence.response_begun();
        assert_eq!(watched(&stream, &presence).await.unwrap(), b"a comment");
        assert!(watched(&stream, &working(Version::HTTP_10)).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_whether_something_of_it_is_unread_or_not() {
        for unread in [&b""[..], b"GET / HT"] {
            let (stream, mut client) = connection();
            io::Write::write_all(&mut client, unread).unwrap();
            let presence = working(Version::HTTP_11);
            let mut leaving = Some(client);
            let mut vigil = Vigil::default();
            let noticed = poll_fn(|context| match vigil.poll(context, &stream, &presence) {
                Ok(said) => {
                    assert_eq!(said, None);
                    // It leaves once it is being watched.
                    drop(leaving.take());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(error),
            });
            tokio::time::timeout(Duration::from_secs(20), noticed).await.expect("it is noticed");
        }
    }

    #[tokio::test]
    async fn a_client_that_is_there_is_asked_again_later_and_later() {
        let (stream, _client) = connection();
        let mut vigil = Vigil::default();
        let doubt = vigil.doubt();
        for asked in 0..4 {
            assert_eq!(doubt.ask(Means::Interim, &stream).unwrap(), None);
            doubt.ask_at = Instant::now();
            assert_eq!(doubt.ask(Means::Interim, &stream).unwrap(), Some(Means::Interim));
            let pause = doubt.ask_at - Instant::now();
            assert!(pause > ASKED_AGAIN * 2_u32.pow(asked) - LONGEST_PAUSE, "{asked}: {pause:?}");
        }
    }
}
