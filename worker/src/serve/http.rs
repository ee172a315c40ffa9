//! One request in, one response out: which path is served by whom.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use handoff::Peer;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::service::Service;
use hyper::{Method, Request, StatusCode};

use super::answer::{self, Engagement, Response};
use super::presence::Presence;
use super::websocket::Upgrade;
use super::{Gateway, completions, models, probes, websocket};
use crate::census::Work;

/// What answers the requests of one connection.
#[derive(Debug)]
pub(super) struct Desk {
    gateway: Arc<Gateway>,
    presence: Arc<Presence>,
    peer: Peer,
    /// Set when the connection is to become a WebSocket.
    upgrade: OnceLock<Upgrade>,
}

impl Desk {
    pub(super) const fn new(gateway: Arc<Gateway>, presence: Arc<Presence>, peer: Peer) -> Self {
        Self { gateway, presence, peer, upgrade: OnceLock::new() }
    }

    /// What the connection is to become after its last response, if it is to go on.
    pub(super) fn into_upgrade(self) -> Option<Upgrade> {
        self.upgrade.into_inner()
    }

    fn route(&self, request: Request<Incoming>) -> Handling {
        let method = request.method();
        let reading = method == Method::GET || method == Method::HEAD;
        match work_of(request.uri().path()) {
            Work::Probe | Work::Models | Work::Metrics if !reading => {
                Handling::Done(answer::method_not_allowed("GET, HEAD"))
            }
            Work::Completion if method != Method::POST => {
                Handling::Done(answer::method_not_allowed("POST"))
            }
            Work::Upgrade if !reading => Handling::Done(answer::method_not_allowed("GET")),
            Work::Models | Work::Completion | Work::Metrics
                if !self.is_authorized(request.headers()) =>
            {
                Handling::Done(answer::refusal(
                    StatusCode::UNAUTHORIZED,
                    "unauthorized",
                    "Unauthorized",
                ))
            }
            Work::Probe => Handling::Done(match request.uri().path() {
                "/health" | "/healthz" => probes::live(),
                "/startupz" => probes::started(&self.gateway),
                _ => probes::ready(&self.gateway),
            }),
            Work::Models => {
                Handling::Done(match request.uri().path().strip_prefix("/v1/models/") {
                    Some(id) => models::show(&self.gateway, id),
                    None => models::list(&self.gateway),
                })
            }
            Work::Completion => {
                Handling::Later(Box::pin(completions::answer(Arc::clone(&self.gateway), request)))
            }
            Work::Upgrade => {
                Handling::Done(match websocket::upgrade(&self.gateway, self.peer, &request) {
                    Ok((response, upgrade)) => {
                        // hyper reads no further request after a 101.
                        let _ = self.upgrade.set(upgrade);
                        response
                    }
                    Err(refusal) => *refusal,
                })
            }
            Work::Metrics => Handling::Done(self.gateway.metrics()),
            Work::Unknown => Handling::Done(not_found()),
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(AUTHORIZATION) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ")
            && self.gateway.knowledge.token.current().is(token.trim_ascii())
    }
}

/// What a path is for.
fn work_of(path: &str) -> Work {
    match path {
        "/health" | "/healthz" | "/ready" | "/readyz" | "/startupz" | "/gateway/ready" => {
            Work::Probe
        }
        "/v1/chat/completions" => Work::Completion,
        "/v1/models" => Work::Models,
        "/" => Work::Upgrade,
        "/metrics" => Work::Metrics,
        path if path.starts_with("/v1/models/") => Work::Models,
        _ => Work::Unknown,
    }
}

/// Nothing is served there.
pub(super) fn not_found() -> Response {
    answer::text(StatusCode::NOT_FOUND, "Not Found")
}

impl Service<Request<Incoming>> for Desk {
    type Response = Response;
    type Error = Infallible;
    type Future = Reply;

    fn call(&self, request: Request<Incoming>) -> Reply {
        let work = work_of(request.uri().path());
        let engagement = Engagement::begin(&self.gateway, &self.presence, work, &request);
        let handling = self.route(request);
        Reply { handling, engagement: Some(engagement), gateway: Arc::clone(&self.gateway) }
    }
}

/// A response that is there, or in the making. `Unpin`, as a connection has to be that is polled
/// without being given up.
pub(super) struct Reply {
    handling: Handling,
    engagement: Option<Engagement>,
    gateway: Arc<Gateway>,
}

enum Handling {
    /// Most requests need no task and no allocation of their own.
    Done(Response),
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl Future for Reply {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut response = match &mut this.handling {
            Handling::Done(response) => {
                std::mem::replace(response, answer::empty(StatusCode::INTERNAL_SERVER_ERROR))
            }
            Handling::Later(handler) => std::task::ready!(handler.as_mut().poll(context)),
        };
        let engagement = this.engagement.take().expect("a future is not polled after it is ready");
        this.gateway.stamp(&mut response, engagement);
        Poll::Ready(Ok(response))
    }
}
