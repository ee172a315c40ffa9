//! A hyper server whose connections move to its successor:
//!
//! ```text
//! cargo build -p handoff --examples --features http1
//! holdfast run -- target/debug/examples/movable_hyper
//! ```

#[path = "movable/server.rs"]
mod server;

use std::convert::Infallible;
use std::error::Error;

use handoff::Worker;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} by pid {}\n", request.uri().path(), std::process::id());
    Ok(Response::new(Full::from(line)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (worker, acceptor) = Worker::start(&["127.0.0.1:8080".parse()?]).await?;
    server::run(worker, acceptor, "movable hyper example", service_fn(answer)).await;
    Ok(())
}
