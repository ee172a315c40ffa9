//! Looking at the front again and again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use handoff::chain;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};

use crate::control::client::{self, AskFailed};
use crate::control::document::Status;

/// How long the front may take to answer: far longer than it takes, and than it waits for its workers.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen of the front.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    Status(Box<Status>),
    /// It does not answer, and why.
    Away(String),
}

/// Tells what is to be seen, with how long it is since the last time, for as long as somebody listens.
pub(super) async fn watch(
    path: PathBuf,
    interval: Duration,
    told: mpsc::Sender<(Sight, Duration)>,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_at = Instant::now();
    loop {
        ticks.tick().await;
        let sight = match timeout(PATIENCE, client::status(&path)).await {
            Ok(Ok(status)) => Sight::Status(Box::new(status)),
            Ok(Err(AskFailed::NoFront { .. })) => Sight::Away("no front answers".to_owned()),
            Ok(Err(failed)) => Sight::Away(chain(&failed)),
            Err(_) => Sight::Away(format!("the front does not answer within {PATIENCE:?}")),
        };
        let elapsed = last_at.elapsed();
        last_at = Instant::now();
        if told.send((sight, elapsed)).await.is_err() {
            return;
        }
    }
}
