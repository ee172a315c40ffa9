//! A closed loop of WebSockets: so many connections, each with one message under way, which comes back.
//!
//! Frames are bytes made once, and echoes are only counted: the client works less than the server.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::rig::Process;
use holdfast_tests::rig::moving::{Part, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::closed_loop::Round;
use crate::cpu::cpu_time;

/// How many connections there are.
pub(crate) const CONNECTIONS: usize = 8;
/// How long it runs before it counts.
const WARM_UP: Duration = Duration::from_millis(50);
/// How long an echo may take after the end.
const GRACE: Duration = Duration::from_secs(10);
/// Read at once, in bytes.
const READ: usize = 256 * 1024;

/// Sends messages of `size` bytes to `server` at `address` for this long.
///
/// # Panics
/// When a message does not come back.
#[expect(clippy::cast_precision_loss, reason = "echoes are counted in thousands")]
pub(crate) async fn drive(
    (server, address): (Process, SocketAddr),
    size: usize,
    duration: Duration,
) -> Round {
    let begins_at = Instant::now() + WARM_UP;
    let ends_at = begins_at + duration;
    let client = thread::spawn(move || drive_all(address, size, (begins_at, ends_at)));
    sleep_until(begins_at.into()).await;
    let (before, began_at) = (cpu_time(server), Instant::now());
    sleep_until(ends_at.into()).await;
    let (after, took) = (cpu_time(server), began_at.elapsed());
    let echoes = client.join().expect("the client ends well");
    let rate = echoes as f64 / duration.as_secs_f64();
    let spent = after.saturating_sub(before).as_secs_f64();
    Round { rate, worker_us: spent * 1e6 / (rate * took.as_secs_f64()) }
}

/// How many echoes came in the window.
fn drive_all(address: SocketAddr, size: usize, window: (Instant, Instant)) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("an event loop can be made").block_on(async {
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            connections.spawn(async move {
                let given_up_at = (window.1 + GRACE).into();
                timeout_at(given_up_at, echo_again(address, size, window))
                    .await
                    .expect("an echo comes in time")
                    .unwrap_or_else(|error| panic!("a message did not come back: {error}"))
            });
        }
        connections.join_all().await.into_iter().sum()
    })
}

async fn echo_again(
    address: SocketAddr,
    size: usize,
    (begins_at, ends_at): (Instant, Instant),
) -> io::Result<u64> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let message = frame(Part::Text, "x".repeat(size));
    // What a server sends has no mask.
    let echo = message.len() - 4;
    let mut room = vec![0; READ];
    let mut echoes = 0;
    loop {
        stream.write_all(&message).await?;
        let mut left = echo;
        while left > 0 {
            let most = left.min(READ);
            match stream.read(&mut room[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        let now = Instant::now();
        if now >= ends_at {
            return Ok(echoes);
        }
        echoes += u64::from(now >= begins_at);
    }
}
