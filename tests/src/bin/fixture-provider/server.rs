//! The provider's server: it answers as its script says, and knows what it was asked and who still listens.
//!
//! **Invariants**
//! - An answer counts as open from its request until it was given whole or its client has left.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::script::{Act, Then, act};

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// The requests, in order.
    pub(crate) requests: Vec<Value>,
    /// The answers that are being given.
    pub(crate) open: usize,
}

/// A provider that listens.
pub(crate) struct FixtureProvider {
    address: SocketAddr,
    heard: Arc<watch::Sender<Heard>>,
}

impl FixtureProvider {
    /// Serves whoever connects there, for as long as the runtime lives.
    pub(crate) fn serve(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let heard = Arc::new(watch::Sender::default());
        let known = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&known)));
            }
        });
        Ok(Self { address, heard })
    }

    /// What a configuration calls `baseUrl`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What has happened so far, and what will.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests ask, the program does not"))]
    pub(crate) fn heard(&self) -> watch::Receiver<Heard> {
        self.heard.subscribe()
    }
}

async fn converse(stream: TcpStream, heard: Arc<watch::Sender<Heard>>) {
    let answer = service_fn(|request| answer(request, Arc::clone(&heard)));
    // A client that leaves is what some of the tests are about.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    heard: Arc<watch::Sender<Heard>>,
) -> Result<Response<Answer>, Infallible> {
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    let authorization = authorization.as_ref().and_then(|a| a.to_str().ok()).unwrap_or_default();
    let is_known = request.uri().path() == "/v1/chat/completions";
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let asked: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let mut before = 0;
    heard.send_modify(|heard| {
        before = heard.requests.iter().filter(|r| r["model"] == asked["model"]).count();
        heard.requests.push(asked.clone());
        heard.open += 1;
    });
    let open = Open(heard);
    let act = if is_known { act(&asked, authorization, before) } else { Act::Silence };
    let (head, portions, then) = match act {
        Act::Silence => {
            let _open = open;
            return std::future::pending().await;
        }
        Act::Refuse(status, retry_after, body) => {
            let head = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
            let head = retry_after.into_iter().fold(head, |head, at| head.header(RETRY_AFTER, at));
            (head, vec![body.to_string()], Then::End)
        }
        Act::Say(portions, then) => {
            let head = Response::builder().status(StatusCode::OK);
            (head.header(CONTENT_TYPE, "text/event-stream; charset=utf-8"), portions, then)
        }
    };
    let answer = Answer { portions: portions.into(), then, flushed: false, _open: open };
    Ok(head.body(answer).expect("these are a status and headers"))
}

/// An answer that is being given; it is not when this is dropped.
struct Open(Arc<watch::Sender<Heard>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|heard| heard.open -= 1);
    }
}

/// The body of an answer.
pub(crate) struct Answer {
    portions: std::collections::VecDeque<String>,
    then: Then,
    flushed: bool,
    _open: Open,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let repeats = self.then == Then::Repeat;
        let portion =
            if repeats { self.portions.front().cloned() } else { self.portions.pop_front() };
        match (portion, self.then) {
            (Some(portion), _) => Poll::Ready(Some(Ok(Frame::data(portion.into())))),
            (None, Then::End | Then::Repeat) => Poll::Ready(None),
            // What was said goes out first: hyper flushes when nothing more is there.
            (None, Then::Break) if !self.flushed => {
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            (None, Then::Break) => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
            // Nobody wakes it: it is dropped when its client has left.
            (None, Then::Wait) => Poll::Pending,
        }
    }
}
