//! What each path answers.
//!
//! **Invariants**
//! - It only looks: no request changes anything.
//! - Probes tell whether and nothing else, and so need no token.
//! - No answer lets a browser run, load or send anything that is not this page's own.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::gate::{Gate, Outside};
use super::look::Looker;
use super::{metrics, page};
use crate::control::document::Status;

/// How many may follow the page live; others see it as it is, and load it again.
const MOST_VIEWERS: usize = 32;
/// How often the page is told what has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long one of them is followed; a browser comes again.
const LONGEST_VIEW: Duration = Duration::from_secs(15 * 60);

/// What every answer says. `default-src 'none'` is what there is no rule of its own for.
const RULES: [(HeaderName, HeaderValue); 7] = [
    (
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
    (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Everything that an answer is made from.
pub(super) struct Site {
    gate: Gate,
    looker: Arc<Looker>,
    viewers: Arc<Semaphore>,
    /// Changes when this process is to end.
    ending: watch::Receiver<()>,
}

/// What is served, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Page,
    Style,
    Script,
    Events,
    Status,
    Metrics,
    Health,
    Readiness,
}

impl Place {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/page.css" => Self::Style,
            "/page.js" => Self::Script,
            "/events" => Self::Events,
            "/status.json" => Self::Status,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/readyz" => Self::Readiness,
            _ => return None,
        })
    }

    const fn is_for_anybody(self) -> bool {
        matches!(self, Self::Health | Self::Readiness)
    }
}

impl Site {
    pub(super) fn new(gate: Gate, looker: Looker, ending: watch::Receiver<()>) -> Self {
        let viewers = Arc::new(Semaphore::new(MOST_VIEWERS));
        Self { gate, looker: Arc::new(looker), viewers, ending }
    }

    /// Answers a request. Whatever is in its body is not read.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Content> {
        let mut response = self.found(&request).await;
        for (name, value) in RULES {
            response.headers_mut().insert(name, value);
        }
        response
    }

    async fn found(&self, request: &Request<Incoming>) -> Response<Content> {
        let Some(place) = Place::at(request.uri().path()) else {
            return said(StatusCode::NOT_FOUND, "there is no such page; / is one");
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal =
                said(StatusCode::METHOD_NOT_ALLOWED, "this page is only to be looked at");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        if !place.is_for_anybody()
            && let Err(outside) = self.gate.admit(request.headers())
        {
            return refused(outside);
        }
        match place {
            Place::Style => typed(StatusCode::OK, "text/css; charset=utf-8", page::STYLE),
            Place::Script => typed(StatusCode::OK, "text/javascript; charset=utf-8", page::SCRIPT),
            Place::Events => self.events(request.method() == Method::HEAD),
            Place::Page => {
                let look = self.looker.look().await;
                let code =
                    if look.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                typed(code, "text/html; charset=utf-8", page::document(&look))
            }
            Place::Status => match &*self.looker.look().await {
                Ok(seen) => match serde_json::to_vec(&seen.status) {
                    Ok(document) => typed(StatusCode::OK, "application/json", document),
                    Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR, "the status is no JSON"),
                },
                Err(why) => said(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            // That the front is gone is a number, too.
            Place::Metrics => {
                let text = metrics::exposition(&*self.looker.look().await);
                typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
            }
            Place::Health => match &*self.looker.look().await {
                Ok(_) => said(StatusCode::OK, "the front lives"),
                Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, "the front does not answer"),
            },
            Place::Readiness => match &*self.looker.look().await {
                Ok(seen) if accepts(&seen.status) => said(StatusCode::OK, "a worker accepts"),
                Ok(_) => said(StatusCode::SERVICE_UNAVAILABLE, "no worker accepts"),
                Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, "the front does not answer"),
            },
        }
    }

    fn events(&self, only_the_head: bool) -> Response<Content> {
        let Ok(place) = Arc::clone(&self.viewers).try_acquire_owned() else {
            return said(StatusCode::SERVICE_UNAVAILABLE, "as many follow the page as may");
        };
        if only_the_head {
            return typed(StatusCode::OK, "text/event-stream", "");
        }
        let (news, content) = mpsc::channel(1);
        let (looker, mut ending) = (Arc::clone(&self.looker), self.ending.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                // Both are ends that a browser comes back from.
                _ = timeout(LONGEST_VIEW, tell(&looker, &news)) => {}
                _ = ending.changed() => {}
            }
        });
        response(StatusCode::OK, "text/event-stream", Content::Stream(content))
    }
}

