//! HTTP/1.1 connections of two hyper servers, moved while a client speaks.
#![expect(clippy::unwrap_used, reason = "a test may panic wherever it likes")]

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use handoff::link::{self, Link};
use handoff::migrate::http1::{Driven, Gauge, Gauged, GaugedService, drive};
use handoff::migrate::{
    Extent, Frozen, Kind, Links, Post, Returned, Roster, Seat, Snapshot, Source, Target,
};
use handoff::{Peer, Stream};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes far too long")
}

/// Says which server it is, and what was asked of it.
async fn answer(
    name: char,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let length = body.len();
    // An answer that is not there at once: a FIN may be found before it.
    tokio::task::yield_now().await;
    Ok(Response::new(Full::from(format!("{name} {path} {length}"))))
}

async fn serve(name: char, stream: Stream, peer: Peer, read: Vec<u8>, seat: Seat) {
    let gauge = Gauge::default();
    let io = TokioIo::new(Gauged::new(stream, read, &gauge));
    let service = GaugedService::new(service_fn(move |request| answer(name, request)), &gauge);
    let mut connection =
        Builder::new().half_close(true).pipeline_flush(true).serve_connection(io, service);
    if drive(&mut connection, &gauge, &seat).await == Driven::Movable {
        let parts = connection.into_parts();
        let (stream, read) = parts.io.into_inner().into_parts(&parts.read_buf);
        let snapshot =
            Snapshot { kind: Kind::Http1, peer, read, unsent: vec![], version: 1, state: vec![] };
        let descriptor = stream.into_descriptor().unwrap();
        seat.give(Frozen::connection(descriptor, snapshot, None));
    }
}

fn resume(name: char, roster: &Roster, frozen: Frozen) {
    let stream = Stream::adopt(frozen.descriptor).unwrap();
    let Snapshot { peer, read, .. } = frozen.snapshot;
    tokio::spawn(serve(name, stream, peer, read, roster.seat()));
}

/// An incumbent `i` with one connection, and a successor `s` that it can move to.
struct Move {
    client: TcpStream,
    extent: watch::Sender<Extent>,
    incumbent: Roster,
    _links: Links,
}

impl Move {
    async fn prepare() -> Self {
        let (extent, wanted) = watch::channel(Extent::Nothing);
        let (source, incumbent, links, _) = Source::new(wanted, Post::default());
        let back = incumbent.clone();
        tokio::spawn(source.run(move |frozen, returned| {
            assert_eq!(returned, Returned::Aborted);
            resume('i', &back, frozen);
        }));
        let (_, successor, ..) = Source::new(watch::channel(Extent::Nothing).1, Post::default());
        let (ours, theirs) = link::pair().unwrap();
        links.introduce(Link::new(ours).unwrap());
        let target = Target::new(Link::new(theirs).unwrap(), Post::default());
        let arrive = move |frozen| resume('s', &successor, frozen);
        tokio::spawn(target.run(arrive, std::future::pending()));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let stream = Stream::adopt(accepted.into_std().unwrap().into()).unwrap();
        tokio::spawn(serve('i', stream, Peer::Tcp(peer), vec![], incumbent.seat()));
        Self { client, extent, incumbent, _links: links }
    }

    /// The bodies of the next `count` responses.
    async fn bodies(&mut self, count: usize) -> Vec<String> {
        let mut received = Vec::new();
        let mut bodies = Vec::new();
        while bodies.len() < count {
            if let Some((body, length)) = first_body(&received) {
                bodies.push(body);
                received.drain(..length);
                continue;
            }
            let read = soon(self.client.read_buf(&mut received)).await.unwrap();
            assert!(read > 0, "closed after {bodies:?}");
        }
        assert!(received.is_empty(), "more than was asked: {received:?}");
        bodies
    }
}

fn first_body(bytes: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let head = text.find("\r\n\r\n")? + 4;
    let lower = text[..head].to_ascii_lowercase();
    assert!(!lower.contains("connection: close"), "{lower}");
    let (_, rest) = lower.split_once("content-length: ").unwrap();
    let length: usize = rest.split("\r\n").next().unwrap().parse().unwrap();
    let end = head + length;
    (text.len() >= end).then(|| (text[head..end].to_owned(), end))
}

const REQUESTS: &str = "GET /one HTTP/1.1\r\nhost: x\r\n\r\n\
    POST /two HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello\
    POST /three HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

#[tokio::test]
async fn a_connection_that_is_wanted_at_any_byte_answers_every_request_once_and_moves() {
    for cut in 0..=REQUESTS.len() {
        let mut moving = Move::prepare().await;
        let (before, after) = REQUESTS.as_bytes().split_at(cut);
        moving.client.write_all(before).await.unwrap();
        moving.extent.send_replace(Extent::Everything);
        // At a boundary the connection may be at rest now or have moved; in between it may not.
        tokio::task::yield_now().await;
        moving.client.write_all(after).await.unwrap();
        let bodies = moving.bodies(3).await;
        let asked: Vec<&str> = bodies.iter().map(|body| &body[2..]).collect();
        assert_eq!(asked, ["/one 0", "/two 5", "/three 3"], "cut at {cut}");
        soon(moving.incumbent.emptied()).await;
        moving.client.write_all(b"GET /four HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(moving.bodies(1).await, ["s /four 0"], "cut at {cut}");
    }
}

#[tokio::test]
async fn a_client_that_sends_no_more_gets_every_answer_wherever_its_connection_is() {
    for cut in 0..=REQUESTS.len() {
        let mut moving = Move::prepare().await;
        let (before, after) = REQUESTS.as_bytes().split_at(cut);
        moving.client.write_all(before).await.unwrap();
        moving.extent.send_replace(Extent::Everything);
        tokio::task::yield_now().await;
        moving.client.write_all(after).await.unwrap();
        moving.client.shutdown().await.unwrap();
        let bodies = moving.bodies(3).await;
        let asked: Vec<&str> = bodies.iter().map(|body| &body[2..]).collect();
        assert_eq!(asked, ["/one 0", "/two 5", "/three 3"], "cut at {cut}");
        assert_eq!(soon(moving.client.read(&mut [0])).await.unwrap(), 0, "cut at {cut}");
    }
}

#[tokio::test]
async fn what_was_read_of_a_head_moves_with_its_connection() {
    // A head half sent and a move that is over: the rest is understood by the successor.
    for cut in 1..REQUESTS.find("POST").unwrap() {
        let mut moving = Move::prepare().await;
        moving.client.write_all(&REQUESTS.as_bytes()[..cut]).await.unwrap();
        moving.extent.send_replace(Extent::Everything);
        // A whole request is answered first, by whoever has read it.
        soon(moving.incumbent.emptied()).await;
        moving.client.write_all(&REQUESTS.as_bytes()[cut..]).await.unwrap();
        let bodies = moving.bodies(3).await;
        let asked: Vec<&str> = bodies.iter().map(|body| &body[2..]).collect();
        assert_eq!(asked, ["/one 0", "/two 5", "/three 3"], "cut at {cut}");
        assert_eq!(&bodies[2][..1], "s", "cut at {cut}");
    }
}
