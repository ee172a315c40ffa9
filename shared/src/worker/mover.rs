//! A worker whose connections move: what it has to provide, and how the front's orders reach the
//! migration.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::Worker;
use super::kept::Kept;
use crate::acceptor::Stream;
use crate::link::Link;
use crate::message::{GenerationId, Newcomers};
use crate::migrate::{
    Extent, Frozen, Heir, Home, Kind, Mailbox, Moved, Neighbour, Post, Returned, Roster, Snapshot,
    Source, Target,
};
use crate::places::Places;
use crate::stance::Stance;

/// What serves a connection that was not accepted here, or not for the first time.
pub trait Mover: Send + Sync + 'static {
    /// Whether a snapshot can be served by this worker.
    ///
    /// # Errors
    /// Why not, for the log; the connection stays where it is.
    fn judge(&self, snapshot: &Snapshot) -> Result<(), String>;

    /// Serves a connection from where it was frozen, with its letters if it gets any. Must not block.
    fn resume(
        &self,
        stream: Stream,
        snapshot: Snapshot,
        mailbox: Option<Mailbox>,
        arrival: Arrival,
    );

    /// As [`judge`](Self::judge), of a session. Who has none takes none.
    ///
    /// # Errors
    /// Why not, for the log.
    fn judge_session(&self, _snapshot: &Snapshot) -> Result<(), String> {
        Err("there are no sessions here".to_owned())
    }

    /// Goes on with a session from where it was frozen. Must not block.
    fn resume_session(&self, _session: Frozen, _arrival: Arrival) {}

    /// There is a link to a neighbouring generation from now on. Of an incumbent this is said before this
    /// worker is admitted.
    fn linked(&self, _neighbour: Neighbour) {}

    /// A neighbouring generation has said something by [`Post::tell`]. Must not block.
    fn heard(&self, _neighbour: Neighbour, _text: &str) {}

    /// The link to a neighbouring generation has ended.
    fn unlinked(&self, _neighbour: Neighbour) {}

    /// The incumbent is gone and reaped, and what it had given for good is served here: nothing comes from it any more.
    fn settled(&self) {}
}

/// Where a resumed connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// From another generation.
    Moved,
    /// From here: its move was called off. It may be asked again, and takes a seat.
    Returned,
    /// From here: the successor would not take it. It takes no seat.
    Rejected,
}

/// The moving of a worker's connections, as the worker sees it.
#[derive(Debug)]
pub struct Migration {
    /// Set once nothing is to move any more.
    halted: watch::Sender<bool>,
    /// Where each connection that may move takes its seat.
    pub roster: Roster,
    /// What has come of it so far.
    pub moved: watch::Receiver<Moved>,
}

impl Migration {
    /// Nothing moves from now on: what is frozen and not the successor's yet comes back.
    pub fn halt(&self) {
        self.halted.send_replace(true);
    }
}

/// An end of a migration link, and what is at the other.
pub(super) enum Introduction {
    To(Link),
    From(GenerationId, Link),
}

impl Worker {
    /// Has this worker's connections move to its successors, and those of its incumbent come here.
    /// Each connection that may move takes a seat in the roster, and `post` has its letters. The first call
    /// counts; without it connections stay where they are and a takeover drains them.
    pub fn movable(&self, mover: Arc<impl Mover>, post: &Post) -> Migration {
        let halted = watch::Sender::new(false);
        let extents = extents(self.shared.stance.subscribe(), halted.subscribe());
        let (source, roster, links, moved) = Source::new(extents, post.clone());
        let kept = self.shared.kept.clone();
        let moving = Moving { mover, places: self.places.clone(), kept };
        tokio::spawn(source.run(moving.clone()));
        let (reaped, post) = (self.shared.reaped.clone(), post.clone());
        let introduce = move |introduction| match introduction {
            Introduction::To(link) => links.introduce(link),
            Introduction::From(incumbent, link) => {
                // Now, not in the task: the next order may admit this worker.
                let target = Target::new(link, post.clone());
                moving.mover.linked(Neighbour::Incumbent);
                tokio::spawn(take_over(moving.clone(), incumbent, target, reaped.subscribe()));
            }
        };
        // A second mover is a mistake of the caller's that does no harm.
        let _ = self.shared.mover.set(Box::new(introduce));
        let _ = self.shared.moved.set(moved.clone());
        Migration { halted, roster, moved }
    }
}

