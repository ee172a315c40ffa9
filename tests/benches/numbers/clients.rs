//! Clients at work while something happens to the front. They never retry.
//!
//! New connections are begun at a steady rate, whether or not earlier ones were answered: a stall
//! meets as many requests as it would in life. A keep-alive client asks again when it was answered.

use std::time::{Duration, Instant};

use handoff::{Address, GenerationId};
use holdfast_tests::rig::http::{Failure, HttpConnection, Request, Response, ask};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::ledger::{Kind, SharedLedger};

/// How long a keep-alive client waits between an answer and its next request.
const PACE: Duration = Duration::from_millis(10);
/// The words of a slow request, and how long the echo agent takes over each, in ms: 2 s in all.
const SLOW: (&str, &str) = ("one two three four five six seven eight", "250");
/// How long the body of an upload is under way, and in how many pieces.
const UPLOAD: (Duration, u32) = (Duration::from_millis(500), 10);

/// Clients at work on one address.
#[derive(Debug)]
pub(crate) struct Clients {
    address: Address,
    ledger: SharedLedger,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Nobody yet.
    pub(crate) fn of(address: Address) -> Self {
        let (stop, _) = watch::channel(false);
        Self { address, ledger: SharedLedger::default(), stop, tasks: JoinSet::new() }
    }

    /// What they were given so far.
    pub(crate) const fn ledger(&self) -> &SharedLedger {
        &self.ledger
    }

    /// Opens a new connection this often, for one `GET /healthz` each.
    pub(crate) fn open_connections(&mut self, every: Duration) {
        let (address, ledger, stop) = self.parts();
        self.tasks.spawn(async move {
            let mut requests = JoinSet::new();
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            while !*stop.borrow() {
                ticks.tick().await;
                let (address, ledger) = (address.clone(), ledger.clone());
                requests.spawn(async move {
                    let begun_at = Instant::now();
                    let outcome = ask(&address, Request::get("/healthz")).await;
                    ledger.enter(Kind::New, begun_at, outcome);
                });
                while requests.try_join_next().is_some() {}
            }
            requests.join_all().await;
        });
    }

    /// Adds clients that keep their connection until the server says it closes it.
    pub(crate) fn keep_connections(&mut self, clients: usize) {
        for _ in 0..clients {
            let (address, ledger, stop) = self.parts();
            self.tasks.spawn(async move {
                let mut kept = None;
                while !*stop.borrow() {
                    kept = keep_alive(&address, kept, &ledger).await;
                    sleep(PACE).await;
                }
            });
        }
    }

    /// Sends so many requests now whose answers take 2 s.
    pub(crate) fn send_slow(&mut self, requests: usize) {
        for _ in 0..requests {
            let (address, ledger, _) = self.parts();
            self.tasks.spawn(async move {
                let begun_at = Instant::now();
                let request = Request::chat(SLOW.0).header("x-holdfast-echo-delay-ms", SLOW.1);
                ledger.enter(Kind::Slow, begun_at, ask(&address, request).await);
            });
        }
    }

    /// Begins so many requests now whose bodies take half a second.
    pub(crate) fn send_uploads(&mut self, requests: usize) {
        for _ in 0..requests {
            let (address, ledger, _) = self.parts();
            self.tasks.spawn(async move {
                let begun_at = Instant::now();
                ledger.enter(Kind::Upload, begun_at, upload(&address).await);
            });
        }
    }

    /// Lets all of them finish what they are doing.
    pub(crate) async fn stop(self) -> SharedLedger {
        self.stop.send_replace(true);
        self.tasks.join_all().await;
        self.ledger
    }

    fn parts(&self) -> (Address, SharedLedger, watch::Receiver<bool>) {
        (self.address.clone(), self.ledger.clone(), self.stop.subscribe())
    }
}

/// A connection that has been answered before, and by whom.
type Kept = Option<(HttpConnection, GenerationId)>;

/// One request on the connection that was kept, or on the first of a new one.
async fn keep_alive(address: &Address, kept: Kept, ledger: &SharedLedger) -> Kept {
    let begun_at = Instant::now();
    let (mut connection, before) = match kept {
        Some((connection, generation)) => (connection, Some(generation)),
        None => match HttpConnection::open(address).await {
            Ok(connection) => (connection, None),
            Err(failure) => {
                ledger.enter(Kind::KeepAlive, begun_at, Err(failure));
                return None;
            }
        },
    };
    let outcome = connection.exchange(&Request::chat("hold fast")).await;
    let kept = outcome.as_ref().ok().filter(|r| !r.closes()).map(Response::generation);
    match outcome {
        Err(failure) if failure.is_unseen() && was_drained(address, before).await => {
            ledger.enter_race(Kind::KeepAlive, begun_at);
        }
        outcome => ledger.enter(Kind::KeepAlive, begun_at, outcome),
    }
    kept.map(|generation| (connection, generation))
}

/// Whether the generation that had answered on a connection is not the one that answers now.
async fn was_drained(address: &Address, before: Option<GenerationId>) -> bool {
    let now = ask(address, Request::get("/healthz")).await.ok().map(|answer| answer.generation());
    before.is_some() && now.is_some() && before != now
}

/// One request whose body takes its time.
async fn upload(address: &Address) -> Result<Response, Failure> {
    let words = "word ".repeat(2000);
    let request = Request::chat(&words).header("connection", "close");
    let mut connection = HttpConnection::open(address).await?;
    let (head, body) = request.parts();
    connection.send(&head).await?;
    let (duration, pieces) = UPLOAD;
    connection.send_over(body, duration, pieces).await?;
    connection.receive().await
}
