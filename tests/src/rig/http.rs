//! An HTTP/1.1 client that never retries and calls every failure by its name.
//!
//! It is written out by hand because what a library smooths over is what is measured here: when a
//! connection ended, and how much of an answer had come by then.

use std::io;
use std::time::Duration;

use handoff::{Address, GenerationId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// How long one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// The largest head that is read, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;

/// The header in which a worker says which generation it is.
pub(super) const GENERATION_HEADER: &str = "x-holdfast-generation";

/// What a client sees instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Failure {
    #[error("the connection was refused")]
    Refused,
    #[error("the connection was reset before a byte of the answer")]
    Reset,
    #[error("the connection was closed before a byte of the answer")]
    Closed,
    #[error("the answer was cut after {received} bytes")]
    Cut { received: usize },
    #[error("answered with {code}")]
    Status { code: u16 },
    #[error("not answered within {ANSWER_DEADLINE:?}")]
    TimedOut,
    #[error("what came is no answer: {what}")]
    Malformed { what: String },
    #[error("the connection failed: {error}")]
    Other { error: String },
}

impl Failure {
    /// Whether the server may have closed the connection before it saw the request: on a connection
    /// that has been used before, this is the race RFC 9112 section 9.3.1 speaks of.
    #[must_use]
    pub const fn is_unseen(&self) -> bool {
        matches!(self, Self::Reset | Self::Closed)
    }
}