pub(super) fn migration_link(descriptors: Vec<OwnedFd>) -> Option<Link> {
    let end = descriptors.into_iter().next()?;
    Link::new(end).inspect_err(|error| warn!(%error, "could not use a migration link")).ok()
}

/// The mover, as both ends of a migration see it.
struct Moving<M> {
    mover: Arc<M>,
    places: Places,
    kept: Kept,
}

impl<M> Clone for Moving<M> {
    fn clone(&self) -> Self {
        Self {
            mover: Arc::clone(&self.mover),
            places: self.places.clone(),
            kept: self.kept.clone(),
        }
    }
}

impl<M: Mover> Moving<M> {
    /// Takes a connection into the event loop, and has it served. It counts under `max_connections`, and
    /// is taken even when that is reached.
    fn serve(&self, frozen: Frozen, arrival: Arrival) {
        if frozen.snapshot.kind == Kind::Session {
            return self.mover.resume_session(frozen, arrival);
        }
        let Frozen { descriptor, snapshot, mailbox, .. } = frozen;
        match Stream::adopt(descriptor) {
            Ok(stream) => {
                self.mover.resume(stream.seated(&self.places), snapshot, mailbox, arrival);
            }
            Err(error) => {
                warn!(%error, "a connection that came here could not be polled, and is closed");
            }
        }
    }
}

impl<M: Mover> Home for Moving<M> {
    fn resume(&mut self, frozen: Frozen, returned: Returned) {
        let arrival = match returned {
            Returned::Aborted => Arrival::Returned,
            Returned::Rejected => Arrival::Rejected,
        };
        self.serve(frozen, arrival);
    }

    fn linked(&mut self) {
        self.mover.linked(Neighbour::Successor);
    }

    fn heard(&mut self, text: &str) {
        self.mover.heard(Neighbour::Successor, text);
    }

    fn unlinked(&mut self) {
        self.mover.unlinked(Neighbour::Successor);
    }
}

impl<M: Mover> Heir for Moving<M> {
    fn judge(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        match snapshot.kind {
            Kind::Session => self.mover.judge_session(snapshot),
            Kind::Http1 | Kind::WebSocket => self.mover.judge(snapshot),
        }
    }

    fn resume(&mut self, frozen: Frozen) {
        self.serve(frozen, Arrival::Moved);
    }

    fn heard(&mut self, text: &str) {
        self.mover.heard(Neighbour::Incumbent, text);
    }

    fn unlinked(&mut self) {
        self.kept.unlinked();
        self.mover.unlinked(Neighbour::Incumbent);
    }
}

/// How much is to move, as the stance says and until moving is halted.
fn extents(
    mut stance: watch::Receiver<Stance>,
    mut halted: watch::Receiver<bool>,
) -> watch::Receiver<Extent> {
    let (extent, extents) = watch::channel(Extent::Nothing);
    tokio::spawn(async move {
        loop {
            let now = match *stance.borrow_and_update() {
                _ if *halted.borrow_and_update() => Extent::Nothing,
                Stance::Stopped => Extent::Canary,
                Stance::Draining { newcomers: Newcomers::Leave, .. } => Extent::Everything,
                Stance::Draining { newcomers: Newcomers::Serve, .. }
                | Stance::Waiting
                | Stance::Admitted
                | Stance::Dismissed => Extent::Nothing,
            };
            extent.send_if_modified(|extent| std::mem::replace(extent, now) != now);
            let changed = tokio::select! {
                changed = stance.changed() => changed,
                changed = halted.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    extents
}

/// Serves what comes from the incumbent.
async fn take_over(
    moving: Moving<impl Mover>,
    incumbent: GenerationId,
    target: Target,
    reaped: watch::Receiver<BTreeSet<GenerationId>>,
) {
    let mover = Arc::clone(&moving.mover);
    let is_reaped = || {
        let mut reaped = reaped.clone();
        async move {
            // Without a front nobody tells; what was prepared stays frozen then, and ends with us.
            if reaped.wait_for(|reaped| reaped.contains(&incumbent)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    match target.run(moving, is_reaped()).await {
        Ok(connections) => info!(%incumbent, connections, "connections taken over"),
        Err(error) => warn!(
            %incumbent,
            error = &error as &dyn std::error::Error,
            "the migration link broke"
        ),
    }
    is_reaped().await;
    mover.settled();
}
