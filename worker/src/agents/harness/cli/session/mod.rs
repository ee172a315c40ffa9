//! A CLI agent that lives: its process, what is said to it and heard of it, its directory and its tools.
//!
//! ```text
//! launch ─► Session ── into_parts ─► SessionParts ══ descriptors, bytes, words ══► from_parts ─► Session
//!                                          whoever has neither of the three owns nothing
//! ```
//!
//! Standard error is a pipe like the other two, read by whoever owns the session, the last of it kept and carried along: a file
//! would need nobody to read it, but it would grow without bound and would not say that the program is at work.
//! While the session moves nobody reads; a pipe then holds 64 KiB, and the program waits rather than loses anything.
//!
//! **Invariants**
//! - It may be taken apart whenever nobody is waiting for its next event, at any byte: what was read is read again
//!   by its next owner, what was not written is written.
//! - All that a child wrote before its end is heard before that end is.
//! - Its directory goes when the child is gone, and not before.

mod ear;
mod parts;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;
use tokio::net::unix::pipe;
use tracing::warn;

use super::child::{Child, Manner, Patience, Pipes, Status, steps};
use super::codec::{LineTooLong, Lines};
use super::mcp::Endpoint;
use super::scratch::Scratch;
use ear::{Ear, READ_SIZE};
pub(super) use parts::Claim;
pub(crate) use parts::{AdoptFailed, Kept, SessionParts, SessionState};

/// How much of its standard error is kept, in bytes.
const STDERR_KEPT: usize = 8 * 1024;
/// What a session does next, of its own accord.
#[derive(Debug)]
pub(super) enum Event {
    /// It says something.
    Line(Vec<u8>),
    /// It says more than a line may hold.
    TooLong(LineTooLong),
    /// It complains, on its standard error.
    Complained,
    /// It has ended, and all that it said was heard.
    Gone,
}

/// What a session was started for, and with.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) scratch: Scratch,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) fingerprint: String,
    pub(super) conversation: Option<String>,
    /// The longest line it may say, in bytes.
    pub(super) longest_line: usize,
}

/// A CLI agent that lives.
#[derive(Debug)]
pub(super) struct Session {
    child: Child,
    /// Until its input is ended.
    stdin: Option<pipe::Sender>,
    unwritten: Vec<u8>,
    ends_input: bool,
    stdout: Ear,
    lines: Lines,
    longest_line: usize,
    stderr: Ear,
    complaint: Vec<u8>,
    is_gone: bool,
    endpoint: Option<Endpoint>,
    scratch: Scratch,
    fingerprint: String,
    conversation: Option<String>,
    turns: u64,
}

impl Session {
    /// Goes on with a child that was just started.
    ///
    /// # Errors
    /// Those of the runtime's taking the pipes.
    pub(super) fn new(child: Child, pipes: Pipes, origin: Origin) -> io::Result<Self> {
        let Origin { scratch, endpoint, fingerprint, conversation, longest_line } = origin;
        Ok(Self {
            child,
            stdin: Some(pipe::Sender::from_owned_fd(pipes.stdin)?),
            unwritten: Vec::new(),
            ends_input: false,
            stdout: Ear::new(pipes.stdout)?,
            lines: Lines::resumed(longest_line, Vec::new()),
            longest_line,
            stderr: Ear::new(pipes.stderr)?,
            complaint: Vec::new(),
            is_gone: false,
            endpoint,
            scratch,
            fingerprint,
            conversation,
            turns: 0,
        })
    }

    /// What it was started for.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What it calls its conversation, as far as is known.
    pub(super) fn conversation(&self) -> Option<&str> {
        self.conversation.as_deref()
    }

    /// The last that it has complained of.
    pub(super) fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.complaint).trim().to_owned()
    }

    /// Says something to it, in time.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.unwritten.extend_from_slice(bytes);
    }

    /// Says no more to it, after what was said.
    pub(super) fn end_input(&mut self) {
        self.ends_input = true;
    }

    /// A turn begins: what it complained of before is of another.
    pub(super) fn begin_turn(&mut self) {
        self.complaint.clear();
    }

    /// A turn has ended, and this is what it calls the conversation.
    pub(super) fn end_turn(&mut self, conversation: Option<&str>) {
        self.turns += 1;
        if let Some(conversation) = conversation {
            self.conversation = Some(conversation.to_owned());
        }
    }

    /// Waits for what it does next. Cancel-safe: nothing is lost.
    pub(super) async fn next(&mut self) -> Event {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            self.write(context);
            match self.lines.next() {
                Some(Ok(line)) => return Poll::Ready(Event::Line(line.to_vec())),
                Some(Err(too_long)) => return Poll::Ready(Event::TooLong(too_long)),
                None if self.is_gone => return Poll::Ready(Event::Gone),
                None => {}
            }
            if self.listen(context, READ_SIZE) {
                continue;
            }
            let mut buffer = [0; READ_SIZE];
            if let Poll::Ready(length @ 1..) = self.stderr.poll_read(context, &mut buffer) {
                self.complain(&buffer[..length]);
                return Poll::Ready(Event::Complained);
            }
            ready!(self.child.poll_gone(context));
            let rest = self.stdout.rest();
            self.lines.push(&rest);
            // The last line needs no end.
            self.lines.push(b"\n");
            let rest = self.stderr.rest();
            self.complain(&rest);
            self.is_gone = true;
        }
    }

    /// Hears up to `most` bytes of its answer; says whether there were any.
    fn listen(&mut self, context: &mut Context<'_>, most: usize) -> bool {
        let mut buffer = [0; READ_SIZE];
        match self.stdout.poll_read(context, &mut buffer[..most.min(READ_SIZE)]) {
            Poll::Ready(length @ 1..) => {
                self.lines.push(&buffer[..length]);
                true
            }
            Poll::Ready(0) | Poll::Pending => false,
        }
    }

    /// Writes as much as it takes now.
    fn write(&mut self, context: &mut Context<'_>) {
        while let Some(stdin) = &mut self.stdin {
            if self.unwritten.is_empty() {
                if self.ends_input {
                    self.stdin = None;
                }
                return;
            }
            match Pin::new(stdin).poll_write(context, &self.unwritten) {
                Poll::Ready(Ok(length)) => {
                    self.unwritten.drain(..length);
                }
                // It reads no more: its end says what there is to say.
                Poll::Ready(Err(_)) => {
                    self.unwritten.clear();
                    self.stdin = None;
                }
                Poll::Pending => return,
            }
        }
    }

    fn complain(&mut self, bytes: &[u8]) {
        self.complaint.extend_from_slice(bytes);
        let excess = self.complaint.len().saturating_sub(STDERR_KEPT);
        self.complaint.drain(..excess);
    }

    /// How it has ended, once it is [gone](Event::Gone).
    pub(super) async fn status(&mut self) -> Status {
        self.child.status().await
    }

    /// Ends it, in steps, and removes its directory. What it says until then is heard by nobody.
    pub(super) async fn end(mut self, manner: Manner, patience: Patience) {
        self.unwritten.clear();
        for (signal, limit) in steps(manner, patience) {
            if signal == rustix::process::Signal::TERM {
                self.end_input();
            }
            self.child.signal(signal);
            if tokio::time::timeout(limit, self.gone()).await.is_ok() {
                return;
            }
        }
        warn!(pid = self.child.life().pid, "a CLI does not end; its directory stays");
    }

    async fn gone(&mut self) {
        loop {
            match self.next().await {
                Event::Gone => return,
                Event::TooLong(_) => self.lines = Lines::resumed(self.longest_line, Vec::new()),
                Event::Line(_) | Event::Complained => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
