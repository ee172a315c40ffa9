//! A client of OpenClaw's WebSocket protocol: its handshake, its numbered calls, and an eye on the numbers of events.
//!
//! ```text
//! upgrade ─► connect.challenge ─► connect ─► hello-ok ─► call 1, its answer, call 2 … with events in between
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use handoff::Address;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::book::{Failed, Kind, Load, Seen, Use};
use super::clients::Desk;
use super::http::{Io, LATE, by_io, connect};

/// How many calls may wait for their answers.
const MOST_IN_FLIGHT: usize = 4;
/// What is called: it answers at once, and changes nothing.
const METHOD: &str = "health";

/// A connected WebSocket.
pub(super) struct Socket {
    stream: WebSocketStream<Box<dyn Io>>,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Read,
    /// Delete sessions, for one.
    Admin,
}

impl Scope {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "operator.read",
            Self::Admin => "operator.admin",
        }
    }
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum NotLetIn {
    /// The gateway does not want it, for this reason; or it is no such gateway.
    Refused(String),
    Failed(Failed),
}

impl From<NotLetIn> for Failed {
    fn from(reason: NotLetIn) -> Self {
        match reason {
            NotLetIn::Refused(reason) => Self::new(Kind::WrongAnswer, reason),
            NotLetIn::Failed(failed) => failed,
        }
    }
}

impl Socket {
    /// Connects with what the gateway asks for.
    pub(super) async fn open(
        address: &Address,
        token: Option<&str>,
        scope: Scope,
    ) -> Result<Self, NotLetIn> {
        let let_in = timeout(LATE, Self::let_in(address, token, scope)).await;
        let late = |_| NotLetIn::Failed(Failed::new(Kind::Late, format!("no hello in {LATE:?}")));
        let_in.map_err(late)?
    }

    async fn let_in(
        address: &Address,
        token: Option<&str>,
        scope: Scope,
    ) -> Result<Self, NotLetIn> {
        let io = connect(address).await.map_err(NotLetIn::Failed)?;
        let (stream, _) = match client_async("ws://localhost/", io).await {
            Ok(upgraded) => upgraded,
            Err(Error::Http(response)) => {
                return Err(NotLetIn::Refused(format!(
                    "an upgrade is answered {}",
                    response.status()
                )));
            }
            Err(error) => return Err(NotLetIn::Failed(by_tungstenite(&error))),
        };
        let mut socket = Self { stream };
        let challenge = socket.next().await.map_err(NotLetIn::Failed)?;
        if challenge["event"] != "connect.challenge" {
            return Err(NotLetIn::Refused("it does not begin with connect.challenge".to_owned()));
        }
        let params = json!({
            "minProtocol": 3, "maxProtocol": 4,
            "client": {"id": "gateway-client", "version": env!("CARGO_PKG_VERSION"), "platform": "linux", "mode": "backend"},
            "caps": [], "role": "operator", "scopes": [scope.name()], "auth": {"token": token},
        });
        let hello = socket.call("connect", "connect", params).await.map_err(NotLetIn::Failed)?;
        if hello["payload"]["type"] != "hello-ok" {
            let reason = hello["error"]["message"].as_str().unwrap_or("no hello-ok came");
            return Err(NotLetIn::Refused(reason.to_owned()));
        }
        Ok(socket)
    }

    /// Makes one call, and ends with its answer.
    pub(super) async fn call(
        &mut self,
        id: &str,
        method: &str,
        params: Value,
    ) -> Result<Value, Failed> {
        self.say(id, method, params).await?;
        loop {
            let said = self.next().await?;
            if said["type"] == "res" && said["id"] == id {
                return Ok(said);
            }
        }
    }

    async fn say(&mut self, id: &str, method: &str, params: Value) -> Result<(), Failed> {
        let request = json!({"type": "req", "id": id, "method": method, "params": params});
        let message = Message::text(request.to_string());
        self.stream.send(message).await.map_err(|error| by_tungstenite(&error))
    }

