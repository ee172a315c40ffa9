//! The same worker without a fault of its own: what `handoff` makes of any server.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use handoff::{Drained, Ready, Worker};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bodily;
use crate::serve::{self, Facts};

/// Serves as `handoff` has it, ready once `file` exists.
pub(crate) async fn run(file: &Path) -> ExitCode {
    let (worker, mut acceptor) = Worker::start(&[]).await.expect("a front started this");
    worker.drain_on_signals();
    tokio::select! {
        () = bodily::exists(file) => {}
        () = worker.leaving() => return ExitCode::FAILURE,
    }
    worker.ready(Ready { program: "library".into(), ..Ready::default() }).await;
    let facts = Arc::new(Facts {
        generation: worker.generation().expect("a front started this"),
        in_flight: AtomicU64::new(0),
        lease: watch::Sender::new(None),
        draining: watch::Sender::new(false),
        exit: watch::Sender::new(None),
        loses: None,
        asked: AtomicU64::new(0),
    });
    let mut connections = JoinSet::new();
    while let Some((stream, _)) = acceptor.accept().await {
        connections.spawn(serve::connection(stream, Arc::clone(&facts)));
    }
    facts.draining.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    // What is left at the deadline is cut with the process.
    let _ = tokio::time::timeout_at(worker.drain_deadline(), all).await;
    worker.leave(Drained::default()).await;
    ExitCode::SUCCESS
}
