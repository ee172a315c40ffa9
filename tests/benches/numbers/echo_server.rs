//! A server of its own process, with two sides that differ in one thing: whether their connections
//! could move.
//!
//! It has one thread, so that a client with a core of its own keeps it busy, and ends when whoever
//! started it closes its stdin.

#![expect(clippy::print_stdout, reason = "it tells where it listens")]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use handoff::migrate::http1::{self, Gauge, Gauged, GaugedService};
use handoff::migrate::websocket::MovableWebSocket;
use handoff::migrate::websocket::tungstenite::protocol::{Role, WebSocketConfig};
use handoff::migrate::{Extent, Post, Roster, Source};
use holdfast_tests::rig::{Process, soon};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;

/// The first word of a command line that asks for this server.
pub(crate) const WORD: &str = "serve-echo";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Movable,
    Plain,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    WebSocket,
    Http,
}

/// Every listener, in the order in which their addresses are told.
const LISTENERS: [(Speech, Side); 4] = [
    (Speech::WebSocket, Side::Movable),
    (Speech::WebSocket, Side::Plain),
    (Speech::Http, Side::Movable),
    (Speech::Http, Side::Plain),
];

/// Serves until stdin ends.
pub(crate) fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn serve() -> io::Result<()> {
    // Nobody is ever asked to move; the seats are there all the same.
    let (_nothing, extent) = watch::channel(Extent::Nothing);
    let (source, roster, _links, _) = Source::new(extent, Post::default());
    tokio::spawn(source.run(|_, _| {}));
    for (speech, side) in LISTENERS {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let roster = roster.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // It fails only on a socket that is gone already.
                let _ = stream.set_nodelay(true);
                match (speech, side) {
                    (Speech::WebSocket, Side::Movable) => {
                        tokio::spawn(echo_movable(stream));
                    }
                    (Speech::WebSocket, Side::Plain) => {
                        tokio::spawn(echo_plain(stream));
                    }
                    (Speech::Http, Side::Movable) => {
                        tokio::spawn(answer_movable(stream, roster.clone()));
                    }
                    (Speech::Http, Side::Plain) => {
                        tokio::spawn(answer_plain(stream));
                    }
                }
            }
        });
    }
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// The bundled worker's settings.
fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(16 * 1024)
}

async fn echo_movable(stream: TcpStream) {
    let mut socket = MovableWebSocket::accept(stream, Bytes::new(), config());
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() || socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn echo_plain(stream: TcpStream) {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() || socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"{\"ok\":true}"))))
}

async fn answer_movable(stream: TcpStream, roster: Roster) {
    let (gauge, seat) = (Gauge::default(), roster.seat());
    let io = TokioIo::new(Gauged::new(stream, Vec::new(), &gauge));
    let service = GaugedService::new(service_fn(answer), &gauge);
    let builder = hyper::server::conn::http1::Builder::new();
    let mut connection = builder.serve_connection(io, service);
    // A client that goes is not the server's failure.
    let _ = http1::drive(&mut connection, &gauge, &seat).await;
}

async fn answer_plain(stream: TcpStream) {
    let builder = hyper::server::conn::http1::Builder::new();
    // As above.
    let _ = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

/// The server, seen from whoever started it; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct EchoServer {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl EchoServer {
    pub(crate) async fn start() -> Self {
        let own = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(own);
        command.arg(WORD).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("this program can be started");
        let stdout = child.stdout.take().expect("its stdout is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let mut addresses = Vec::new();
        while addresses.len() < LISTENERS.len() {
            let line = soon("the server listens", lines.next_line()).await;
            let line = line.expect("its stdout can be read").expect("it tells all its addresses");
            addresses.push(line.parse().expect("it tells an address"));
        }
        Self { child, addresses }
    }

    /// Its process, and where it listens for this.
    pub(crate) fn at(&self, speech: Speech, side: Side) -> (Process, SocketAddr) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let listener = LISTENERS.iter().position(|listener| *listener == (speech, side));
        let address = self.addresses[listener.expect("there is one for each")];
        (pid.and_then(Process::find).expect("the server runs"), address)
    }
}
