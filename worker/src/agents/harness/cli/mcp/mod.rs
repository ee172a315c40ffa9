//! The tools of one session: an MCP endpoint (streamable HTTP) of its own, on loopback, that moves with the session.
//!
//! ```text
//! child ── POST /mcp, its token ──► listener ─► whoever owns the session ─► Toolbox
//! ```
//!
//! **Invariants**
//! - Only the owner of the session accepts, so only it answers the child.
//! - Who does not show the session's token gets no answer but that.
//! - What `tools/list` names is what `tools/call` calls: nothing, in a worker that has no tools for agents.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::debug;

/// The versions of the protocol that are spoken; the first is offered to who asks for another.
const VERSIONS: [&str; 3] = ["2025-06-18", "2025-03-26", "2024-11-05"];
/// The longest request, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// How many connections a child may have at once.
const MAX_CONNECTIONS: usize = 16;
/// How long a request may take to come of a client that came before the endpoint has stopped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait when no more descriptors are to be had.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a tool answers: text, or why it has none.
pub(crate) type Called = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// How a tool is called: for the session of this key, with these arguments.
pub(crate) type Call = dyn Fn(&str, Value) -> Called + Send + Sync;

/// Something an agent may ask the worker for.
pub(crate) struct Tool {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it is good for, as the model is told.
    pub(crate) description: &'static str,
    /// The JSON schema of its arguments.
    pub(crate) input_schema: Value,
    /// What it does.
    pub(crate) call: Box<Call>,
}

/// All that agents may ask the worker for.
#[derive(Clone, Default)]
pub(crate) struct Toolbox(Arc<[Tool]>);

impl Toolbox {
    /// These.
    #[cfg(test)]
    pub(super) fn new(tools: Vec<Tool>) -> Self {
        Self(tools.into())
    }

    /// What they are called.
    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|tool| tool.name).collect()
    }
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A session's endpoint, answering for as long as it is held.
#[derive(Debug)]
pub(super) struct Endpoint {
    address: SocketAddr,
    token: String,
    /// Ends the answering; so does its drop.
    stop: watch::Sender<()>,
    serving: JoinHandle<io::Result<OwnedFd>>,
}

impl Endpoint {
    /// A new one, on a port of its own and with a token of its own.
    ///
    /// # Errors
    /// Those of listening.
    pub(super) fn open(toolbox: Toolbox) -> io::Result<Self> {
        let mut token = [0; 32];
        getrandom::fill(&mut token).map_err(io::Error::other)?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Self::resume(listener.into(), data_encoding::HEXLOWER.encode(&token), toolbox)
    }

    /// One that another owner of the session has answered on.
    ///
    /// # Errors
    /// Those of the runtime's taking the listener.
    pub(super) fn resume(listener: OwnedFd, token: String, toolbox: Toolbox) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener.into())?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(());
        let desk = Arc::new(Desk { expected: format!("Bearer {token}"), toolbox });
        let serving = tokio::spawn(serve(listener, desk, stopped));
        Ok(Self { address, token, stop, serving })
    }

    /// Where it answers.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it wants to see.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Stops accepting; answers under way are finished. Its listener and token, unless it has failed.
    pub(super) async fn into_parts(self) -> Option<(OwnedFd, String)> {
        drop(self.stop);
        let listener = self.serving.await.ok()?.ok()?;
        Some((listener, self.token))
    }
}

