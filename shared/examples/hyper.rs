//! A plain hyper server as a worker:
//!
//! ```text
//! cargo build -p handoff --examples
//! holdfast run -- target/debug/examples/hyper
//! ```

use std::convert::Infallible;
use std::error::Error;

use handoff::{Drained, Ready, Worker};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} by pid {}\n", request.uri().path(), std::process::id());
    Ok(Response::new(Full::from(line)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (worker, mut acceptor) = Worker::start(&["127.0.0.1:8080".parse()?]).await?;
    worker.drain_on_signals();
    worker.ready(Ready { program: "hyper example".into(), ..Ready::default() }).await;

    let graceful = GracefulShutdown::new();
    while let Some((stream, _peer)) = acceptor.accept().await {
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        let connection = graceful.watch(connection);
        // A client that breaks off is no concern of the others.
        tokio::spawn(async { connection.await.unwrap_or_default() });
    }
    let deadline = worker.drain_deadline();
    // What is not finished by the deadline is cut.
    let _ = tokio::time::timeout_at(deadline, graceful.shutdown()).await;
    worker.leave(Drained::default()).await;
    Ok(())
}
