//! Responses: their shapes, the headers each of them carries, and the work they end.
//!
//! **Invariants**
//! - Every response says which generation made it.
//! - While the worker dismisses its clients, every response ends its connection.
//! - A request's work ends when its response's body is dropped: sent whole, or given up.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;
use tracing::info;

use super::events::Events;
use super::presence::Presence;
use super::{AccessLog, Gateway};
use crate::census::{Phase, Work};
use crate::metrics;

/// The header that names the generation which answered.
pub(super) const GENERATION: HeaderName = HeaderName::from_static("x-holdfast-generation");
/// What a browser is to keep in mind about any response; as the gateway we are compatible with says it.
pub(super) const SECURITY: [(HeaderName, HeaderValue); 3] = [
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), microphone=(self), geolocation=()"),
    ),
];
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// An event that no client sees.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A response of this worker.
pub(super) type Response = hyper::Response<Answer>;

/// A response's body.
#[derive(Debug)]
pub(super) struct Answer {
    content: Content,
    // After the content: a run is cancelled before its work counts as ended.
    engagement: Option<Engagement>,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Events(Box<Events>),
}

/// A plain text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response {
    whole(status, TEXT, Bytes::from_static(text.as_bytes()))
}

/// What Prometheus reads.
pub(super) fn exposition(text: String) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    whole(StatusCode::OK, kind, text.into())
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let written = serde_json::to_vec(value).expect("our own values have string keys");
    whole(status, JSON, written.into())
}

/// JSON that is ready to be sent.
pub(super) fn ready_json(status: StatusCode, written: &'static str) -> Response {
    whole(status, JSON, Bytes::from_static(written.as_bytes()))
}

/// A stream of server-sent events.
pub(super) fn events(events: Events) -> Response {
    let content = Content::Events(Box::new(events));
    let mut response = hyper::Response::new(Answer { content, engagement: None });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// No content at all.
pub(super) fn empty(status: StatusCode) -> Response {
    let content = Content::Whole(Bytes::new());
    let mut response = hyper::Response::new(Answer { content, engagement: None });
    *response.status_mut() = status;
    response
}

/// A refusal in the shape that OpenAI's clients read.
pub(super) fn refusal(status: StatusCode, kind: &'static str, message: &str) -> Response {
    json(status, &serde_json::json!({"error": {"message": message, "type": kind}}))
}

/// The request itself is wrong.
pub(super) fn invalid(message: &str) -> Response {
    refusal(StatusCode::BAD_REQUEST, "invalid_request_error", message)
}

/// The path knows other methods.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The same response, after which the connection ends.
pub(super) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn whole(status: StatusCode, kind: HeaderValue, written: Bytes) -> Response {
    let content = Content::Whole(written);
    let mut response = hyper::Response::new(Answer { content, engagement: None });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl Gateway {
    /// What every response carries.
    pub(super) fn stamp(&self, response: &mut Response, mut engagement: Engagement) {
        let status = response.status();
        if self.dismisses() && status != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let headers = response.headers_mut();
        headers.extend(SECURITY);
        headers.insert(GENERATION, self.generation.clone());
        engagement.status = Some(status);
        engagement.presence.response_begun();
        response.body_mut().engagement = Some(engagement);
    }
}

/// A request being answered. Its end is the end of the request's work.
#[derive(Debug)]
pub(super) struct Engagement {
    presence: Arc<Presence>,
    work: Work,
    begun_at: Instant,
    status: Option<StatusCode>,
    entry: Option<Box<Entry>>,
}

/// A line of the access log in the making.
#[derive(Debug)]
struct Entry {
    generation: HeaderValue,
    method: Method,
    path: String,
}

impl Engagement {
    /// A request begins to be answered.
    pub(super) fn begin<B>(
        gateway: &Gateway,
        presence: &Arc<Presence>,
        work: Work,
        request: &hyper::Request<B>,
    ) -> Self {
        presence.visitor.begin(work);
        presence.request_begun(request.version());
        let entry = (gateway.access_log == AccessLog::On).then(|| {
            Box::new(Entry {
                generation: gateway.generation.clone(),
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
            })
        });
        let presence = Arc::clone(presence);
        Self { presence, work, begun_at: Instant::now(), status: None, entry }
    }
}

impl Drop for Engagement {
    fn drop(&mut self) {
        self.presence.visitor.enter(Phase::Answered);
        metrics::request(self.work, self.status, self.begun_at.elapsed());
        if let Some(entry) = &self.entry {
            info!(
                generation = entry.generation.to_str().unwrap_or_default(),
                method = %entry.method,
                path = entry.path,
                // No status: the client left before there was a response.
                status = self.status.map(|status| status.as_u16()),
                ms = self.begun_at.elapsed().as_millis(),
                "request"
            );
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |bytes| Ok(Frame::data(bytes));
        let this = self.get_mut();
        match &mut this.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(frame(std::mem::take(bytes)))),
            Content::Events(events) => {
                let engagement = this.engagement.as_ref();
                let comment_due = engagement.is_some_and(|e| e.presence.take_comment_due());
                match events.poll_bytes(context) {
                    Poll::Pending if comment_due => Poll::Ready(Some(frame(COMMENT))),
                    bytes => bytes.map(|bytes| bytes.map(frame)),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Events(events) => events.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Events(_) => SizeHint::default(),
        }
    }
}
