//! A turn that a provider's model answers, piece by piece.
//!
//! ```text
//! opening ─► 200: streaming ─► pieces … ─► [DONE], or all was said ─► over
//!    │           └──── silent for too long, broken off, an error in between ──► failed
//!    └──► refused, silent for too long ────────────────────────────────────────► failed
//! ```
//!
//! **Invariants**
//! - It is pulled: no byte is read from the connection while nobody asks for a piece.
//! - The connection lives in the run: dropped, it is closed.
//! - Every wait has a limit.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use tokio::time::{Instant, Sleep, sleep};

use super::chunk::Chunk;
use super::connector::{ConnectFailed, Connector, Exchange};
use super::refusal::{self, Refused};
use super::sse::Events;
use crate::agents::harness::{Failure, Piece, Reason, Usage};

/// How long nothing at all may come from a provider; a model that thinks before it speaks takes its time.
pub(super) const SILENCE: Duration = Duration::from_secs(180);
/// The most of a refusal that is read, in bytes.
const MOST_REFUSAL: usize = 64 * 1024;
/// The longest answer, in bytes.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

type Opening = Pin<Box<dyn Future<Output = Result<Streaming, Failure>> + Send>>;

/// How long a run waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the next byte.
    pub(super) silence: Duration,
    /// For all of it.
    pub(super) whole: Option<Duration>,
}

/// A turn under way.
pub(crate) struct ModelRun {
    step: Step,
    limits: Limits,
    patience: Option<Patience>,
    secrets: std::sync::Arc<[String]>,
    text: String,
    said: usize,
    usage: Option<Usage>,
    failure: Option<Failure>,
}

enum Step {
    Opening(Opening),
    Streaming(Streaming),
    Over,
}

/// An answer that comes.
struct Streaming {
    exchange: Exchange,
    body: Incoming,
    events: Events,
    finished: bool,
}

/// What is left of it.
struct Patience {
    silence: Pin<Box<Sleep>>,
    whole: Option<Pin<Box<Sleep>>>,
}

/// What follows from a chunk or a byte.
enum Next {
    Text,
    End,
    Failed(Failure),
    More,
}

impl fmt::Debug for ModelRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Opening(_) => "opening",
            Step::Streaming(_) => "streaming",
            Step::Over => "over",
        };
        f.debug_struct("ModelRun").field("step", &step).field("said", &self.said).finish()
    }
}

impl ModelRun {
    pub(super) fn new(
        connector: Connector,
        request: Result<Request<Full<Bytes>>, Failure>,
        limits: Limits,
        secrets: std::sync::Arc<[String]>,
    ) -> Self {
        let hidden = std::sync::Arc::clone(&secrets);
        let opening: Opening = Box::pin(async move { open(&connector, request?, &hidden).await });
        Self {
            step: Step::Opening(opening),
            limits,
            patience: None,
            secrets,
            text: String::new(),
            said: 0,
            usage: None,
            failure: None,
        }
    }

    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Piece<'_>> {
        let next = loop {
            match ready!(self.poll_next(context)) {
                Next::More => {}
                next => break next,
            }
        };
        if !matches!(next, Next::Text) {
            self.step = Step::Over;
        }
        Poll::Ready(match next {
            Next::Text => Piece::Text(&self.text),
            Next::End | Next::More => Piece::End,
            Next::Failed(failure) => Piece::Failed(self.failure.insert(failure)),
        })
    }

    /// What the answer cost, as the provider says.
    pub(crate) const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let limits = self.limits;
        let patience = self.patience.get_or_insert_with(|| Patience::with(limits));
        let heard = match &mut self.step {
            Step::Opening(opening) => match opening.as_mut().poll(context) {
                Poll::Ready(Ok(streaming)) => {
                    self.step = Step::Streaming(streaming);
                    patience.heard(limits.silence);
                    return Poll::Ready(Next::More);
                }
                Poll::Ready(Err(failure)) => return Poll::Ready(Next::Failed(failure)),
                Poll::Pending => Poll::Pending,
            },
            Step::Streaming(streaming) => match streaming.events.next_event() {
                Ok(Some(data)) => return Poll::Ready(self.told(&data)),
                Ok(None) => streaming.poll_bytes(context, &self.secrets),
                Err(too_long) => {
                    let failure = Failure::new(Reason::Unknown, &too_long.to_string());
                    return Poll::Ready(Next::Failed(failure));
                }
            },
            Step::Over => return Poll::Ready(Next::End),
        };
        match heard {
            Poll::Ready(next) => {
                patience.heard(limits.silence);
                Poll::Ready(match next {
                    Next::End if self.said == 0 => Next::Failed(nothing_said()),
                    next => next,
                })
            }
            Poll::Pending => patience.poll(context, limits, self.said).map(Next::Failed),
        }
    }

    /// An event has come.
    fn told(&mut self, data: &str) -> Next {
        let chunk = match Chunk::read(data, &self.secrets) {
            Ok(chunk) => chunk,
            Err(failure) => return Next::Failed(failure),
        };
        self.usage = chunk.usage.or(self.usage);
        if let Step::Streaming(streaming) = &mut self.step {
            streaming.finished |= chunk.finished;
        }
        self.said = self.said.saturating_add(chunk.text.len());
        if self.said > LONGEST_ANSWER {
            return Next::Failed(Failure::new(Reason::Unknown, "its answer does not end"));
        }
        match (chunk.done, chunk.text.is_empty(), self.said) {
            (true, _, 0) => Next::Failed(nothing_said()),
            (true, _, _) => Next::End,
            (false, true, _) => Next::More,
            (false, false, _) => {
                self.text = chunk.text;
                Next::Text
            }
        }
    }
}

