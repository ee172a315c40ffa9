//! An axum server whose connections move to its successor. A `Router` is a tower service, and so hyper can serve
//! it without axum's own accept loop:
//!
//! ```text
//! cargo build -p handoff --examples --features http1
//! holdfast run -- target/debug/examples/movable_axum
//! ```

#[path = "movable/server.rs"]
mod server;

use std::error::Error;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use handoff::Worker;
use hyper_util::service::TowerToHyperService;

async fn answer(Path(path): Path<String>) -> String {
    format!("/{path} by pid {}\n", std::process::id())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Router::new().route("/{*path}", get(answer));
    let (worker, acceptor) = Worker::start(&["127.0.0.1:8080".parse()?]).await?;
    server::run(worker, acceptor, "movable axum example", TowerToHyperService::new(app)).await;
    Ok(())
}
