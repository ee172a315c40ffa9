//! How connections come in, and the sessions of CLI agents with them: through the listening sockets, and from the incumbent when they move.
//!
//! **Invariants**
//! - A connection belongs to the task of the door it came through: a panic ends that connection
//!   alone, and the end of the doors is the end of all connections.
//! - What has moved here and is served by nobody yet is counted.

use std::error::Error;
use std::sync::Arc;

use handoff::migrate::Roster;
use handoff::{Acceptor, Connections, Migration, Worker};
use tokio::task::{JoinError, JoinSet};
use tracing::error;

use crate::agents::Runs;
use crate::agents::fallback::Stock;
use crate::args::Migrate;
use crate::arrivals::Arrivals;
use crate::serve::{self, Gateway};

/// The ways in.
pub(super) struct Doors {
    /// One task for each listening socket, with the connections that came through it.
    pub(super) accepting: JoinSet<()>,
    /// The connections that have moved here.
    pub(super) arrivals: Arc<Arrivals>,
    /// How connections move; `None` when they do not.
    pub(super) migration: Option<Migration>,
}

impl Doors {
    /// Opens them: what is accepted or arrives is served by this gateway.
    pub(super) fn open(
        worker: &Worker,
        acceptors: Vec<Acceptor>,
        gateway: &Arc<Gateway>,
        (runs, stock): (&Arc<Runs>, &Arc<Stock>),
        migrate: Migrate,
    ) -> Self {
        let arrivals =
            Arc::new(Arrivals::new(Arc::clone(gateway), Arc::clone(runs), Arc::clone(stock)));
        let migration =
            (migrate == Migrate::On).then(|| worker.movable(Arc::clone(&arrivals), gateway.post()));
        if let Some(migration) = &migration {
            arrivals.seat_in(migration.roster.clone());
            gateway.moves(migration.moved.clone());
            let runs = Arc::clone(runs);
            let yield_lane = move |session: &str| runs.yield_lane(session);
            stock.clis().move_by(migration.roster.clone(), yield_lane);
            let clis = Arc::clone(stock);
            worker.on_orphan_ended(move |ended| clis.clis().orphan_ended(ended));
        }
        let roster = migration.as_ref().map(|migration| migration.roster.clone());
        let (census, frozen) = (Arc::clone(&gateway.census), roster.clone());
        worker.on_report(move || {
            let mut report = census.report();
            // Those that are frozen have no task here that would be counted.
            let on_the_way = frozen.as_ref().map_or_else(Connections::default, Roster::on_the_way);
            report.connections = report.connections.saturating_add(on_the_way);
            report
        });
        let mut accepting = JoinSet::new();
        for acceptor in acceptors {
            accepting.spawn(tend(acceptor, Arc::clone(gateway), roster.clone()));
        }
        Self { accepting, arrivals, migration }
    }
}

/// Accepts through one socket, and keeps the connections that came through it.
async fn tend(mut acceptor: Acceptor, gateway: Arc<Gateway>, roster: Option<Roster>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = acceptor.accept() => match accepted {
                Some((stream, peer)) => {
                    let berth = roster.as_ref().map(Roster::seat);
                    connections.spawn(serve::accept(Arc::clone(&gateway), stream, peer, berth));
                }
                None => break,
            },
            Some(ended) = connections.join_next() => note(ended),
        }
    }
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(error = &error as &dyn Error, "a connection ended in a panic");
    }
}
