//! A closed loop of calls over WebSockets: so many connections, each with one call under way.
//!
//! As in `closed_loop`, requests are bytes made once and answers are only counted: an answer is told from an event by
//! how it begins, and nothing is parsed.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::rig::moving::{Part, UPGRADE, call, connect_call, frame};
use holdfast_tests::rig::{Process, TOKEN};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::closed_loop::Round;
use crate::cpu::cpu_time;

/// How many threads the clients run on.
const THREADS: usize = 2;
/// How many connections each of them has.
const CONNECTIONS_PER_THREAD: usize = 32;
/// How many connections there are.
pub(crate) const CONNECTIONS: usize = THREADS * CONNECTIONS_PER_THREAD;
/// How long it runs before it counts, connecting included: no more than 32 of an address may be connecting.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long an answer may take after the end.
const GRACE: Duration = Duration::from_secs(10);
/// How every answer begins that is none of an event.
const ANSWER: &[u8] = b"{\"type\":\"res\"";

/// A connection that has connected.
pub(crate) struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Where in the buffer the next frame begins.
    next: usize,
}

impl Caller {
    /// From TCP's connect to `hello-ok`.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut caller = Self { stream, buffer: vec![0; 64 * 1024], filled: 0, next: 0 };
        caller.stream.write_all(UPGRADE).await?;
        loop {
            let head = caller.buffer[..caller.filled].windows(4).position(|at| at == b"\r\n\r\n");
            if let Some(end) = head {
                caller.next = end + 4;
                break;
            }
            caller.read().await?;
        }
        // The challenge: a backend with the shared token has nothing to sign.
        caller.frame().await?;
        caller.stream.write_all(&frame(Part::Text, connect_call((4, 4), TOKEN))).await?;
        caller.answer().await?;
        Ok(caller)
    }

    /// Sends these bytes and ends with their answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.answer().await
    }

    /// Ends with the next answer; events are passed over.
    async fn answer(&mut self) -> io::Result<()> {
        loop {
            let (begin, end) = self.frame().await?;
            let text = &self.buffer[begin..end];
            if text.starts_with(ANSWER) {
                let well = text.windows(9).any(|part| part == b"\"ok\":true");
                return if well { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
        }
    }

    /// Where in the buffer the payload of the next text lies.
    async fn frame(&mut self) -> io::Result<(usize, usize)> {
        loop {
            let seen = &self.buffer[self.next..self.filled];
            let head = match seen {
                [_, 126, a, b, ..] => Some((4, usize::from(u16::from_be_bytes([*a, *b])))),
                [_, length @ 0..=125, ..] => Some((2, usize::from(*length))),
                // Longer than any answer here, or not there yet.
                [_, 127..=255, ..] => return Err(io::ErrorKind::InvalidData.into()),
                _ => None,
            };
            if let Some((head, length)) = head
                && seen.len() >= head + length
            {
                let (first, begin) = (seen[0], self.next + head);
                self.next = begin + length;
                match first {
                    0x81 => return Ok((begin, self.next)),
                    // A ping may wait: no loop is as long as a worker's patience.
                    0x89 => continue,
                    _ => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.next == self.filled {
            (self.next, self.filled) = (0, 0);
        } else if self.filled == self.buffer.len() {
            self.buffer.copy_within(self.next..self.filled, 0);
            (self.next, self.filled) = (0, self.filled - self.next);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

/// The time in which answers count.
#[derive(Clone, Copy, Debug)]
struct Window {
    begins_at: Instant,
    ends_at: Instant,
}

/// Drives `worker` at `address` with calls of this method for this long.
///
/// # Panics
/// When a call is refused or not answered.
#[expect(clippy::cast_precision_loss, reason = "answers are counted in thousands")]
pub(crate) async fn drive(
    (worker, address): (Process, SocketAddr),
    method: &'static str,
    duration: Duration,
) -> Round {
    let begins_at = Instant::now() + WARM_UP;
    let window = Window { begins_at, ends_at: begins_at + duration };
    let clients = Vec::from_iter(
        (0..THREADS).map(|_| thread::spawn(move || drive_some(address, method, window))),
    );
    sleep_until(window.begins_at.into()).await;
    let (before, began_at) = (cpu_time(worker), Instant::now());
    sleep_until(window.ends_at.into()).await;
    let (after, took) = (cpu_time(worker), began_at.elapsed());
    let answers: u64 = clients.into_iter().map(|c| c.join().expect("a client ends well")).sum();
    let rate = answers as f64 / duration.as_secs_f64();
    let spent = after.saturating_sub(before).as_secs_f64();
    Round { rate, worker_us: spent * 1e6 / (rate * took.as_secs_f64()) }
}

/// One thread's share of the connections, and how many answers they got that count.
fn drive_some(address: SocketAddr, method: &'static str, window: Window) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("an event loop can be made").block_on(async {
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS_PER_THREAD {
            // One after the other: the threads together stay below the places there are.
            let caller = Caller::connect(address).await.expect("a client is let in");
            connections.spawn(async move {
                let given_up_at = (window.ends_at + GRACE).into();
                let answers = timeout_at(given_up_at, ask_again(caller, method, window)).await;
                answers
                    .expect("an answer comes in time")
                    .unwrap_or_else(|error| panic!("a call failed under load: {error}"))
            });
        }
        connections.join_all().await.into_iter().sum()
    })
}

/// One call after the other until the window ends.
async fn ask_again(mut caller: Caller, method: &str, window: Window) -> io::Result<u64> {
    let request = frame(Part::Text, call("1", method, json!({})));
    let mut answers = 0;
    loop {
        caller.exchange(&request).await?;
        let now = Instant::now();
        if now >= window.ends_at {
            return Ok(answers);
        }
        answers += u64::from(now >= window.begins_at);
    }
}
