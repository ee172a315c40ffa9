//! How a worker leaves: it waits until what it holds has moved or ended, and cuts what is left at the deadline.
//!
//! ```text
//! drain ─► all gone ───────────────────────────────────► the schedule ends ─► leave
//!    ├─► nothing moves any more ─► clients are dismissed      ▲
//!    └─► deadline ─► a last word ─► what is left is cut ──────┘
//! ```
//!
//! **Invariants**
//! - Whoever was here when the drain began is counted when it ends, also who is on the way to the successor then.
//! - A drain that is cut short by hand comes to its deadline with nobody told: all are, before they are cut.

use std::time::{Duration, Instant};

use handoff::migrate::Neighbour;
use handoff::{Connections, Drain, Drained, Migration, Newcomers, Stance, Worker};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::doors::Doors;
use crate::agents::harness::CliAgents;
use crate::serve::Gateway;
use crate::timetable::Driven;

/// The most of a drain that is kept for connections that could not move.
const LONGEST_RESERVE: Duration = Duration::from_secs(5);
/// What is left of a move to be called off and of clients to be told, once the deadline has come. The front waits
/// for longer.
const LAST_WORD: Duration = Duration::from_millis(300);

/// Waits until all connections and sessions have moved or ended, or the deadline has come, and says how.
pub(super) async fn drain(
    worker: &Worker,
    gateway: &Gateway,
    clis: &CliAgents,
    doors: &mut Doors,
) -> Drained {
    // Whatever way the drain ends, nobody comes in after it.
    let mut accepting = std::mem::take(&mut doors.accepting);
    let (arrivals, migration) = (&doors.arrivals, doors.migration.as_ref());
    gateway.census.begin_drain();
    let mut stance = worker.stance();
    let begun_at = Instant::now();
    let mut dismissed = false;
    loop {
        let now = *stance.borrow_and_update();
        let Some(deadline) = now.deadline() else {
            debug!("the front is gone before it admitted this worker");
            return Drained::default();
        };
        tokio::select! {
            () = all_gone(&mut accepting, gateway, migration) => {
                return with_moved(gateway.census.drained(), migration);
            }
            () = gateway.census.emptied(), if newcomers(now) == Newcomers::Serve => {
                // Nothing is open: whoever is in the queue now is left to the next program.
                worker.drain(Drain::within(deadline.saturating_duration_since(Instant::now())));
            }
            () = nothing_moves_any_more(migration, begun_at, deadline), if !dismissed => {
                dismissed = true;
                dismiss(gateway, clis, migration);
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                // Who is in the queue is left to the next program.
                worker.drain(Drain::within(Duration::ZERO));
                dismiss(gateway, clis, migration);
                let gone = all_gone(&mut accepting, gateway, migration);
                // Whether they are or not, this is all the time there is.
                let _ = tokio::time::timeout(LAST_WORD, gone).await;
                let drained = with_those_on_the_way(gateway.census.drained(), migration);
                if drained.cut != Connections::default() {
                    warn!(http = drained.cut.http, websocket = drained.cut.websocket, "cut at the deadline");
                }
                accepting.shutdown().await;
                arrivals.shutdown().await;
                return with_moved(drained, migration);
            }
            // The deadline came closer, or newcomers are turned away.
            _ = stance.changed() => {}
        }
    }
}

/// Nothing moves from here on: what is on its way comes back, and clients are told to.
fn dismiss(gateway: &Gateway, clis: &CliAgents, migration: Option<&Migration>) {
    if let Some(migration) = migration {
        migration.halt();
    }
    gateway.dismiss();
    clis.dismiss();
}

/// Ends when what is still here has to be told to come back: there is no successor to move to, or the
/// last quarter of the drain has begun, which belongs to those that could not move.
async fn nothing_moves_any_more(
    migration: Option<&Migration>,
    begun_at: Instant,
    deadline: Instant,
) {
    let Some(migration) = migration else { return };
    let reserve = (deadline.saturating_duration_since(begun_at) / 4).min(LONGEST_RESERVE);
    let mut moved = migration.moved.clone();
    tokio::select! {
        // An error means that nothing will ever move again.
        _ = moved.wait_for(|moved| !moved.linked) => {}
        () = tokio::time::sleep_until((deadline - reserve).into()) => {}
    }
}

/// Ends when no connection and no session is here any more, neither served nor on its way.
async fn all_gone(accepting: &mut JoinSet<()>, gateway: &Gateway, migration: Option<&Migration>) {
    while accepting.join_next().await.is_some() {}
    loop {
        gateway.census.emptied().await;
        if let Some(migration) = migration {
            migration.roster.emptied().await;
        }
        // What calls have said after their connections had moved, those of the generation before, too: it is gone, and its
        // last words may not be read yet.
        gateway.post().unlinked(Neighbour::Incumbent).await;
        gateway.post().flushed().await;
        // One that came back meanwhile is served again.
        if gateway.census.is_empty() {
            return;
        }
    }
}

/// What the census cannot know: connections that went on elsewhere, or were lost with their
/// successor.
fn with_moved(mut drained: Drained, migration: Option<&Migration>) -> Drained {
    if let Some(migration) = migration {
        let moved = *migration.moved.borrow();
        drained.moved = moved.moved;
        drained.sessions = moved.sessions;
        drained.cut = drained.cut.saturating_add(moved.lost);
    }
    drained
}

/// A connection that neither came back nor was heard of from the successor ends with this worker, as far as can be
/// known here.
fn with_those_on_the_way(mut drained: Drained, migration: Option<&Migration>) -> Drained {
    if let Some(migration) = migration {
        drained.cut = drained.cut.saturating_add(migration.roster.on_the_way());
    }
    drained
}

const fn newcomers(stance: Stance) -> Newcomers {
    match stance {
        Stance::Draining { newcomers, .. } => newcomers,
        Stance::Waiting | Stance::Admitted | Stance::Stopped | Stance::Dismissed => {
            Newcomers::Leave
        }
    }
}

/// Waits until what the schedule has begun is recorded and told, or the deadline has come.
pub(super) async fn end_schedule(worker: &Worker, gateway: &Gateway, driven: Driven) {
    let deadline = worker.stance().borrow().deadline().unwrap_or_else(Instant::now);
    driven.end(deadline).await;
    // Those that moved hear of it too, unless the deadline has come.
    let _ = tokio::time::timeout_at(deadline.into(), gateway.post().flushed()).await;
}