impl Streaming {
    /// More of the answer's bytes, or their end.
    fn poll_bytes(&mut self, context: &mut Context<'_>, secrets: &[String]) -> Poll<Next> {
        self.exchange.advance(context);
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                // That somebody wants more is news to the connection.
                self.exchange.advance(context);
                ready!(Pin::new(&mut self.body).poll_frame(context))
            }
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.events.push(bytes);
                }
                Next::More
            }
            // Some do without `[DONE]`, and some without a proper end after all was said.
            None | Some(Err(_)) if self.finished => Next::End,
            None => Next::Failed(Failure::new(Reason::Unknown, "its answer broke off")),
            Some(Err(error)) => Next::Failed(broken_off(&error, secrets)),
        })
    }
}

fn broken_off(error: &hyper::Error, secrets: &[String]) -> Failure {
    let words = format!("its answer broke off: {}", handoff::chain(error));
    Failure::hiding(Reason::Unknown, &words, secrets)
}

fn nothing_said() -> Failure {
    Failure::new(Reason::NoOutput, "an empty answer")
}

impl Patience {
    fn with(limits: Limits) -> Self {
        Self {
            silence: Box::pin(sleep(limits.silence)),
            whole: limits.whole.map(|whole| Box::pin(sleep(whole))),
        }
    }

    fn heard(&mut self, silence: Duration) {
        self.silence.as_mut().reset(Instant::now() + silence);
    }

    fn poll(&mut self, context: &mut Context<'_>, limits: Limits, said: usize) -> Poll<Failure> {
        if let (Some(whole), Some(limit)) = (&mut self.whole, limits.whole)
            && whole.as_mut().poll(context).is_ready()
        {
            let limit = limit.as_secs_f64();
            return Poll::Ready(match said {
                0 => Failure::new(Reason::NoOutput, &format!("no output for {limit} s")),
                _ => Failure::new(Reason::Timeout, &format!("no end within {limit} s")),
            });
        }
        ready!(self.silence.as_mut().poll(context));
        let words = format!("no output for {} s", limits.silence.as_secs_f64());
        Poll::Ready(Failure::new(Reason::NoOutput, &words))
    }
}

/// Sends the request; what comes is an answer or a failure.
async fn open(
    connector: &Connector,
    request: Request<Full<Bytes>>,
    secrets: &[String],
) -> Result<Streaming, Failure> {
    let (mut exchange, response) =
        connector.send(request).await.map_err(|failed| not_connected(&failed, secrets))?;
    if !response.status().is_success() {
        return Err(refused(&mut exchange, response, secrets).await);
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.trim_start().starts_with("text/event-stream")) {
        return Err(Failure::new(Reason::Unknown, "its answer is not streamed"));
    }
    let body = response.into_body();
    Ok(Streaming { exchange, body, events: Events::default(), finished: false })
}

fn not_connected(failed: &ConnectFailed, secrets: &[String]) -> Failure {
    let reason = match failed {
        ConnectFailed::NoAuthorities => Reason::Config,
        ConnectFailed::TimedOut => Reason::Timeout,
        ConnectFailed::Refused { .. } | ConnectFailed::Broken { .. } => Reason::Unknown,
    };
    Failure::hiding(reason, &handoff::chain(failed).to_string(), secrets)
}

async fn refused(
    exchange: &mut Exchange,
    response: Response<Incoming>,
    secrets: &[String],
) -> Failure {
    let (head, body) = response.into_parts();
    let mut body = std::pin::pin!(Limited::new(body, MOST_REFUSAL).collect());
    let body = std::future::poll_fn(|context| {
        exchange.advance(context);
        match body.as_mut().poll(context) {
            Poll::Pending => {
                exchange.advance(context);
                body.as_mut().poll(context)
            }
            ready @ Poll::Ready(_) => ready,
        }
    });
    // The status says enough when the rest does not come.
    let body = body.await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    refusal::failure(&Refused::with(head.status, &head.headers, &body), secrets)
}
