//! An axum server as a worker:
//!
//! ```text
//! cargo build -p handoff --examples
//! holdfast run -- target/debug/examples/axum
//! ```

use std::error::Error;

use axum::Router;
use axum::routing::get;
use handoff::{Acceptor, Drained, Peer, Ready, Stream, Worker};

/// What axum calls to accept: the shared sockets, while the front allows it.
struct Shared(Acceptor);

impl axum::serve::Listener for Shared {
    type Io = Stream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Stream, Peer) {
        match self.0.accept().await {
            Some(connection) => connection,
            // Never again: axum leaves by its shutdown signal.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer::Unix)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (worker, acceptor) = Worker::start(&["127.0.0.1:8080".parse()?]).await?;
    worker.drain_on_signals();
    let app = Router::new().route("/", get(async || format!("pid {}\n", std::process::id())));
    worker.ready(Ready { program: "axum example".into(), ..Ready::default() }).await;
    axum::serve(Shared(acceptor), app).with_graceful_shutdown(worker.leaving()).await?;
    worker.leave(Drained::default()).await;
    Ok(())
}
