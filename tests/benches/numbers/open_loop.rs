//! An open loop: so many kept connections, on each of which a request is due every so often, whether or
//! not the one before was answered.
//!
//! A latency counts from the moment at which its request was due: a server that stands still is not
//! spared the requests that would have come meanwhile. The client's timer rounds up to its next ms, which
//! is in every latency alike.
//!
//! **Invariants**
//! - No request is sent twice. A connection that the server closed is opened anew for the next one,
//!   and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use handoff::Address;
use holdfast_tests::rig::http::{Failure, HttpConnection, Request};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::figures::Durations;

/// Requests of many connections, under way on a thread of their own.
pub(crate) struct OpenLoop {
    stop: watch::Sender<bool>,
    answered: Arc<AtomicU64>,
    client: JoinHandle<Outcome>,
}

/// What came of them.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    answers: Vec<Answer>,
    /// Why a request was not answered with 200.
    pub(crate) failures: Vec<Failure>,
    /// Connections that the server closed, with or without a word.
    pub(crate) closed: u64,
}

/// One request that was answered.
#[derive(Clone, Copy, Debug)]
struct Answer {
    due_at: Instant,
    latency: Duration,
}

/// A time in which something happened to the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) begins_at: Instant,
    pub(crate) ends_at: Instant,
}

impl OpenLoop {
    /// So many connections to `address`, with a request on each once in every `period`.
    pub(crate) fn begin(address: SocketAddr, connections: u32, period: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::<AtomicU64>::default();
        let count = Arc::clone(&answered);
        let client = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("an event loop can be made").block_on(async {
                let begins_at = Instant::now() + period;
                let mut clients = JoinSet::new();
                for number in 0..connections {
                    let due_at = begins_at + period * number / connections;
                    let address = Address::Tcp(address);
                    let (stopped, count) = (stopped.clone(), Arc::clone(&count));
                    clients.spawn(ask_again(address, (due_at, period), stopped, count));
                }
                clients.join_all().await.into_iter().fold(Outcome::default(), Outcome::and)
            })
        });
        Self { stop, answered, client }
    }

    /// How many requests were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets each client have its last answer.
    pub(crate) async fn end(self) -> Outcome {
        self.stop.send_replace(true);
        let joined = tokio::task::spawn_blocking(|| self.client.join());
        joined.await.expect("a thread can be waited for").expect("the clients end well")
    }
}

async fn ask_again(
    address: Address,
    (mut due_at, period): (Instant, Duration),
    mut stopped: watch::Receiver<bool>,
    answered: Arc<AtomicU64>,
) -> Outcome {
    let request = Request::get("/healthz");
    let mut outcome = Outcome::default();
    let mut kept = HttpConnection::open(&address).await.ok();
    loop {
        tokio::select! {
            biased;
            // An error means that nobody measures any more.
            _ = stopped.changed() => return outcome,
            () = closed(kept.as_mut()) => {
                outcome.closed += 1;
                kept = None;
            }
            () = sleep_until(due_at.into()) => {
                match ask(&address, &mut kept, &request).await {
                    Ok(()) => {
                        outcome.answers.push(Answer { due_at, latency: due_at.elapsed() });
                        answered.fetch_add(1, Ordering::Relaxed);
                        outcome.closed += u64::from(kept.is_none());
                    }
                    Err(failure) => {
                        outcome.closed += u64::from(kept.is_none() && failure != Failure::Refused);
                        outcome.failures.push(failure);
                    }
                }
                due_at += period;
            }
        }
    }
}

/// Ends when the server closes a connection on which nothing is asked.
async fn closed(kept: Option<&mut HttpConnection>) {
    match kept {
        // It was closed either way. Its patience is longer than any pause between two requests.
        Some(connection) => drop(connection.closed().await),
        None => std::future::pending().await,
    }
}

/// One request on the connection that is kept, or on a new one that is kept from now on.
async fn ask(
    address: &Address,
    kept: &mut Option<HttpConnection>,
    request: &Request,
) -> Result<(), Failure> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => HttpConnection::open(address).await?,
    };
    let response = connection.exchange(request).await?;
    if !response.closes() {
        *kept = Some(connection);
    }
    if response.code == 200 { Ok(()) } else { Err(Failure::Status { code: response.code }) }
}

impl Outcome {
    fn and(mut self, other: Self) -> Self {
        self.answers.extend(other.answers);
        self.failures.extend(other.failures);
        self.closed += other.closed;
        self
    }

    /// The latencies of requests that were due within any of `windows`, and of those that were not.
    pub(crate) fn latencies(&self, windows: &[Window]) -> (Durations, Durations) {
        let within = |answer: &&Answer| {
            windows.iter().any(|w| (w.begins_at..=w.ends_at).contains(&answer.due_at))
        };
        let (around, steady): (Vec<_>, Vec<_>) = self.answers.iter().partition(within);
        let latencies = |answers: Vec<Answer>| answers.iter().map(|a| a.latency).collect();
        (latencies(around), latencies(steady))
    }
}