/// An answer that came whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub code: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this (lower case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether the server said that it closes the connection after this.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The generation that answered.
    ///
    /// # Panics
    /// When the answer does not say.
    #[must_use]
    pub fn generation(&self) -> GenerationId {
        let word = self.header(GENERATION_HEADER);
        let word = word.unwrap_or_else(|| panic!("no generation: {:?}", self.headers));
        word.parse().expect("the header names a generation")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON: {error}: {}", self.text()))
    }

    fn length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    }
}

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    /// `GET` of a path.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self { head: format!("GET {path} HTTP/1.1\r\nhost: suite\r\n"), body: Vec::new() }
    }

    /// `POST` of a JSON body to a path.
    #[must_use]
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: suite\r\ncontent-type: application/json\r\n");
        let body = body.into();
        Self { head: format!("{head}content-length: {}\r\n", body.len()), body }
    }

    /// A turn of a conversation with the bundled worker's echo agent.
    #[must_use]
    pub fn chat(words: &str) -> Self {
        let body = serde_json::json!({
            "model": "openclaw",
            "messages": [{"role": "user", "content": words}],
        });
        Self::post("/v1/chat/completions", body.to_string())
            .header("authorization", &format!("Bearer {}", super::TOKEN))
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The bytes of its head, and those of its body.
    #[must_use]
    pub fn parts(&self) -> (Vec<u8>, &[u8]) {
        (format!("{}\r\n", self.head).into_bytes(), &self.body)
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection to a front.
pub struct HttpConnection {
    io: Box<dyn Io>,
    unread: Vec<u8>,
    /// How many bytes of the present answer have come.
    received: usize,
}

impl HttpConnection {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure::Refused`] and its like.
    pub async fn open(address: &Address) -> Result<Self, Failure> {
        let connected = async {
            Ok(match address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream) as Box<dyn Io>
                }
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        let io = in_time(connected).await?.map_err(|error| failure(&error, 0))?;
        Ok(Self { io, unread: Vec::new(), received: 0 })
    }

    /// Sends a request and receives its answer, whatever its status code is.
    ///
    /// # Errors
    /// The [`Failure`] met instead.
    pub async fn exchange(&mut self, request: &Request) -> Result<Response, Failure> {
        let (head, body) = request.parts();
        let sent = self.send(&[&head, body].concat()).await;
        match self.receive().await {
            // A server may answer and close before it has read everything.
            Ok(response) => Ok(response),
            Err(failure) => Err(sent.err().unwrap_or(failure)),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The [`Failure`] met instead.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        in_time(self.io.write_all(bytes)).await?.map_err(|error| failure(&error, 0))
    }

    /// Sends bytes in so many pieces, spread over this long.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_over(
        &mut self,
        bytes: &[u8],
        duration: Duration,
        pieces: u32,
    ) -> Result<(), Failure> {
        for piece in bytes.chunks(bytes.len().div_ceil(pieces as usize)) {
            self.send(piece).await?;
            tokio::time::sleep(duration / pieces).await;
        }
        Ok(())
    }

    /// Closes the sending side, and goes on reading.
    ///
    /// # Errors
    /// The [`Failure`] met instead.
    pub async fn close_sending(&mut self) -> Result<(), Failure> {
        in_time(self.io.shutdown()).await?.map_err(|error| failure(&error, 0))
    }

    /// Receives one answer.
    ///
    /// # Errors
    /// The [`Failure`] met instead.
    pub async fn receive(&mut self) -> Result<Response, Failure> {
        in_time(async {
            loop {
                let response = self.receive_one().await?;
                // 100 Continue and its like are not the answer (RFC 9110 section 15.2).
                if response.code >= 200 {
                    return Ok(response);
                }
            }
        })
        .await?
    }

    /// Ends when the server has closed the connection, with what came before that.
    ///
    /// # Errors
    /// The [`Failure`] met instead.
    pub async fn closed(&mut self) -> Result<Vec<u8>, Failure> {
        in_time(async {
            self.received = self.unread.len();
            while self.read().await? > 0 {}
            Ok(std::mem::take(&mut self.unread))
        })
        .await?
    }

    async fn receive_one(&mut self) -> Result<Response, Failure> {
        self.received = self.unread.len();
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end + 4;
            }
            if self.unread.len() > LARGEST_HEAD {
                return Err(Failure::Malformed { what: "a head without end".into() });
            }
            self.fill().await?;
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let mut response = parse_head(&head)?;
        if response.is_chunked() {
            response.body = self.receive_chunks().await?;
        } else if let Some(length) = response.length() {
            response.body = self.take(length).await?;
        } else if response.code >= 200 && response.closes() {
            while self.read().await? > 0 {}
            response.body = std::mem::take(&mut self.unread);
        }
        Ok(response)
    }

    async fn receive_chunks(&mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = find(&self.unread, b"\r\n") {
                    break self.unread.drain(..end + 2).collect::<Vec<u8>>();
                }
                self.fill().await?;
            };
            let text = String::from_utf8_lossy(&line);
            let digits = text.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16)
                .map_err(|_| Failure::Malformed { what: format!("a chunk of {digits:?} bytes") })?;
            let chunk = self.take(size + 2).await?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        while self.unread.len() < length {
            self.fill().await?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    /// Reads more of an answer that has not ended.
    async fn fill(&mut self) -> Result<(), Failure> {
        match self.read().await? {
            0 if self.received == 0 => Err(Failure::Closed),
            0 => Err(Failure::Cut { received: self.received }),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<usize, Failure> {
        let read = self.io.read_buf(&mut self.unread).await;
        let bytes = read.map_err(|error| failure(&error, self.received))?;
        self.received += bytes;
        Ok(bytes)
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(ANSWER_DEADLINE, future).await.map_err(|_| Failure::TimedOut)
}

fn failure(error: &io::Error, received: usize) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Failure::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe if received == 0 => {
            Failure::Reset
        }
        io::ErrorKind::ConnectionReset => Failure::Cut { received },
        _ => Failure::Other { error: error.to_string() },
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn parse_head(head: &[u8]) -> Result<Response, Failure> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split_terminator("\r\n");
    let first = lines.next().unwrap_or_default();
    let malformed = || Failure::Malformed { what: first.to_owned() };
    let code = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let headers = lines
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(':').ok_or_else(malformed))
        .map(|pair| pair.map(|(n, v)| (n.trim().to_lowercase(), v.trim().to_owned())))
        .collect::<Result<_, _>>()?;
    Ok(Response { code: code.ok_or_else(malformed)?, headers, body: Vec::new() })
}

/// One request on a connection of its own, which must be answered with 200.
///
/// # Errors
/// The [`Failure`] met instead.
pub async fn ask(address: &Address, request: Request) -> Result<Response, Failure> {
    let mut connection = HttpConnection::open(address).await?;
    let response = connection.exchange(&request.header("connection", "close")).await?;
    if response.code == 200 { Ok(response) } else { Err(Failure::Status { code: response.code }) }
}
