//! A WebSocket client of the bundled worker.

use futures_util::{SinkExt as _, StreamExt as _};
use handoff::Address;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::patience::soon;

/// One open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    stream: WebSocketStream<TcpStream>,
}

/// How the server ended a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The close code; `None` when the connection ended without a close frame.
    pub code: Option<u16>,
    /// The reason that came with it.
    pub reason: String,
    /// The names of the events that came before, in order.
    pub events: Vec<String>,
}

impl WebSocket {
    /// Connects, and stays in the handshake: the challenge has come, nothing was answered.
    ///
    /// # Panics
    /// When the server does not play its part.
    pub async fn challenged(address: &Address) -> Self {
        let Address::Tcp(address) = address else { panic!("this client speaks TCP: {address}") };
        let connected = soon("a connection", TcpStream::connect(address)).await;
        let io = connected.expect("it is accepted");
        let url = format!("ws://{address}/");
        let upgraded = soon("an upgrade", client_async(url, io)).await;
        let (stream, _) = upgraded.expect("it is upgraded");
        let mut websocket = Self { stream };
        let challenge = websocket.next().await.expect("a challenge comes");
        assert_eq!(challenge["event"], "connect.challenge", "{challenge}");
        websocket
    }

    /// Connects with the token of the suite.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn connected(address: &Address) -> Self {
        let mut websocket = Self::challenged(address).await;
        websocket.connect().await;
        websocket
    }

    /// Ends the handshake.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn connect(&mut self) {
        let hello = self
            .call(
                "connect",
                json!({
                    "minProtocol": 4, "maxProtocol": 4,
                    "client": {
                        "id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend",
                    },
                    "caps": [], "role": "operator", "scopes": ["operator.admin"],
                    "auth": {"token": super::TOKEN},
                }),
            )
            .await;
        assert_eq!(hello["payload"]["type"], "hello-ok", "{hello}");
    }

    /// Calls a method and returns the whole answer.
    ///
    /// # Panics
    /// When the connection ends first.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        let frame = json!({"type": "req", "id": method, "method": method, "params": params});
        let sent = self.stream.send(Message::text(frame.to_string())).await;
        sent.expect("a frame can be sent");
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("no answer to {method}"));
            if frame["type"] == "res" && frame["id"] == method {
                return frame;
            }
        }
    }

    /// Reads until the server ends the connection.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ended(self) -> Ending {
        // One deadline for it all: a server that keeps the connection sends a tick now and then.
        soon("the server ends a WebSocket", self.read_to_end()).await
    }

    async fn read_to_end(mut self) -> Ending {
        let mut events = Vec::new();
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
                    events.extend(frame["event"].as_str().map(str::to_owned));
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    // Reading on answers the close.
                    while let Some(Ok(_)) = self.stream.next().await {}
                    let (code, reason) = (Some(close.code.into()), close.reason.to_string());
                    return Ending { code, reason, events };
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    return Ending { code: None, reason: String::new(), events };
                }
            }
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            match soon("the next frame", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return Some(serde_json::from_str(&text).expect("a frame is JSON"));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }
}