    /// The next message. Cancel safe.
    async fn next(&mut self) -> Result<Value, Failed> {
        loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(by_tungstenite(&error)),
                None => return Err(Failed::new(Kind::ClosedEarly, "the connection ended")),
            };
            match message {
                Message::Text(text) => {
                    return serde_json::from_str(&text).map_err(|error| {
                        Failed::new(Kind::WrongAnswer, format!("a message is no JSON: {error}"))
                    });
                }
                Message::Close(close) => {
                    let how = close.map_or_else(String::new, |close| {
                        format!(" with {} {}", u16::from(close.code), close.reason)
                    });
                    return Err(Failed::new(Kind::ClosedEarly, format!("closed{how}")));
                }
                // tungstenite answers pings with the next message that is sent or read.
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Takes leave.
    pub(super) async fn close(mut self) {
        // Who has gone already needs no farewell.
        let _ = timeout(LATE, self.stream.close(None)).await;
    }
}

/// What one client has said and heard on its present connection.
#[derive(Default)]
struct Conversation {
    /// Calls without an answer, the oldest first.
    waiting: VecDeque<(u64, Instant)>,
    calls: u64,
    /// The number of the last event.
    seq: Option<u64>,
}

/// Calls until it is told to stop. A connection that ends is lost, and replaced by another one.
pub(super) async fn call_on(first: Socket, mut desk: Desk) {
    let mut socket = Some(first);
    while !desk.is_to_stop() {
        let mut present = match socket.take() {
            Some(socket) => socket,
            None => match Socket::open(&desk.address, desk.token.as_deref(), Scope::Read).await {
                Ok(socket) => socket,
                Err(reason) => {
                    desk.book.failed(Load::WebSocket, reason.into(), Use::Fresh);
                    desk.pause().await;
                    continue;
                }
            },
        };
        match Conversation::default().go_on(&mut present, &mut desk).await {
            Ok(()) => return present.close().await,
            Err(failed) => desk.book.failed(Load::WebSocket, failed, Use::Used),
        }
        desk.pause().await;
    }
}

impl Conversation {
    /// Ends well when it is to stop and everything is answered.
    async fn go_on(&mut self, socket: &mut Socket, desk: &mut Desk) -> Result<(), Failed> {
        let mut call_at = Instant::now() + desk.first_pause();
        loop {
            let stopping = desk.is_to_stop();
            if stopping && self.waiting.is_empty() {
                return Ok(());
            }
            let may_call = !stopping && self.waiting.len() < MOST_IN_FLIGHT;
            let late_at = self.waiting.front().map(|(_, said_at)| *said_at + LATE);
            tokio::select! {
                said = socket.next() => self.hear(&said?, desk)?,
                () = sleep_until(call_at), if may_call => {
                    self.calls += 1;
                    self.waiting.push_back((self.calls, Instant::now()));
                    socket.say(&self.calls.to_string(), METHOD, json!({})).await?;
                    call_at = Instant::now() + desk.pace;
                }
                () = sleep_until(late_at.unwrap_or(call_at)), if late_at.is_some() => {
                    return Err(Failed::new(Kind::Late, format!("a call was not answered within {LATE:?}")));
                }
                () = desk.stopped(), if !stopping => {}
            }
        }
    }

    fn hear(&mut self, said: &Value, desk: &Desk) -> Result<(), Failed> {
        if said["type"] == "res" {
            let Some((call, said_at)) = self.waiting.pop_front() else {
                return Err(Failed::new(Kind::Events, "an answer to no call"));
            };
            if said["id"] != call.to_string().as_str() {
                let words =
                    format!("an answer to call {} came when one to {call} was due", said["id"]);
                return Err(Failed::new(Kind::Events, words));
            }
            if said["ok"] != true {
                let words = format!("call {call} was refused: {}", said["error"]["message"]);
                desk.book.failed(Load::WebSocket, Failed::new(Kind::WrongAnswer, words), Use::Used);
            } else {
                desk.book.answered(Load::WebSocket, said_at.elapsed());
            }
            return Ok(());
        }
        let Some(seq) = said["seq"].as_u64() else { return Ok(()) };
        match self.seq.replace(seq) {
            Some(before) if seq != before + 1 => {
                let words = format!("event {seq} came after event {before}");
                Err(Failed::new(Kind::Events, words))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn by_tungstenite(error: &Error) -> Failed {
    match error {
        Error::Io(error) => by_io(error, Seen::Something),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Failed::new(Kind::ClosedEarly, error.to_string())
        }
        error => Failed::new(Kind::WrongAnswer, error.to_string()),
    }
}

/// How long between two calls of each client, when so many of them make no more than `rate` a second.
pub(super) fn pace(clients: u32, rate: u32) -> Duration {
    Duration::from_secs(1).mul_f64(f64::from(clients.max(1)) / f64::from(rate.max(1)))
}
