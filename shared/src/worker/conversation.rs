//! The conversation with the front, for as long as the worker lives: with the one that started it, and with each that
//! comes after one that died.
//!
//! **Invariants**
//! - Orders are obeyed in the order they come; an acknowledgement follows the deed.
//! - The end of a link changes the stance at most once, and nothing else: who serves serves on, who drains drains on.
//! - Without a front nothing is waited for but the next one: no timer runs, and what is said is let go of.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::kept::{Kept, Manner};
use super::mover::{Introduction, migration_link};
use super::start::StartFailed;
use crate::attach::{Account, Attach, Dismissal};
use crate::fault::{self, Point};
use crate::link::{Link, Received};
use crate::message::{
    Connections, Drain, GenerationId, OLDEST_PROTOCOL, OrphanEnded, PROTOCOL, Report, ToFront,
    ToWorker,
};
use crate::migrate::Moved;
use crate::rescue::RescueSocket;
use crate::stance::Stance;

/// How long an incumbent that is admitted again waits for the end of its link to the successor that failed.
const LINK_END_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a front may take to read what a worker says over its rescue socket.
const RESCUED_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// For one that has attached itself.
    pub(super) dismissal: Dismissal,
    pub(super) kept: Kept,
}

impl Shared {
    /// Passes a migration link on. Nobody there to take it closes it, which the other side
    /// understands.
    fn introduce(&self, introduction: Introduction) {
        match self.mover.get() {
            Some(mover) => mover(introduction),
            None => self.kept.unlinked(),
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
        self.change(|stance| stance.draining(drain, Instant::now()));
    }

    /// The one place where the stance changes.
    fn change(&self, change: impl FnOnce(Stance) -> Stance) {
        self.stance.send_modify(|stance| *stance = change(*stance));
        if self.stance.borrow().is_final() {
            self.kept.let_go_of_sockets();
        }
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

/// Which worker speaks, since when, and where it is found when its front has died.
pub(super) struct Speaker {
    pub(super) generation: GenerationId,
    pub(super) born_at: Instant,
    /// `None` when there is no place for it.
    pub(super) rescue: Option<RescueSocket>,
    /// Set for one that has attached itself.
    pub(super) attach: Option<Attach>,
    pub(super) outbox: mpsc::WeakSender<ToFront>,
    pub(super) shared: Arc<Shared>,
}

/// The conversation with one front after the other, until this worker leaves.
pub(super) async fn speak(
    mut link: Link,
    mut words: mpsc::Receiver<ToFront>,
    mut speaker: Speaker,
) {
    loop {
        match speaker.converse(&link, &mut words).await {
            End::Leaving => return,
            End::FrontGone => {}
        }
        drop(link);
        let shared = &speaker.shared;
        shared.change(Stance::front_gone);
        if *shared.stance.borrow() == Stance::Dismissed {
            if speaker.attach.is_some() {
                shared.dismissal.tell("the front is gone, and had not admitted this worker");
            }
            // Who leaves at once is not to be found.
            speaker.rescue = None;
        }
        match speaker.await_front(&mut words).await {
            Some(next) => link = next,
            None => return,
        }
    }
}

/// Why a conversation is over.
enum End {
    /// This worker has said everything.
    Leaving,
    FrontGone,
}

impl Speaker {
    async fn converse(&self, link: &Link, words: &mut mpsc::Receiver<ToFront>) -> End {
        let mut acknowledging: Option<JoinHandle<()>> = None;
        loop {
            tokio::select! {
                received = link.receive::<ToWorker>() => match received {
                    Ok(Some(received)) => {
                        let Received { message, descriptors } = received;
                        if let ToWorker::Rescue(_) = &message {
                            // A front that was started anew, of one that has called it.
                            if !self.introduce_to(link).await {
                                return End::FrontGone;
                            }
                            continue;
                        }
                        if let Some(registered) = obey(message, descriptors, &self.shared, &self.outbox) {
                            // What was not acknowledged yet is overtaken by the new order.
                            if let Some(earlier) = acknowledging.take() {
                                earlier.abort();
                            }
                            acknowledging = Some(tokio::spawn(acknowledge(
                                registered,
                                Arc::clone(&self.shared),
                                self.outbox.clone(),
                            )));
                        }
                    }
                    Ok(None) => {
                        warn!("the front is gone");
                        return End::FrontGone;
                    }
                    Err(error) => {
                        error!(error = &error as &dyn std::error::Error, "the link to the front broke");
                        return End::FrontGone;
                    }
                },
                word = words.recv() => match word {
                    Some(word) => {
                        self.shared.kept.said(&word);
                        if let Err(error) = link.send(&word, &[]).await {
                            // What ended the link is met again, and handled, by the next receive.
                            warn!(error = &error as &dyn std::error::Error, "could not tell the front");
                        }
                        fault::reach(Point::after_word(&word));
                    }
                    None => return End::Leaving,
                },
            }
        }
    }

    /// The link to the next front; `None` once this worker has left.
    async fn await_front(&self, words: &mut mpsc::Receiver<ToFront>) -> Option<Link> {
        // Kept whatever is said meanwhile: half an introduction is not begun anew.
        let mut next = pin!(self.next_front());
        loop {
            tokio::select! {
                link = &mut next => return Some(link),
                word = words.recv() => match word {
                    Some(word) => self.shared.kept.said(&word),
                    None => return None,
                },
            }
        }
    }

    async fn next_front(&self) -> Link {
        if let Some(attach) = &self.attach {
            let link = attach.call_again(|| self.account()).await;
            info!("a front is there");
            for word in self.shared.kept.to_be_repeated() {
                // What is wrong with the link is met by the next receive.
                let _ = link.send(&word, &[]).await;
            }
            return link;
        }
        let Some(rescue) = &self.rescue else { return std::future::pending().await };
        loop {
            let (link, asked) = rescue.caller().await;
            fault::reach(Point::RescueReceived);
            if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&asked.protocol) {
                let reason = StartFailed::Protocol { theirs: asked.protocol }.to_string();
                warn!(reason, "refused a front");
                // The front also learns it from the end of the link.
                let _ = link.try_send(&ToFront::Refuse { reason }, &[]);
                continue;
            }
            match tokio::time::timeout(RESCUED_TIMEOUT, self.introduce_to(&link)).await {
                Ok(true) => {
                    info!("another front is there");
                    return link;
                }
                Ok(false) | Err(_) => warn!("a front was gone before it knew this worker"),
            }
        }
    }

    /// Tells a front what this worker is; whether it could be told.
    async fn introduce_to(&self, link: &Link) -> bool {
        let shared = &self.shared;
        let Some((rescued, sockets)) = self.account() else { return false };
        let descriptors: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        let told = link.send(&ToFront::Rescued(rescued), &descriptors).await.is_ok();
        fault::reach(Point::RescuedSaid);
        for word in shared.kept.to_be_repeated() {
            // What is wrong with the link is met by the next receive.
            let _ = link.send(&word, &[]).await;
        }
        told
    }

    /// What this worker is, and its sockets; `None` for one that leaves, or was told to for good.
    fn account(&self) -> Option<Account> {
        let shared = &self.shared;
        if shared.dismissal.reason().is_some() {
            return None;
        }
        let (stance, lease) = (*shared.stance.borrow(), *shared.lease.borrow());
        let manner = Manner {
            hears_of_orphans: shared.orphans.get().is_some(),
            stops_only_by_draining: shared.registrations().is_empty(),
        };
        shared.kept.account(self.generation, self.born_at, stance, lease, manner)
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
            shared.change(Stance::admitted);
            fault::reach(Point::Admitted);
            return Some(true);
        }
        ToWorker::StopAccepting => {
            fault::reach(Point::StopReceived);
            shared.change(Stance::stopped);
            return Some(false);
        }
        ToWorker::Lease { epoch } => {
            shared.kept.granted(epoch);
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
                shared.kept.linked_to(incumbent);
                shared.introduce(Introduction::From(incumbent, link));
            }
        }
        ToWorker::Reaped { generation } => {
            shared.kept.reaped(generation);
            shared.reaped.send_if_modified(|reaped| reaped.insert(generation));
        }
        ToWorker::OrphanEnded(ended) => {
            if let Some(heard) = shared.orphans.get() {
                heard(ended);
            }
        }
        ToWorker::Waiting { .. } => {}
        ToWorker::Dismiss { reason } => {
            error!(reason, "the front turns this worker away");
            shared.dismissal.tell(reason);
            // Who has served nobody yet has nothing to finish.
            shared.change(Stance::front_gone);
            shared.drain(Drain::within(Duration::ZERO));
        }
        ToWorker::Hello(_) | ToWorker::Rescue(_) => warn!("the front introduced itself twice"),
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
            shared.change(Stance::admitted);
        }
    }
}
