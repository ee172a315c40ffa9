//! The same on sockets of the kernel, where somebody must be woken.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use handoff::migrate::websocket::tungstenite::Message;
use handoff::migrate::websocket::tungstenite::protocol::{Role, WebSocketConfig};
use handoff::migrate::websocket::{Frozen, MovableWebSocket, NotMovable};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;

/// A socket that can be given to another event loop, as a successor's.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sized + 'static {
    fn register_anew(self) -> io::Result<Self>;
}

impl Socket for TcpStream {
    fn register_anew(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

impl Socket for UnixStream {
    fn register_anew(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (server, client) = tokio::join!(listener.accept(), client);
    (server.unwrap().0, client.unwrap())
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(16 * 1024)
}

async fn client<S: Socket>(socket: S) -> WebSocketStream<S> {
    WebSocketStream::from_raw_socket(socket, Role::Client, None).await
}

fn relocate<S: Socket>(websocket: MovableWebSocket<S>) -> MovableWebSocket<S> {
    let Frozen { io, read, unsent } = websocket.freeze().map_err(|(_, reason)| reason).unwrap();
    let io = io.register_anew().unwrap();
    MovableWebSocket::thaw(Frozen { io, read, unsent }, config())
}

/// Numbered messages both ways, 2,000 of them in flight, and a move after every seventh.
async fn moves_under_load<S: Socket>((server, client_end): (S, S)) {
    const MESSAGES: usize = 2000;
    let echo = tokio::spawn(async move {
        let mut websocket = MovableWebSocket::accept(server, Bytes::new(), config());
        let mut heard = 0;
        while let Some(message) = websocket.next().await {
            match message.unwrap() {
                message @ Message::Text(_) => websocket.feed(message).unwrap(),
                Message::Close(_) => assert_eq!(websocket.is_movable(), Err(NotMovable::Closing)),
                _ => {}
            }
            heard += 1;
            if heard % 7 == 0 && websocket.is_movable().is_ok() {
                websocket = relocate(websocket);
            }
        }
        heard
    });
    let (mut say, mut hear) = client(client_end).await.split();
    let saying = async {
        for number in 0..MESSAGES {
            let text = format!("{number} {}", "x".repeat(number % 500));
            say.feed(Message::text(text)).await.unwrap();
            if number % 10 == 0 {
                say.feed(Message::Ping(number.to_string().into())).await.unwrap();
            }
        }
        say.send(Message::Close(None)).await.unwrap();
    };
    let hearing = async {
        let (mut texts, mut pongs) = (0, 0);
        while let Some(message) = hear.next().await {
            match message.unwrap() {
                Message::Text(text) => {
                    assert!(text.starts_with(&format!("{texts} ")), "{text} came as {texts}");
                    texts += 1;
                }
                Message::Pong(number) => {
                    assert_eq!(&number[..], (pongs * 10).to_string().as_bytes());
                    pongs += 1;
                }
                _ => {}
            }
        }
        (texts, pongs)
    };
    let all = async { tokio::join!(saying, hearing, echo) };
    let ((), counts, heard) = timeout(Duration::from_secs(30), all).await.expect("it hangs");
    assert_eq!(counts, (MESSAGES, MESSAGES / 10));
    assert_eq!(heard.unwrap(), MESSAGES + MESSAGES / 10 + 1);
}

/// The client reads nothing until the kernel is full and more is queued; then it has moved.
async fn moves_with_output_stuck<S: Socket>((server, client_end): (S, S)) {
    let mut websocket = MovableWebSocket::accept(server, Bytes::new(), config());
    let mut fed = 0;
    while websocket.backlog() < 300_000 {
        websocket.feed(Message::text(format!("{fed} {}", "y".repeat(1000)))).unwrap();
        fed += 1;
        poll_fn(|context| {
            let _ = websocket.poll_flush(context).map(|flushed| flushed.unwrap());
            Poll::Ready(())
        })
        .await;
    }
    for _ in 0..3 {
        let backlog = websocket.backlog();
        websocket = relocate(websocket);
        assert_eq!(websocket.backlog(), backlog);
        websocket.feed(Message::text(format!("{fed} after a move"))).unwrap();
        fed += 1;
        assert!(websocket.backlog() > backlog);
    }
    let sending = tokio::spawn(async move {
        let last = websocket.next().await;
        assert_eq!(websocket.backlog(), 0);
        last
    });
    let mut client = client(client_end).await;
    let all = async {
        for number in 0..fed {
            let message = client.next().await.unwrap().unwrap();
            assert!(message.to_text().unwrap().starts_with(&format!("{number} ")));
        }
        client.send(Message::text("all came")).await.unwrap();
        sending.await.unwrap()
    };
    let last = timeout(Duration::from_secs(30), all).await.expect("it hangs");
    assert_eq!(last.unwrap().unwrap(), Message::text("all came"));
}

#[tokio::test]
async fn over_tcp_numbered_messages_survive_hundreds_of_moves_in_order() {
    moves_under_load(tcp().await).await;
}

#[tokio::test]
async fn over_a_unix_socket_numbered_messages_survive_hundreds_of_moves_in_order() {
    moves_under_load(UnixStream::pair().unwrap()).await;
}

#[tokio::test]
async fn over_tcp_what_the_kernel_and_we_had_queued_arrives_after_a_move() {
    moves_with_output_stuck(tcp().await).await;
}

#[tokio::test]
async fn over_a_unix_socket_what_the_kernel_and_we_had_queued_arrives_after_a_move() {
    moves_with_output_stuck(UnixStream::pair().unwrap()).await;
}

#[tokio::test]
async fn a_client_that_has_sent_its_last_byte_is_answered_after_a_move() {
    let (server, mut client_end) = tcp().await;
    let message = crate::client::Client::new().whole(crate::client::TEXT, b"last words").bytes;
    client_end.write_all(&message).await.unwrap();
    client_end.shutdown().await.unwrap();
    let mut websocket = MovableWebSocket::accept(server, Bytes::new(), config());
    let last = websocket.next().await.unwrap().unwrap();
    websocket.feed(last).unwrap();
    let mut websocket = relocate(websocket);
    assert!(websocket.next().await.unwrap().is_err());
    assert_eq!(websocket.is_movable(), Err(NotMovable::Ended));
    let mut client = client(client_end).await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("last words"));
}
