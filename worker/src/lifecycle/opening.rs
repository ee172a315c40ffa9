//! How a worker opens: it waits until nothing is missing, says that it is ready, and serves until it is to leave.
//!
//! **Invariants**
//! - It says it is ready only when every named condition is met.

use std::pin::pin;
use std::sync::Arc;

use handoff::socket::SocketFile;
use handoff::{Address, Ready, Worker};
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::agents::Runs;
use crate::greeting::greeting;
use crate::identity::TokenSource;
use crate::plugins::{Catalogue, Plugins};
use crate::serve::Gateway;

/// Removes at the end the socket files that no front will remove.
pub(super) fn own_socket_files(worker: &Worker) -> Vec<SocketFile> {
    let own = |address: &Address| match address {
        // One that cannot be owned stays behind, and is replaced by the next start.
        Address::Unix(path) => SocketFile::own(path.clone()).ok(),
        Address::Tcp(_) => None,
    };
    match worker.generation() {
        None => worker.addresses().iter().filter_map(own).collect(),
        Some(_) => Vec::new(),
    }
}

/// Says that it is ready when nothing is missing any more and every plugin was started once, unless the worker is
/// to leave before that.
pub(super) async fn become_ready(
    worker: &Worker,
    gateway: &Gateway,
    (plugins, loaded): (&Plugins, &Catalogue),
    source: &TokenSource,
) {
    let ready = async {
        let missing = plugins.attempted(loaded).await;
        if !missing.is_empty() {
            worker.failing(missing).await;
        }
        gateway.readiness.opened().await;
    };
    tokio::select! {
        () = ready => say_ready(worker, source).await,
        () = worker.leaving() => {}
    }
}

async fn say_ready(worker: &Worker, source: &TokenSource) {
    let greeting = greeting(worker.addresses(), source);
    if worker.generation().is_none() {
        for address in worker.addresses() {
            info!(address = %address, "listening");
        }
        for line in &greeting {
            info!(hint = %line, "to begin with");
        }
    }
    let program = format!("holdfast-worker {}", env!("CARGO_PKG_VERSION"));
    worker.ready(Ready { program, greeting, ..Ready::default() }).await;
}

/// Looks again at what was seen before this worker was ready: one that stood by serves long after that.
pub(super) async fn catch_up(mut lease: watch::Receiver<Option<u64>>, runs: Arc<Runs>) {
    // An error means that it never came to serve.
    if lease.wait_for(Option::is_some).await.is_ok() {
        runs.overview().refresh(runs.store()).await;
    }
}

/// Ends when the worker is to leave; passes on to the front that a fresh one is wanted.
pub(super) async fn serve_until_leaving(worker: &Worker, mut wishes: mpsc::Receiver<String>) {
    let mut leaving = pin!(worker.leaving());
    loop {
        tokio::select! {
            () = &mut leaving => return,
            Some(reason) = wishes.recv() => worker.wants_takeover(reason).await,
        }
    }
}
