//! A closed loop: so many connections, each with one request under way, as fast as they are answered.
//!
//! Requests are bytes made once and answers are only counted, so that the client takes as little of the
//! cores it shares with the worker as it can.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::rig::Process;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::cpu::cpu_time;

/// How many threads the clients run on.
pub(crate) const THREADS: usize = 2;
/// How long an answer may take after the end.
const GRACE: Duration = Duration::from_secs(10);

/// One of a loop's clients.
pub(crate) trait Client: Sized + Send + 'static {
    /// What they ask.
    type Plan: Copy + Send + 'static;

    /// How many there are on each thread.
    const PER_THREAD: usize;
    /// How long it runs before it counts, connecting included.
    const WARM_UP: Duration;

    /// One that can ask at once.
    async fn open(address: SocketAddr, plan: Self::Plan) -> io::Result<Self>;

    /// Asks, and ends with the answer.
    fn exchange(&mut self) -> impl Future<Output = io::Result<()>> + Send;
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
/// When a request is refused or not answered.
#[expect(clippy::cast_precision_loss, reason = "answers are counted in thousands")]
pub(crate) async fn drive<C: Client>(
    (worker, address): (Process, SocketAddr),
    plan: C::Plan,
    duration: Duration,
) -> Round {
    let begins_at = Instant::now() + C::WARM_UP;
    let window = Window { begins_at, ends_at: begins_at + duration };
    let clients = Vec::from_iter(
        (0..THREADS).map(|_| thread::spawn(move || drive_some::<C>(address, plan, window))),
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

/// One thread's share of the clients, and how many answers they got that count.
fn drive_some<C: Client>(address: SocketAddr, plan: C::Plan, window: Window) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("an event loop can be made").block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..C::PER_THREAD {
            // One after the other: no more than 32 of an address may be in their handshake.
            let client = C::open(address, plan).await.expect("a client is let in");
            clients.spawn(async move {
                let given_up_at = (window.ends_at + GRACE).into();
                let answers = timeout_at(given_up_at, ask_again(client, window)).await;
                answers
                    .expect("an answer comes in time")
                    .unwrap_or_else(|error| panic!("a request failed under load: {error}"))
            });
        }
        clients.join_all().await.into_iter().sum()
    })
}

/// One request after the other until the window ends.
async fn ask_again(mut client: impl Client, window: Window) -> io::Result<u64> {
    let mut answers = 0;
    loop {
        client.exchange().await?;
        let now = Instant::now();
        if now >= window.ends_at {
            return Ok(answers);
        }
        answers += u64::from(now >= window.begins_at);
    }
}
