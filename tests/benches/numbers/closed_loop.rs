//! A closed loop: so many connections, each with one request under way, as fast as they are answered.
//!
//! The requests are bytes made once and answers are only counted, so that the client takes as little
//! of the cores it shares with the worker as it can.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::rig::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::cpu::cpu_time;

/// How many threads the clients run on.
const THREADS: usize = 2;
/// How many connections each of them has.
const CONNECTIONS_PER_THREAD: usize = 16;
/// How many connections there are.
pub(crate) const CONNECTIONS: usize = THREADS * CONNECTIONS_PER_THREAD;
/// How long it runs before it counts.
const WARM_UP: Duration = Duration::from_millis(50);
/// How long an answer may take after the end.
const GRACE: Duration = Duration::from_secs(10);

/// Whether a connection is used for one request or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    KeepAlive,
    NewConnections,
}

impl Reuse {
    const fn request(self) -> &'static [u8] {
        match self {
            Self::KeepAlive => b"GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n",
            Self::NewConnections => {
                b"GET /healthz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
            }
        }
    }
}

/// What came of a loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Answers per second.
    pub(crate) rate: f64,
    /// What the worker's threads spent on each answer, in µs of CPU time.
    pub(crate) worker_us: f64,
}

impl Round {
    /// What two loops of equal length come to.
    pub(crate) const fn mean(one: Self, other: Self) -> Self {
        Self {
            rate: f64::midpoint(one.rate, other.rate),
            worker_us: f64::midpoint(one.worker_us, other.worker_us),
        }
    }
}

/// The time in which answers count.
#[derive(Clone, Copy, Debug)]
struct Window {
    begins_at: Instant,
    ends_at: Instant,
}

/// Drives `worker` at `address` for this long.
///
/// # Panics
/// When a request is not answered with 200.
#[expect(clippy::cast_precision_loss, reason = "answers are counted in thousands")]
pub(crate) async fn drive(
    (worker, address): (Process, SocketAddr),
    reuse: Reuse,
    duration: Duration,
) -> Round {
    let begins_at = Instant::now() + WARM_UP;
    let window = Window { begins_at, ends_at: begins_at + duration };
    let clients = Vec::from_iter(
        (0..THREADS).map(|_| thread::spawn(move || drive_some(address, reuse, window))),
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
fn drive_some(address: SocketAddr, reuse: Reuse, window: Window) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("an event loop can be made").block_on(async {
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS_PER_THREAD {
            connections.spawn(async move {
                let given_up_at = (window.ends_at + GRACE).into();
                let answers = timeout_at(given_up_at, ask_again(address, reuse, window)).await;
                answers
                    .expect("an answer comes in time")
                    .unwrap_or_else(|error| panic!("a request failed under load: {error}"))
            });
        }
        connections.join_all().await.into_iter().sum()
    })
}

/// One connection after the other, or one for all requests, until the window ends.
async fn ask_again(address: SocketAddr, reuse: Reuse, window: Window) -> io::Result<u64> {
    let mut answers = 0;
    let mut kept: Option<Connection> = None;
    loop {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Connection::open(address).await?,
        };
        connection.exchange(reuse.request()).await?;
        match reuse {
            Reuse::KeepAlive => kept = Some(connection),
            Reuse::NewConnections => connection.end().await?,
        }
        let now = Instant::now();
        if now >= window.ends_at {
            return Ok(answers);
        }
        answers += u64::from(now >= window.begins_at);
    }
}

/// A connection on which every answer is as long as the first.
struct Connection {
    stream: TcpStream,
    buffer: [u8; 2048],
    /// How long an answer is, once one has come.
    length: Option<usize>,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: [0; 2048], length: None })
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let answer = &self.buffer[..filled];
            self.length = self.length.or_else(|| length_of(answer));
            if self.length == Some(filled) {
                return if answer.starts_with(b"HTTP/1.1 200 ") {
                    Ok(())
                } else {
                    Err(io::ErrorKind::InvalidData.into())
                };
            }
        }
    }

    /// Lets the server close first: it is the one that said it would.
    async fn end(&mut self) -> io::Result<()> {
        match self.stream.read(&mut self.buffer).await? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// How long the answer is that begins with these bytes, if its head is whole.
fn length_of(answer: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head.len() + 4 + length.parse::<usize>().ok()?)
}