/// Tells a viewer what has changed, again and again, until they leave.
async fn tell(looker: &Looker, news: &mpsc::Sender<Bytes>) {
    let mut known: Vec<(&str, String)> = Vec::new();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = news.closed() => return,
        }
        let now = page::sections(&*looker.look().await);
        let changed: Vec<_> = now.iter().filter(|section| !known.contains(section)).collect();
        // Texts and names are always JSON.
        let changed = serde_json::to_string(&changed).unwrap_or_default();
        if news.send(format!("retry: 1000\ndata: {changed}\n\n").into()).await.is_err() {
            return;
        }
        known = now;
    }
}

/// Whether newcomers are served. Between the two workers of a takeover they are, even where none of both accepts for a
/// moment: they wait in the queue for the successor.
pub(super) fn accepts(status: &Status) -> bool {
    let takes_over = status.takeover.as_ref().is_some_and(|takeover| takeover.incumbent.is_some());
    let accepts = |state: &str| matches!(state, "serving" | "emptying");
    takes_over || status.generations.iter().any(|generation| accepts(&generation.state))
}

fn refused(outside: Outside) -> Response<Content> {
    match outside {
        Outside::Unknown => {
            let mut refusal = said(
                StatusCode::UNAUTHORIZED,
                "this needs the token of --admin-token-file or HOLDFAST_ADMIN_TOKEN, as Bearer or as the password of the \
                 user holdfast",
            );
            let schemes = HeaderValue::from_static("Bearer, Basic realm=\"holdfast\"");
            refusal.headers_mut().insert(WWW_AUTHENTICATE, schemes);
            refusal
        }
        Outside::Misled => said(
            StatusCode::MISDIRECTED_REQUEST,
            "this page is for this machine, and has no other name than localhost or an address; with a token it has any",
        ),
    }
}

fn said(code: StatusCode, sentence: &str) -> Response<Content> {
    typed(code, "text/plain; charset=utf-8", format!("{sentence}\n"))
}

fn typed(code: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> Response<Content> {
    response(code, kind, Content::Whole(Some(content.into())))
}

fn response(code: StatusCode, kind: &'static str, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What an answer holds.
pub(super) enum Content {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(content) => Poll::Ready(content.take().map(|all| Ok(Frame::data(all)))),
            Self::Stream(news) => {
                news.poll_recv(cx).map(|next| next.map(|part| Ok(Frame::data(part))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, |all| all.len() as u64))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::page::tests::status;
    use crate::control::document::TakeoverStatus;

    #[test]
    fn newcomers_are_served_while_somebody_accepts_or_hands_over() {
        let takeover: TakeoverStatus = serde_json::from_str(
            r#"{"step":"switching","incumbent":"g1","successor":"g2","pending":false}"#,
        )
        .unwrap();
        let first = TakeoverStatus { incumbent: None, ..takeover.clone() };
        for (state, takeover, accepted) in [
            ("serving", None, true),
            ("emptying", Some(&takeover), true),
            ("stopping", Some(&takeover), true),
            ("starting", Some(&takeover), true),
            ("starting", Some(&first), false),
            ("starting", None, false),
            ("stopped", None, false),
            ("draining", None, false),
        ] {
            let mut status = status();
            status.generations[0].state = state.to_owned();
            status.takeover = takeover.cloned();
            assert_eq!(accepts(&status), accepted, "{state} {takeover:?}");
        }
    }
}
