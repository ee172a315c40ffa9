//! One attempt: a connection of its own, from its opening to the answer.

use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::Answer;
use super::credentials::Token;
use super::destination::Destination;
use super::ended::{Ended, Reason, Stage};
use crate::frames::written;
use crate::methods::VERSION;

/// The id of the request that connects.
const CONNECT: &str = "connect";
/// The id of the request that was asked for.
const CALL: &str = "call";

/// What is asked of the gateway.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) params: Box<RawValue>,
    pub(super) token: Option<Token>,
    pub(super) protocol: std::num::NonZeroU32,
    pub(super) answer: Answer,
}

/// How much of a request the gateway may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// None of it.
    Nothing,
    /// All of it, as far as anybody here knows.
    Request,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) request: &'a Request,
    pub(super) destination: &'a Destination,
    /// When it has to be connected.
    pub(super) opened_by: Instant,
    /// When it has to be answered.
    pub(super) deadline: Instant,
    /// What it, or an earlier one, has sent.
    pub(super) sent: &'a mut Sent,
}

/// A frame of the gateway, as far as it is read.
#[derive(Debug, Deserialize)]
struct Frame {
    r#type: Option<String>,
    event: Option<String>,
    id: Option<String>,
    ok: Option<bool>,
    payload: Option<Box<RawValue>>,
    error: Option<Box<Reason>>,
}

/// What of an answer says that there will be another.
#[derive(Debug, Deserialize)]
struct Standing {
    status: Option<String>,
}

impl Exchange<'_> {
    /// The answer.
    ///
    /// # Errors
    /// [`Ended`].
    pub(super) async fn run(&mut self) -> Result<Box<RawValue>, Ended> {
        let stage = Stage::Connection;
        let failed = |source| Ended::Broken { stage, source };
        let silent = |_| Ended::Silent { stage };
        match self.destination {
            Destination::Tcp(authority) => {
                let stream = timeout_at(self.opened_by, TcpStream::connect(authority));
                let stream = stream.await.map_err(silent)?.map_err(failed)?;
                // One message after the other is all there is to send.
                stream.set_nodelay(true).map_err(failed)?;
                self.over(stream, &format!("ws://{authority}/")).await
            }
            Destination::Unix(path) => {
                let stream = timeout_at(self.opened_by, UnixStream::connect(path));
                let stream = stream.await.map_err(silent)?.map_err(failed)?;
                self.over(stream, "ws://localhost/").await
            }
        }
    }

    async fn over<S>(&mut self, stream: S, url: &str) -> Result<Box<RawValue>, Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stage = Stage::Upgrade;
        let opened = timeout_at(self.opened_by, self.open(stream, url, &mut stage)).await;
        let mut socket = opened.map_err(|_| Ended::Silent { stage })??;
        let stage = Stage::Answer;
        *self.sent = Sent::Request;
        let answered = timeout_at(self.deadline, self.ask(&mut socket)).await;
        let answer = answered.map_err(|_| Ended::Silent { stage })??;
        // The gateway is told that this is no accident; whether it hears it makes no difference.
        let _ = timeout_at(self.deadline, socket.close(None)).await;
        Ok(answer)
    }

    async fn open<S>(
        &self,
        stream: S,
        url: &str,
        stage: &mut Stage,
    ) -> Result<WebSocketStream<S>, Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let upgraded = client_async(url, stream).await;
        let (mut socket, _) = upgraded.map_err(|error| Ended::of(error, *stage))?;
        *stage = Stage::Challenge;
        loop {
            let frame = next(&mut socket, *stage).await?;
            if frame.event.as_deref() == Some("connect.challenge") {
                break;
            }
        }
        *stage = Stage::Hello;
        send(&mut socket, CONNECT, CONNECT, &self.introduction(), *stage).await?;
        let hello = response(&mut socket, CONNECT, *stage).await?;
        match hello.error {
            Some(reason) => Err(Ended::NotConnected { reason }),
            None if hello.ok == Some(true) => Ok(socket),
            None => Err(Ended::Strange { stage: *stage }),
        }
    }

    /// What this client says of itself: as OpenClaw's own backends do, which need no device on the same machine.
    fn introduction(&self) -> serde_json::Value {
        let Request { token, protocol, .. } = self.request;
        let mut introduction = json!({
            "minProtocol": protocol, "maxProtocol": protocol,
            "client": {
                "id": "gateway-client", "displayName": "holdfast-worker call", "version": VERSION,
                "platform": std::env::consts::OS, "mode": "backend",
            },
            "caps": [], "role": "operator", "scopes": ["operator.admin"],
        });
        if let Some(token) = token {
            introduction["auth"] = json!({"token": token});
        }
        introduction
    }

    async fn ask<S>(&self, socket: &mut WebSocketStream<S>) -> Result<Box<RawValue>, Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Request { method, params, answer, .. } = self.request;
        let stage = Stage::Answer;
        send(socket, CALL, method, params, stage).await?;
        loop {
            let frame = response(socket, CALL, stage).await?;
            if let Some(reason) = frame.error {
                return Err(Ended::Refused { reason });
            }
            if frame.ok != Some(true) {
                return Err(Ended::Strange { stage });
            }
            let payload = frame.payload.unwrap_or_else(|| RawValue::NULL.to_owned());
            if *answer == Answer::First || !accepts(&payload) {
                return Ok(payload);
            }
        }
    }
}

/// Whether an answer says that there will be another.
fn accepts(payload: &RawValue) -> bool {
    serde_json::from_str::<Standing>(payload.get())
        .is_ok_and(|standing| standing.status.as_deref() == Some("accepted"))
}

async fn send<S>(
    socket: &mut WebSocketStream<S>,
    id: &str,
    method: &str,
    params: &impl Serialize,
    stage: Stage,
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    #[derive(Serialize)]
    struct Frame<'a, P> {
        r#type: &'static str,
        id: &'a str,
        method: &'a str,
        params: &'a P,
    }
    let frame = written(&Frame { r#type: "req", id, method, params });
    match socket.send(Message::text(frame)).await {
        Ok(()) => Ok(()),
        // Why it can be written no more may have come before, as a close.
        Err(error) => match next(socket, stage).await {
            Err(closed @ Ended::Closed { .. }) => Err(closed),
            _ => Err(Ended::of(error, stage)),
        },
    }
}

/// The next response to this request; events are skipped.
async fn response<S>(
    socket: &mut WebSocketStream<S>,
    id: &str,
    stage: Stage,
) -> Result<Frame, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let frame = next(socket, stage).await?;
        if frame.r#type.as_deref() == Some("res") && frame.id.as_deref() == Some(id) {
            return Ok(frame);
        }
    }
}

async fn next<S>(socket: &mut WebSocketStream<S>, stage: Stage) -> Result<Frame, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                return serde_json::from_str(&text).map_err(|_| Ended::Strange { stage });
            }
            Some(Ok(Message::Close(Some(close)))) => {
                let (code, reason) = (close.code.into(), close.reason.to_string());
                return Err(Ended::Closed { stage, code, reason });
            }
            Some(Ok(Message::Close(None))) | None => return Err(Ended::Cut { stage }),
            Some(Ok(Message::Binary(_))) => return Err(Ended::Strange { stage }),
            // Pings are answered by reading on.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return Err(Ended::of(error, stage)),
        }
    }
}
