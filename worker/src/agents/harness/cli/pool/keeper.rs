//! The keeper of a session: a task that owns it and whatever becomes of it.
//!
//! ```text
//! launch, or the session that is there ─► turn ─► at rest ─┬─► next turn
//!      ▲ another fingerprint: ended first                  ├─► idle, evicted, closed, dismissed: ended
//!      │                                                   └─► asked to move: busy ─► its lane is the successor's ─► given
//!      └──────────────────── it was gone ─────────────────────┘
//! ```
//!
//! **Invariants**
//! - A keeper has one process at a time: the next one starts when the last is gone.
//! - A session moves at rest, and only where its lane went before: no turn begins here while it is on its way.
//! - Whoever waits for a session to be gone hears of it: when it has moved, or has ended.
//! - Every seat answers as soon as it is asked, also during a turn.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use handoff::migrate::{Neighbour, Seat};
use tokio::sync::mpsc;
use tracing::debug;

use super::super::child::Manner;
use super::super::crossing::{self, Held, Parting};
use super::super::program::Asked;
use super::super::session::{Event, Session};
use super::super::turn::Fragment;
use super::Inner;
use super::turns::turn;

/// What a keeper is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Have it answer.
    Turn(Box<Asked>, mpsc::Sender<Fragment>),
    /// End it.
    Close,
    /// The lane of its session is this neighbour's, which waits for it to be gone from here.
    Part(Neighbour, Parting),
    /// There is no successor any more.
    Stay,
}

/// What ends a session's rest.
enum Woken {
    By(Order),
    /// It may go now, and its lane is there.
    Leaves,
    /// It is to end.
    Ends,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) pool: Arc<Inner>,
    pub(super) key: String,
    pub(super) session: Option<Session>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Among what may move.
    pub(super) seat: Option<Seat>,
    /// Who waits in the successor.
    pub(super) parting: Option<Parting>,
}

/// Whether a keeper has anything left to keep.
enum Kept {
    Perhaps,
    No,
}

impl Keeper {
    /// Keeps a session until there is neither one nor an order.
    pub(super) async fn keep(mut self) {
        if let (Some(seat), Some(_)) = (&self.seat, &self.parting) {
            // It comes back, and somebody waits for it.
            seat.hurry();
        }
        loop {
            let woken = if self.session.is_some() {
                self.rest().await
            } else {
                self.parting = None;
                if self.pool.has_left(&self.key, &self.orders) {
                    return;
                }
                // Something was there when we looked, and nobody else takes it.
                self.orders.recv().await.map_or(Woken::Ends, Woken::By)
            };
            match woken {
                Woken::By(Order::Turn(asked, fragments)) => self.turn(asked, fragments).await,
                Woken::By(Order::Part(Neighbour::Successor, parting))
                    if self.session.is_some() && self.seat.is_some() =>
                {
                    self.parting = Some(parting);
                    if let Some(seat) = &self.seat {
                        seat.hurry();
                    }
                }
                Woken::By(Order::Part(_, parting)) => {
                    self.end().await;
                    drop(parting);
                }
                Woken::By(Order::Stay) => self.parting = None,
                Woken::By(Order::Close) | Woken::Ends => self.end().await,
                Woken::Leaves => {
                    if let Kept::No = self.leave().await {
                        return;
                    }
                }
            }
        }
    }

    async fn turn(&mut self, asked: Box<Asked>, fragments: mpsc::Sender<Fragment>) {
        // The lane is here.
        self.parting = None;
        if self.seat.is_none() {
            self.seat = self.pool.departures.seat();
        }
        let mut turn = std::pin::pin!(turn(&self.pool, self.session.take(), asked, fragments));
        let seat = &self.seat;
        self.session = poll_fn(|context| {
            if let Some(seat) = seat
                && seat.poll_asked(context).is_ready()
            {
                seat.busy();
                // And hears of being asked again.
                let _ = seat.poll_asked(context);
            }
            turn.as_mut().poll(context)
        })
        .await;
    }

    /// Waits beside a session at rest. What it says then belongs to no turn.
    async fn rest(&mut self) -> Woken {
        let Self { pool, key, session, orders, seat, parting } = self;
        let Some(session) = session else { return Woken::Ends };
        if parting.is_none() && seat.as_ref().is_some_and(Seat::is_wanted) {
            // It was busy when it was asked.
            pool.departures.yield_lane(key);
        }
        let idle = tokio::time::sleep(pool.keeping.idle);
        tokio::pin!(idle);
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => return order.map_or(Woken::Ends, Woken::By),
                () = pool.departures.dismissed(), if seat.is_some() => {
                    // Without a seat nobody waits for it to move, so nobody may wait for it to be gone.
                    *seat = None;
                    if parting.is_some() {
                        return Woken::Ends;
                    }
                }
                () = asked(seat.as_ref()), if parting.is_none() => {
                    if let Some(seat) = seat {
                        seat.busy();
                    }
                    pool.departures.yield_lane(key);
                }
                () = wanted(seat.as_ref()), if parting.is_some() => return Woken::Leaves,
                () = given_up(parting.as_mut()) => return Woken::Ends,
                event = session.next() => match event {
                    // Who writes without end while nothing was asked has lost its way.
                    Event::Gone | Event::TooLong(_) => return Woken::Ends,
                    Event::Line(_) | Event::Complained => {}
                },
                () = &mut idle => return Woken::Ends,
            }
        }
    }

    /// Gives the session away, unless there is an order for it by now.
    async fn leave(&mut self) -> Kept {
        // First of all: what comes back finds its place free.
        if self.session.is_none() || !self.pool.has_left(&self.key, &self.orders) {
            return Kept::Perhaps;
        }
        let (Some(session), Some(seat)) = (self.session.take(), self.seat.take()) else {
            return Kept::No;
        };
        match session.into_parts().await {
            Ok((parts, kept)) => {
                let held = Held::new(kept, self.parting.take());
                seat.give(crossing::frozen((&self.pool.id, &self.key), parts, held));
            }
            Err(session) => {
                drop(seat);
                session.end(Manner::Terminate, self.pool.keeping.patience).await;
            }
        }
        Kept::No
    }

    async fn end(&mut self) {
        if let Some(session) = self.session.take() {
            debug!(session = self.key, "a CLI session at rest is ended");
            session.end(Manner::Terminate, self.pool.keeping.patience).await;
        }
    }
}

async fn asked(seat: Option<&Seat>) {
    poll_fn(|context| seat.map_or(Poll::Pending, |seat| seat.poll_asked(context))).await;
}

async fn wanted(seat: Option<&Seat>) {
    poll_fn(|context| seat.map_or(Poll::Pending, |seat| seat.poll_wanted(context))).await;
}

async fn given_up(parting: Option<&mut Parting>) {
    match parting {
        Some(parting) => parting.given_up().await,
        None => std::future::pending().await,
    }
}
