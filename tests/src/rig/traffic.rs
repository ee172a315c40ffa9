//! Clients that never retry, and the count of what they were given.
//!
//! | kind | one of its requests |
//! | --- | --- |
//! | new | connects, `GET /healthz`, reads to the end |
//! | keep-alive | the next `POST` on the same connection, until the server says `Connection: close` |
//! | slow | a `POST` whose answer takes seconds, on a connection of its own |
//! | upload | a `POST` whose body is sent in pieces over [`UPLOAD`], on a connection of its own |
//!
//! **Invariants**
//! - Every request ends in exactly one count: answered, failed or raced.
//! - Only a request on a connection that had been answered before can be raced, only when the
//!   server closed it without a byte of an answer, and only when the generation that had answered
//!   there is not the one that answers now: it was drained meanwhile, and its deadline closed an idle
//!   connection while the request was under way (RFC 9112 section 9.3.1). Everything else failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handoff::{Address, GenerationId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::front::Front;
use super::http::{Failure, GENERATION_HEADER, HttpConnection, Request, Response, ask};
use super::patience::{eventually, soon};

/// How often a client of new connections, and one of a keep-alive connection, asks.
const PACE: Duration = Duration::from_millis(4);
/// How long the body of an upload is under way, and in how many pieces.
const UPLOAD: (Duration, u32) = (Duration::from_millis(300), 10);
/// The words of a slow request, and how long the echo agent takes over each.
const SLOW: (&str, &str) = ("one two three four five six seven eight", "250");

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    New,
    KeepAlive,
    Slow,
    Upload,
}

/// Clients at work.
#[derive(Debug)]
pub struct Traffic {
    address: Address,
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
    book: Arc<Book>,
    sent: BTreeSet<Kind>,
}

/// What the clients were given.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    answered: BTreeMap<Kind, u64>,
    failed: Vec<(Kind, Failure)>,
    raced: u64,
    generations: BTreeSet<GenerationId>,
    sent: BTreeSet<Kind>,
}

/// The tally, open to all clients.
#[derive(Debug, Default)]
struct Book {
    tally: Mutex<Tally>,
}

impl Traffic {
    /// No traffic yet, to this front.
    #[must_use]
    pub fn to(front: &Front) -> Self {
        Self::to_address(front.address())
    }

    /// No traffic yet, to this address.
    #[must_use]
    pub fn to_address(address: Address) -> Self {
        let (stop, _) = watch::channel(false);
        let (clients, book) = (JoinSet::new(), Arc::default());
        Self { address, clients, stop, book, sent: BTreeSet::new() }
    }

    /// All kinds at once, a client each; slow requests only when told by [`Self::send_slow`].
    #[must_use]
    pub fn of_every_kind(front: &Front) -> Self {
        Self::to(front).with_new().with_keep_alive().with_uploads()
    }

    /// Adds a client that opens a connection for each request.
    #[must_use]
    pub fn with_new(mut self) -> Self {
        let (address, book, stop) = self.client(Kind::New);
        self.clients.spawn(async move {
            while !*stop.borrow() {
                book.enter(Kind::New, ask(&address, Request::get("/healthz")).await);
                tokio::time::sleep(PACE).await;
            }
        });
        self
    }

    /// Adds a client that keeps its connection as long as the server lets it.
    #[must_use]
    pub fn with_keep_alive(mut self) -> Self {
        let (address, book, stop) = self.client(Kind::KeepAlive);
        self.clients.spawn(async move {
            let mut kept = None;
            while !*stop.borrow() {
                kept = keep_alive(&address, kept, &book).await;
                tokio::time::sleep(PACE).await;
            }
        });
        self
    }

    /// Adds a client that is always in the midst of sending a body.
    #[must_use]
    pub fn with_uploads(mut self) -> Self {
        let (address, book, stop) = self.client(Kind::Upload);
        self.clients.spawn(async move {
            while !*stop.borrow() {
                book.enter(Kind::Upload, upload(&address).await);
            }
        });
        self
    }

    /// Sends one slow request now; its answer is awaited by [`Self::stop`].
    pub fn send_slow(&mut self) {
        let address = self.address.clone();
        let book = Arc::clone(&self.book);
        self.sent.insert(Kind::Slow);
        self.clients.spawn(async move {
            let request = Request::chat(SLOW.0).header("x-holdfast-echo-delay-ms", SLOW.1);
            book.enter(Kind::Slow, ask(&address, request).await);
        });
    }

    /// Ends once every kind of traffic has been answered at least `times` since now.
    pub async fn flows(&self, times: u64) {
        let before = self.book.open().answered.clone();
        let kinds: Vec<_> = self.sent.iter().filter(|kind| **kind != Kind::Slow).collect();
        eventually("every kind of traffic is answered", async || {
            let answered = self.book.open().answered.clone();
            let of = |book: &BTreeMap<Kind, u64>, kind| book.get(kind).copied().unwrap_or(0);
            kinds.iter().all(|k| of(&answered, k) >= of(&before, k) + times).then_some(())
        })
        .await;
    }