async fn serve(
    listener: TcpListener,
    desk: Arc<Desk>,
    mut stopped: watch::Receiver<()>,
) -> io::Result<OwnedFd> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            io::Result::Ok((place, stream))
        };
        tokio::select! {
            biased;
            // Nothing is sent: its sender's end is what is waited for.
            _ = stopped.changed() => return listener.into_std().map(OwnedFd::from),
            accepted = accept => match accepted {
                Ok((place, stream)) => {
                    let (desk, stopped) = (Arc::clone(&desk), stopped.clone());
                    tokio::spawn(async move {
                        converse(stream, desk, stopped).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "could not accept a tool's client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Answers one connection, to the end of its request once the endpoint stops.
async fn converse(stream: TcpStream, desk: Arc<Desk>, mut stopped: watch::Receiver<()>) {
    let (begins, mut begun) = watch::channel(false);
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        begins.send_replace(true);
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let mut connection =
        pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            // Whoever has just come is answered: nobody else will hear the request that is on its way.
            let comes = tokio::time::timeout(REQUEST_TIMEOUT, begun.wait_for(|begun| *begun));
            tokio::select! {
                ended = connection.as_mut() => return note(ended),
                _ = comes => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    note(ended);
}

fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        debug!(error = &error as &dyn std::error::Error, "a tool's client left in the middle");
    }
}

struct Desk {
    expected: String,
    toolbox: Toolbox,
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        if request.uri().path() != "/mcp" {
            return refusal(StatusCode::NOT_FOUND, "not_found");
        }
        if request.method() != Method::POST {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
            response.headers_mut().insert("allow", hyper::header::HeaderValue::from_static("POST"));
            return response;
        }
        // The child is no browser, and a page that a browser shows has no business here.
        if request.headers().contains_key(ORIGIN) {
            return refusal(StatusCode::FORBIDDEN, "forbidden");
        }
        let shown = header(AUTHORIZATION).unwrap_or_default();
        if !bool::from(shown.as_bytes().ct_eq(self.expected.as_bytes())) {
            return refusal(StatusCode::UNAUTHORIZED, "unauthorized");
        }
        if !header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json")) {
            return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
        }
        let session = request.headers().get("x-session-key").and_then(|key| key.to_str().ok());
        let session = session.unwrap_or_default().to_owned();
        let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        };
        match serde_json::from_slice(&body.to_bytes()) {
            Ok(message) => match rpc(&self.toolbox, &session, message).await {
                Some(answer) => respond(StatusCode::OK, &answer),
                None => {
                    let mut response = Response::new(Full::default());
                    *response.status_mut() = StatusCode::ACCEPTED;
                    response
                }
            },
            Err(_) => {
                respond(StatusCode::BAD_REQUEST, &failure(&Value::Null, -32700, "Parse error"))
            }
        }
    }
}

fn refusal(status: StatusCode, error: &str) -> Response<Full<Bytes>> {
    respond(status, &json!({ "error": error }))
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn failure(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

/// What a message is answered with; a notification with nothing.
async fn rpc(toolbox: &Toolbox, session: &str, message: Value) -> Option<Value> {
    let (Some(method), params) = (message["method"].as_str(), &message["params"]) else {
        return Some(failure(&message["id"], -32600, "Invalid Request"));
    };
    let id = message.get("id")?;
    let result = match method {
        "initialize" => {
            let asked = params["protocolVersion"].as_str();
            let version = VERSIONS.into_iter().find(|version| asked == Some(version));
            json!({
                "protocolVersion": version.unwrap_or(VERSIONS[0]),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "openclaw", "version": env!("CARGO_PKG_VERSION")},
            })
        }
        "ping" => json!({}),
        "tools/list" => {
            let shown = toolbox.0.iter().map(|tool| {
                json!({
                    "name": tool.name,
                    "description": tool.description,
                    "inputSchema": tool.input_schema,
                })
            });
            json!({ "tools": shown.collect::<Vec<_>>() })
        }
        "tools/call" => {
            let name = params["name"].as_str().unwrap_or_default();
            let arguments = params.get("arguments").cloned().unwrap_or_else(|| json!({}));
            let called = match toolbox.0.iter().find(|tool| tool.name == name) {
                Some(tool) => (tool.call)(session, arguments).await,
                None => Err(format!("Tool not available: {name}")),
            };
            let is_error = called.is_err();
            let text = called.unwrap_or_else(|reason| reason);
            json!({"content": [{"type": "text", "text": text}], "isError": is_error})
        }
        _ => return Some(failure(id, -32601, &format!("Method not found: {method}"))),
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

#[cfg(test)]
mod tests;
