//! An HTTP/1.1 client that never retries: what came of a request, and how much of an answer had come by then.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use handoff::Address;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::book::{Failed, Kind, Seen, Use};

/// An answer that has not come by then is late, and lost.
pub(super) const LATE: Duration = Duration::from_secs(10);
/// Whom requests are for: this machine, as those of a backend are.
const AUTHORITY: &str = "localhost";

/// A stream to the front, of whichever kind its address is.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// Connects.
pub(super) async fn connect(address: &Address) -> Result<Box<dyn Io>, Failed> {
    let connected = async {
        Ok::<Box<dyn Io>, io::Error>(match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    match timeout(LATE, connected).await {
        Ok(connected) => connected.map_err(|error| by_io(&error, Seen::Nothing)),
        Err(_) => Err(Failed::new(Kind::Late, format!("not accepted within {LATE:?}"))),
    }
}

/// What an error of the connection means to who waits for an answer.
pub(super) fn by_io(error: &io::Error, seen: Seen) -> Failed {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Kind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Kind::Reset,
        _ => Kind::ClosedEarly,
    };
    Failed { kind, seen, detail: error.to_string() }
}

/// What to ask.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Question {
    pub(super) fn get(path: &str) -> Self {
        let headers = Vec::new();
        Self { method: Method::GET, path: path.to_owned(), headers, body: String::new() }
    }

    pub(super) fn post(path: &str, body: String) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { method: Method::POST, path: path.to_owned(), headers, body }
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// On a connection that ends with the answer.
    pub(super) fn alone(self) -> Self {
        self.header("connection", "close".to_owned())
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, Failed> {
        let mut request = Request::builder().method(&self.method).uri(&self.path);
        request = request.header(HOST, AUTHORITY);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let body = Full::new(Bytes::from(self.body.clone()));
        request.body(body).map_err(|error| Failed::new(Kind::WrongAnswer, error.to_string()))
    }
}

/// Who has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A worker: it says which generation it is.
    Worker,
    /// A program that knows nothing of Holdfast.
    Program,
}

/// In which a worker says which generation it is.
const GENERATION: &str = "x-holdfast-generation";

/// An answer that came whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) by: By,
    pub(super) body: Bytes,
    /// Until its head was there.
    pub(super) head_after: Duration,
    /// Until all of it was.
    pub(super) after: Duration,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Missed {
    /// The connection had ended before anything was sent on it.
    Unsent,
    Failed(Failed),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    heard: Rc<Cell<u64>>,
    usage: Use,
}

impl Connection {
    pub(super) async fn open(address: &Address) -> Result<Self, Failed> {
        let heard = Rc::<Cell<u64>>::default();
        let io = Counted { io: connect(address).await?, heard: Rc::clone(&heard) };
        let (sender, connection) = http1::handshake(TokioIo::new(io))
            .await
            .map_err(|error| by_hyper(&error, Seen::Nothing))?;
        // How it ends is heard by who waits for an answer.
        tokio::task::spawn_local(connection);
        Ok(Self { sender, heard, usage: Use::Fresh })
    }

    /// Whether it had been answered before.
    pub(super) const fn usage(&self) -> Use {
        self.usage
    }

    /// Whether the server has not closed it yet, nor said that it will.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Asks, and waits for the whole answer.
    pub(super) async fn ask(&mut self, question: &Question) -> Result<Answer, Missed> {
        let request = question.request().map_err(Missed::Failed)?;
        self.heard.set(0);
        match timeout(LATE, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let detail = format!("not answered within {LATE:?}");
                Err(Missed::Failed(Failed { kind: Kind::Late, seen: self.seen(), detail }))
            }
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Missed> {
        if self.sender.ready().await.is_err() {
            return Err(Missed::Unsent);
        }
        let begun_at = Instant::now();
        let response = match self.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                let failed = || Missed::Failed(by_hyper(error.error(), self.seen()));
                return Err(if unsent { Missed::Unsent } else { failed() });
            }
        };
        let (status, head_after) = (response.status().as_u16(), begun_at.elapsed());
        let by = if response.headers().contains_key(GENERATION) { By::Worker } else { By::Program };
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| Missed::Failed(by_hyper(&error, Seen::Something)))?;
        self.usage = Use::Used;
        Ok(Answer { status, by, body: body.to_bytes(), head_after, after: begun_at.elapsed() })
    }

    fn seen(&self) -> Seen {
        if self.heard.get() == 0 { Seen::Nothing } else { Seen::Something }
    }
}

fn by_hyper(error: &hyper::Error, seen: Seen) -> Failed {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return by_io(error, seen);
        }
        source = cause.source();
    }
    let kind = if error.is_parse() { Kind::WrongAnswer } else { Kind::ClosedEarly };
    Failed { kind, seen, detail: error.to_string() }
}

/// A stream, and how many bytes have come on it.
struct Counted {
    io: Box<dyn Io>,
    heard: Rc<Cell<u64>>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        self.heard.set(self.heard.get() + read as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