    /// Ends once a request has failed.
    pub async fn failed(&mut self) {
        let book = &self.book;
        eventually("a request fails", async || (!book.open().failed.is_empty()).then_some(()))
            .await;
    }

    /// Lets every client finish what it is doing, and counts.
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        soon("the clients finish", async {
            while let Some(ended) = self.clients.join_next().await {
                ended.expect("a client does not panic");
            }
        })
        .await;
        let mut tally = self.book.open().clone();
        tally.sent = std::mem::take(&mut self.sent);
        tally
    }

    fn client(&mut self, kind: Kind) -> (Address, Arc<Book>, watch::Receiver<bool>) {
        self.sent.insert(kind);
        (self.address.clone(), Arc::clone(&self.book), self.stop.subscribe())
    }
}

impl Tally {
    /// # Panics
    /// When a request failed, or a kind of traffic that was asked for has no answer to show.
    #[track_caller]
    pub fn assert_no_failures(&self) -> &Self {
        assert!(self.failed.is_empty(), "requests failed: {self}");
        for kind in &self.sent {
            assert!(
                self.answered.get(kind).is_some_and(|n| *n > 0),
                "no {kind:?} answered: {self}"
            );
        }
        self
    }

    /// # Panics
    /// When more requests failed than this, or any other way than by a cut connection: what a
    /// successor costs that dies with what it had itself accepted.
    #[track_caller]
    pub fn assert_cut_at_most(&self, most: usize) -> &Self {
        let cut = |f: &Failure| f.is_unseen() || matches!(f, Failure::Cut { .. });
        assert!(self.failed.iter().all(|(_, failure)| cut(failure)), "{self}");
        assert!(self.failed.len() <= most, "more than {most} requests failed: {self}");
        self
    }

    /// How requests failed.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        self.failed.iter().map(|(_, failure)| failure.clone()).collect()
    }

    /// How many requests met the unavoidable race of a drained keep-alive connection.
    #[must_use]
    pub const fn raced(&self) -> u64 {
        self.raced
    }

    /// How many requests were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.values().sum()
    }

    /// The generations that answered.
    #[must_use]
    pub const fn generations(&self) -> &BTreeSet<GenerationId> {
        &self.generations
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "answered {:?}, raced {}, failed {}",
            self.answered,
            self.raced,
            self.failed.len()
        )?;
        for (kind, failure) in self.failed.iter().take(20) {
            write!(f, "\n  {kind:?}: {failure}")?;
        }
        Ok(())
    }
}

impl Book {
    fn open(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, kind: Kind, outcome: Result<Response, Failure>) {
        let mut tally = self.open();
        match outcome {
            Ok(response) => {
                *tally.answered.entry(kind).or_default() += 1;
                // Programs that know nothing of Holdfast do not say which generation they are.
                if response.header(GENERATION_HEADER).is_some() {
                    tally.generations.insert(response.generation());
                }
            }
            Err(failure) => tally.failed.push((kind, failure)),
        }
    }
}

/// One request on the connection that was kept, or on the first of a new one.
async fn keep_alive(
    address: &Address,
    kept: Option<(HttpConnection, GenerationId)>,
    book: &Book,
) -> Option<(HttpConnection, GenerationId)> {
    let (mut connection, before) = match kept {
        Some((connection, generation)) => (connection, Some(generation)),
        None => match HttpConnection::open(address).await {
            Ok(connection) => (connection, None),
            Err(failure) => {
                book.enter(Kind::KeepAlive, Err(failure));
                return None;
            }
        },
    };
    match connection.exchange(&Request::chat("hold fast")).await {
        Ok(response) if response.code == 200 => {
            let generation = response.generation();
            let closes = response.closes();
            book.enter(Kind::KeepAlive, Ok(response));
            (!closes).then_some((connection, generation))
        }
        Ok(response) => {
            book.enter(Kind::KeepAlive, Err(Failure::Status { code: response.code }));
            None
        }
        Err(failure) => {
            let now = ask(address, Request::get("/healthz")).await.ok().map(|r| r.generation());
            let drained = before.is_some() && now.is_some() && before != now;
            if drained && failure.is_unseen() {
                book.open().raced += 1;
            } else {
                book.enter(Kind::KeepAlive, Err(failure));
            }
            None
        }
    }
}

/// One request whose body takes its time.
async fn upload(address: &Address) -> Result<Response, Failure> {
    let words = "word ".repeat(200);
    let request = Request::chat(&words).header("connection", "close");
    let mut connection = HttpConnection::open(address).await?;
    let (head, body) = request.parts();
    connection.send(&head).await?;
    let (duration, pieces) = UPLOAD;
    connection.send_over(body, duration, pieces).await?;
    let response = connection.receive().await?;
    if response.code == 200 { Ok(response) } else { Err(Failure::Status { code: response.code }) }
}
