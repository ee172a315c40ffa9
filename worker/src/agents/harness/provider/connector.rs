//! Connections to providers: TCP, and TLS where the address says https.
//!
//! **Invariants**
//! - Certificates are checked by the authorities that this machine trusts (`SSL_CERT_FILE`, `SSL_CERT_DIR`), read when
//!   the first https address is connected to.
//! - A connection carries one request and belongs to who opened it: dropped, it is closed. A turn takes seconds, so
//!   what a kept connection would save is nothing beside the turn that it costs when it dies while it is used again.

use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::service::Service as _;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tracing::warn;

/// How long the name, the connection and TLS may take together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Opens connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connector {
    tls: Arc<OnceLock<HttpsConnector<HttpConnector>>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailed {
    /// What was looked at and not found is long, and in the log.
    #[error("this machine trusts no certificate authorities (SSL_CERT_FILE, SSL_CERT_DIR)")]
    NoAuthorities,
    #[error("could not connect")]
    Refused { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("could not connect within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the connection broke off")]
    Broken { source: hyper::Error },
}

/// A connection with a request on it: it makes progress only while it is polled.
pub(super) struct Exchange {
    /// `None` once it has come to its end.
    connection: Option<Connection>,
}

type Connection = std::pin::Pin<Box<http1::Connection<Stream, Full<Bytes>>>>;

impl Connector {
    /// Sends a request, and waits for the head of its response.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Exchange, Response<Incoming>), ConnectFailed> {
        let connecting = self.connect(request.uri().clone());
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| ConnectFailed::TimedOut)??;
        let (mut sender, connection) =
            http1::handshake(stream).await.map_err(|source| ConnectFailed::Broken { source })?;
        let mut exchange = Exchange { connection: Some(Box::pin(connection)) };
        // A server is told the path; where it is stands in `host`.
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = path.into();
        }
        let mut response = std::pin::pin!(sender.send_request(request));
        let response = std::future::poll_fn(|context| {
            exchange.advance(context);
            match response.as_mut().poll(context) {
                // What was just asked for is sent now rather than when something else happens.
                Poll::Pending => {
                    exchange.advance(context);
                    response.as_mut().poll(context)
                }
                ready @ Poll::Ready(_) => ready,
            }
        });
        let response = response.await.map_err(|source| ConnectFailed::Broken { source })?;
        Ok((exchange, response))
    }

    async fn connect(&self, uri: Uri) -> Result<Stream, ConnectFailed> {
        if uri.scheme_str() == Some("https") {
            let connector = TowerToHyperService::new(self.tls()?.clone());
            return connector.call(uri).await.map_err(|source| ConnectFailed::Refused { source });
        }
        let connector = TowerToHyperService::new(plain());
        let connected = connector.call(uri).await;
        connected
            .map(MaybeHttpsStream::Http)
            .map_err(|source| ConnectFailed::Refused { source: source.into() })
    }

    fn tls(&self) -> Result<&HttpsConnector<HttpConnector>, ConnectFailed> {
        if let Some(connector) = self.tls.get() {
            return Ok(connector);
        }
        // Some ten ms of reading, once; two who come at the same time both read.
        let builder = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| {
            let error = &error as &dyn std::error::Error;
            warn!(error, "this machine trusts no certificate authorities");
            ConnectFailed::NoAuthorities
        })?;
        let mut plain = plain();
        plain.enforce_http(false);
        let connector = builder.https_only().enable_http1().wrap_connector(plain);
        Ok(self.tls.get_or_init(|| connector))
    }
}

fn plain() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector
}

impl Exchange {
    /// Reads and writes what can be; an error is told to who waits for the response or its body.
    pub(super) fn advance(&mut self, context: &mut std::task::Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(context).is_ready()
        {
            self.connection = None;
        }
    }
}
