//! A WebSocket client written out frame by frame (RFC 6455, 5.2), so that a test can stop in the middle
//! of any of them.

use std::io;

use handoff::Address;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::rig::patience::soon;

/// The request that makes a connection a WebSocket; its host is this machine, as a backend's is.
pub const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What a frame is: its opcode, and whether it is the last of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// A whole text.
    Text = 0x81,
    /// The beginning of a text.
    First = 0x01,
    /// More of it.
    Middle = 0x00,
    /// Its end.
    Last = 0x80,
    /// A ping.
    Ping = 0x89,
    /// A pong.
    Pong = 0x8a,
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Text(String),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close: its code, its reason.
    Close(u16, String),
    /// The end of the connection, with what it ended by.
    End(String),
}

/// A frame as a client sends it. Its mask is zero, which leaves the payload readable.
#[must_use]
pub fn frame(part: Part, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    let payload = payload.as_ref();
    let mut bytes = vec![part as u8];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => bytes.push(MASKED | length),
        (_, Ok(length)) => {
            bytes.push(MASKED | 126);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(MASKED | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// A request in the words of the protocol.
#[must_use]
pub fn call(id: &str, method: &str, params: Value) -> String {
    json!({"type": "req", "id": id, "method": method, "params": params}).to_string()
}

/// The first request of every client: it speaks these protocols and presents this token.
#[must_use]
pub fn connect_call((least, most): (u64, u64), token: &str) -> String {
    let params = json!({
        "minProtocol": least, "maxProtocol": most,
        "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
        "caps": [], "role": "operator", "scopes": ["operator.admin"], "auth": {"token": token},
    });
    call("connect", "connect", params)
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection, which may or may not have become a WebSocket yet.
pub struct BareWebSocket {
    io: Box<dyn Io>,
    unread: Vec<u8>,
}

impl BareWebSocket {
    /// Connects and says nothing.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn open(address: &Address) -> Self {
        let io = async {
            Ok::<Box<dyn Io>, io::Error>(match address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        let io = soon("a connection", io).await.expect("it is accepted");
        Self { io, unread: Vec::new() }
    }

    /// Becomes a WebSocket; the challenge has come.
    ///
    /// # Panics
    /// When the server does not play its part.
    pub async fn challenged(address: &Address) -> Self {
        let mut socket = Self::open(address).await;
        socket.send(UPGRADE).await;
        socket.upgraded().await;
        let challenge = socket.text().await.expect("a challenge comes");
        assert_eq!(challenge["event"], "connect.challenge", "{challenge}");
        socket
    }

    /// Becomes a WebSocket and connects with the token of the suite.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn connected(address: &Address) -> Self {
        let mut socket = Self::challenged(address).await;
        socket.send(&frame(Part::Text, connect_call((4, 4), crate::rig::TOKEN))).await;
        assert_eq!(socket.welcomed().await, 4);
        socket
    }

    /// Ends with the answer to `connect` and the event after it, and says which protocol is spoken.
    ///
    /// # Panics
    /// When the client is not let in.
    pub async fn welcomed(&mut self) -> u64 {
        let hello = self.text().await.expect("an answer to connect comes");
        assert_eq!(hello["payload"]["type"], "hello-ok", "{hello}");
        let health = self.text().await.expect("the first event comes");
        assert_eq!((&health["event"], &health["seq"]), (&json!("health"), &json!(1)), "{health}");
        hello["payload"]["protocol"].as_u64().expect("hello-ok names the protocol")
    }

    /// Sends bytes as they are. A connection that has ended says so at the next read.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = soon("a write", self.io.write_all(bytes)).await;
    }

    /// Sends nothing more, which the server hears after what was sent.
    pub async fn finish_sending(&mut self) {
        let _ = soon("the end of sending", self.io.shutdown()).await;
    }

    /// Ends when the server has agreed to the upgrade.
    ///
    /// # Panics
    /// When it does not.
    pub async fn upgraded(&mut self) {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            let ended = soon("an answer to the upgrade", self.read_more()).await;
            assert_eq!(ended, None, "no upgrade: {}", String::from_utf8_lossy(&self.unread));
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    }

    /// Makes a call and ends with its answer.
    ///
    /// # Panics
    /// When the connection ends first.
    pub async fn ask(&mut self, id: &str, method: &str) -> Value {
        self.send(&frame(Part::Text, call(id, method, json!({})))).await;
        loop {
            let said = self.text().await.unwrap_or_else(|| panic!("no answer to {id}"));
            if said["type"] == "res" {
                assert_eq!(said["id"], id, "an answer to something else: {said}");
                return said;
            }
        }
    }

    /// The next message, answering pings before it; `None` when there will be none.
    pub async fn text(&mut self) -> Option<Value> {
        loop {
            match self.next().await {
                Frame::Text(text) => {
                    return Some(serde_json::from_str(&text).expect("a message is JSON"));
                }
                Frame::Ping(payload) => self.send(&frame(Part::Pong, payload)).await,
                Frame::Pong(_) => {}
                Frame::Close(..) | Frame::End(_) => return None,
            }
        }
    }

    /// Reads until the server closes, and says how: `None` without a close frame.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match self.next().await {
                Frame::Close(code, reason) => return Some((code, reason)),
                Frame::End(_) => return None,
                Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => {}
            }
        }
    }

    /// Everything until the end of the connection, as it came.
    pub async fn rest(&mut self) -> String {
        while soon("the end of the connection", self.read_more()).await.is_none() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// The next frame. Cancel safe.
    ///
    /// # Panics
    /// When there is none within the rig's patience, or it is one that a server must not send.
    pub async fn next(&mut self) -> Frame {
        soon("the next frame, or the end", async {
            loop {
                if let Some(frame) = self.take() {
                    return frame;
                }
                if let Some(end) = self.read_more().await {
                    return Frame::End(end);
                }
            }
        })
        .await
    }

    /// Why nothing more comes, if nothing does.
    async fn read_more(&mut self) -> Option<String> {
        match self.io.read_buf(&mut self.unread).await {
            Ok(0) => Some("end of stream".into()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let (&first, &second) = (self.unread.first()?, self.unread.get(1)?);
        let (begin, length) = match second {
            126 => (4, u16::from_be_bytes(*self.unread.get(2..)?.first_chunk()?).into()),
            127 => (10, u64::from_be_bytes(*self.unread.get(2..)?.first_chunk()?)),
            length => (2, length.into()),
        };
        assert!(second <= 127, "a server must not mask its frames");
        let end = begin + usize::try_from(length).expect("a frame fits into memory");
        let payload = self.unread.get(begin..end)?.to_vec();
        self.unread.drain(..end);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text is UTF-8");
        Some(match first {
            0x81 => Frame::Text(text(payload)),
            0x89 => Frame::Ping(payload),
            0x8a => Frame::Pong(payload),
            0x88 => match payload.split_first_chunk() {
                Some((code, reason)) => {
                    Frame::Close(u16::from_be_bytes(*code), text(reason.to_vec()))
                }
                None => Frame::Close(1005, String::new()),
            },
            other => panic!("an unexpected frame {other:#x} of {length} bytes"),
        })
    }
}
