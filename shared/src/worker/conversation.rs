//! The conversation with the front, for as long as the worker lives.
//!
//! **Invariants**
//! - Orders are obeyed in the order they come; an acknowledgement follows the deed.
//! - The end of the link changes the stance once, and nothing else.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::mover::{Introduction, migration_link};
use crate::fault::{self, Point};
use crate::link::{Link, Received};
use crate::message::{Connections, Drain, GenerationId, OrphanEnded, Report, ToFront, ToWorker};
use crate::migrate::Moved;
use crate::stance::Stance;

/// How long an incumbent that is admitted again waits for the end of its link to the successor that failed.
const LINK_END_TIMEOUT: Duration = Duration::from_millis(500);

/// What the conversation with the front and the server's own tasks both see.
pub(super) struct Shared {
    pub(super) stance: watch::Sender<Stance>,
    pub(super) lease: watch::Sender<Option<u64>>,
    pub(super) registrations: Mutex<Vec<watch::Receiver<bool>>>,
    /// Migration links go here; without anybody there they are closed, and connections stay.
    pub(super) mover: OnceLock<Box<dyn Fn(Introduction) + Send + Sync>>,
    /// The generations that were reaped, of those whose connections were coming here.
    pub(super) reaped: watch::Sender<BTreeSet<GenerationId>>,
    /// What has come of moving connections to a successor.
    pub(super) moved: OnceLock<watch::Receiver<Moved>>,
    pub(super) reporter: OnceLock<Box<dyn Fn() -> Report + Send + Sync>>,
    /// Who is told how adopted processes have ended.
    pub(super) orphans: OnceLock<Box<dyn Fn(OrphanEnded) + Send + Sync>>,
}

impl Shared {
    /// Passes a migration link on. Nobody there to take it closes it, which the other side
    /// understands.
    fn introduce(&self, introduction: Introduction) {
        if let Some(mover) = self.mover.get() {
            mover(introduction);
        }
    }

    pub(super) fn registrations(&self) -> std::sync::MutexGuard<'_, Vec<watch::Receiver<bool>>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections that were given to a successor, once that is gone: for one that is admitted again.
    async fn lost(&self) -> Connections {
        let Some(mut moved) = self.moved.get().cloned() else { return Connections::default() };
        // Its end may still be on its way here.
        let gone = tokio::time::timeout(LINK_END_TIMEOUT, moved.wait_for(|moved| !moved.linked));
        match gone.await {
            Ok(Ok(moved)) => moved.given(),
            Ok(Err(_)) | Err(_) => Connections::default(),
        }
    }

    pub(super) fn drain(&self, drain: Drain) {
        // Whoever drains writes no more schedules.
        self.lease.send_replace(None);
        self.stance.send_modify(|stance| *stance = stance.draining(drain, Instant::now()));
    }

    /// Ends when every acceptor is registered (`true`), or none is (`false`).
    async fn settled(&self, registered: bool) {
        let registrations = self.registrations().clone();
        for mut registration in registrations {
            // An acceptor that was dropped is not registered, and never will be.
            if registration.wait_for(|now| *now == registered).await.is_err() && registered {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The conversation with the front, until this worker leaves.
pub(super) async fn speak(
    link: Link,
    mut words: mpsc::Receiver<ToFront>,
    outbox: mpsc::WeakSender<ToFront>,
    shared: Arc<Shared>,
) {
    let mut acknowledging: Option<JoinHandle<()>> = None;
    let mut front = true;
    loop {
        tokio::select! {
            received = link.receive::<ToWorker>(), if front => match received {
                Ok(Some(received)) => {
                    let Received { message, descriptors } = received;
                    if let Some(registered) = obey(message, descriptors, &shared, &outbox) {
                        // What was not acknowledged yet is overtaken by the new order.
                        if let Some(earlier) = acknowledging.take() {
                            earlier.abort();
                        }
                        acknowledging = Some(tokio::spawn(acknowledge(
                            registered,
                            Arc::clone(&shared),
                            outbox.clone(),
                        )));
                    }
                }
                Ok(None) => {
                    front = false;
                    warn!("the front is gone");
                    shared.stance.send_modify(|stance| *stance = stance.front_gone());
                }
                Err(error) => {
                    front = false;
                    error!(error = &error as &dyn std::error::Error, "the link to the front broke");
                    shared.stance.send_modify(|stance| *stance = stance.front_gone());
                }
            },
            word = words.recv() => match word {
                Some(word) if front => {
                    if let Err(error) = link.send(&word, &[]).await {
                        // What ended the link is met again, and handled, by the next receive.
                        warn!(error = &error as &dyn std::error::Error, "could not tell the front");
                    }
                    fault::reach(Point::after_word(&word));
                }
                Some(_) => {}
                None => return,
            },
        }
    }
}

/// Does what the front asks. The answer says which registration has to be acknowledged.
fn obey(
    order: ToWorker,
    descriptors: Vec<OwnedFd>,
    shared: &Shared,
    outbox: &mpsc::WeakSender<ToFront>,
) -> Option<bool> {
    match order {
        ToWorker::Admit => {
            shared.stance.send_modify(|stance| *stance = stance.admitted());
            fault::reach(Point::Admitted);
            return Some(true);
        }
        ToWorker::StopAccepting => {
            fault::reach(Point::StopReceived);
            shared.stance.send_modify(|stance| *stance = stance.stopped());
            return Some(false);
        }
        ToWorker::Lease { epoch } => {
            shared.lease.send_replace(Some(epoch));
        }
        ToWorker::Drain(drain) => {
            fault::reach(Point::DrainReceived);
            shared.drain(drain);
        }
        ToWorker::Report => {
            let report = shared.reporter.get().map_or_else(Report::default, |report| report());
            // A full outbox means the front does not read; it can do without this answer.
            if let Some(outbox) = outbox.upgrade() {
                let _ = outbox.try_send(ToFront::Report(report));
            }
        }
        ToWorker::MigrateTo { .. } => {
            if let Some(link) = migration_link(descriptors) {
                shared.introduce(Introduction::To(link));
            }
        }
        ToWorker::MigrateFrom { incumbent } => {
            if let Some(link) = migration_link(descriptors) {
                shared.introduce(Introduction::From(incumbent, link));
            }
        }
        ToWorker::Reaped { generation } => {
            shared.reaped.send_if_modified(|reaped| reaped.insert(generation));
        }
        ToWorker::OrphanEnded(ended) => {
            if let Some(heard) = shared.orphans.get() {
                heard(ended);
            }
        }
        ToWorker::Hello(_) => warn!("the front introduced itself twice"),
    }
    None
}

async fn acknowledge(registered: bool, shared: Arc<Shared>, outbox: mpsc::WeakSender<ToFront>) {
    shared.settled(registered).await;
    let lost = if registered { shared.lost().await } else { Connections::default() };
    if let Some(outbox) = outbox.upgrade() {
        if lost.total() > 0 {
            // It fails only when this worker is leaving.
            let _ = outbox.send(ToFront::Lost(lost)).await;
        }
        let word = if registered { ToFront::Accepting } else { ToFront::Stopped };
        // It fails only when this worker is leaving.
        let _ = outbox.send(word).await;
    }
}

/// What stands in for a front when there is none: readiness admits.
pub(super) async fn speak_to_nobody(shared: Arc<Shared>, mut words: mpsc::Receiver<ToFront>) {
    while let Some(word) = words.recv().await {
        if let ToFront::Ready(_) = word {
            shared.lease.send_replace(Some(0));
            shared.stance.send_modify(|stance| *stance = stance.admitted());
        }
    }
}
