//! A thread that owns one connection to the database, and the queue in front of it.
//!
//! ```text
//! callers ──► queue (256) ──► BEGIN IMMEDIATE ─► SAVEPOINT a ─► SAVEPOINT b ─► … ─► COMMIT ──► answers
//! ```
//!
//! SQLite blocks, and a commit waits for the disk; neither belongs on a thread of the runtime. What
//! waits in the queue is committed together: one wait for the disk serves up to [`BATCH`] callers.
//!
//! **Invariants**
//! - Nobody is answered before the commit that holds their work.
//! - Work that refuses or fails changes nothing, and does not touch its neighbours in the batch.
//! - Work whose caller has left before its turn is not begun.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{OpenFailed, StoreFailed};

/// How much work waits in a queue before callers wait for room in it.
const QUEUE: usize = 256;
/// The most that one commit holds. It bounds how long the other process waits for its turn.
const BATCH: usize = 64;
/// How long opening may take. Another process may be migrating.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What went wrong, shared by everybody it went wrong for.
pub(super) type SqlError = Arc<rusqlite::Error>;
/// Tells a caller how it went, once it is known whether the commit went well.
type Settle = Box<dyn FnOnce(Result<(), SqlError>) + Send>;
/// One caller's work.
type Work = Box<dyn FnOnce(Result<&Connection, SqlError>) -> (Keep, Settle) + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

/// What a lane does with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Writes, in batches.
    Write,
    /// Only reads: it never waits for a writer.
    Read,
}

/// The queue of one thread. The thread ends when the last copy is dropped and the queue is empty.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    queue: mpsc::Sender<Work>,
}

impl Lane {
    /// Starts the thread, which opens its connection itself.
    pub(super) async fn start(
        access: Access,
        open: impl FnOnce() -> Result<Connection, OpenFailed> + Send + 'static,
    ) -> Result<Self, OpenFailed> {
        let (queue, work) = mpsc::channel(QUEUE);
        let (opened, is_open) = oneshot::channel();
        let name = match access {
            Access::Write => "store-writer",
            Access::Read => "store-reader",
        };
        let live = move || match open() {
            Ok(connection) => {
                // Whoever asked to open it may have given up; then there is no queue either.
                let _ = opened.send(Ok(()));
                serve(connection, access, work);
            }
            Err(failed) => {
                // As above.
                let _ = opened.send(Err(failed));
            }
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(live)
            .map_err(|source| OpenFailed::Thread { source })?;
        match tokio::time::timeout(OPEN_TIMEOUT, is_open).await {
            Ok(Ok(opened)) => opened.map(|()| Self { queue }),
            Ok(Err(_)) => Err(OpenFailed::Panicked),
            Err(_) => Err(OpenFailed::TimedOut { limit: OPEN_TIMEOUT }),
        }
    }

    /// Has the thread do `work`, and waits for its answer, committed if it writes. A refusal (the
    /// inner error) takes back whatever the work had done.
    ///
    /// Not cancel-safe: work whose caller leaves may have happened.
    pub(super) async fn run<T: Send + 'static, R: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<Result<T, R>> + Send + 'static,
    ) -> Result<Result<T, R>, StoreFailed> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |ground| {
            if answer.is_closed() {
                return (Keep::No, Box::new(|_| {}));
            }
            let outcome = ground.and_then(|connection| work(connection).map_err(Arc::new));
            let keep = if matches!(outcome, Ok(Ok(_))) { Keep::Yes } else { Keep::No };
            let settle: Settle = Box::new(move |committed| {
                let outcome = match committed {
                    Err(failed) if keep == Keep::Yes => Err(failed),
                    _ => outcome,
                };
                // The caller may have left meanwhile.
                let _ = answer.send(outcome);
            });
            (keep, settle)
        });
        self.queue.send(work).await.map_err(|_| StoreFailed::Gone { doing })?;
        let outcome = answered.await.map_err(|_| StoreFailed::Gone { doing })?;
        outcome.map_err(|source| StoreFailed::from_sql(doing, source))
    }
}

fn serve(mut connection: Connection, access: Access, mut queue: mpsc::Receiver<Work>) {
    while let Some(first) = queue.blocking_recv() {
        match access {
            Access::Read => read(&mut connection, first),
            Access::Write => {
                let mut batch = vec![first];
                while batch.len() < BATCH
                    && let Ok(next) = queue.try_recv()
                {
                    batch.push(next);
                }
                write(&mut connection, batch);
            }
        }
    }
}

/// One look at one state of the database, whatever is written meanwhile.
fn read(connection: &mut Connection, work: Work) {
    let settle = match connection.transaction() {
        Ok(transaction) => work(Ok(&transaction)).1,
        Err(failed) => work(Err(Arc::new(failed))).1,
    };
    settle(Ok(()));
}

fn write(connection: &mut Connection, batch: Vec<Work>) {
    let mut settling = Vec::with_capacity(batch.len());
    let committed = commit(connection, batch, &mut settling);
    for settle in settling {
        settle(committed.clone());
    }
}

fn commit(
    connection: &mut Connection,
    batch: Vec<Work>,
    settling: &mut Vec<Settle>,
) -> Result<(), SqlError> {
    // Immediate: the right to write is taken before anything is read, so what was read stays true.
    let mut transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate)
    {
        Ok(transaction) => transaction,
        Err(failed) => {
            let failed = Arc::new(failed);
            settling.extend(batch.into_iter().map(|work| work(Err(Arc::clone(&failed))).1));
            return Ok(());
        }
    };
    let mut ended = None;
    for work in batch {
        let settle = match &ended {
            None => match one(&mut transaction, work) {
                (settle, Ok(())) => settle,
                (settle, Err(failed)) => {
                    ended = Some(Arc::new(failed));
                    settle
                }
            },
            Some(failed) => work(Err(Arc::clone(failed))).1,
        };
        settling.push(settle);
    }
    // After some failures (a full disk, say) SQLite has rolled everything back by itself. Then nobody in
    // the batch is told that it went well, and what is left of the transaction is dropped.
    match ended {
        Some(failed) => Err(failed),
        None => transaction.commit().map_err(Arc::new),
    }
}

/// Does one caller's work in a savepoint of its own. An error says that the whole transaction is gone.
fn one(transaction: &mut Transaction<'_>, work: Work) -> (Settle, rusqlite::Result<()>) {
    let mut savepoint = match transaction.savepoint() {
        Ok(savepoint) => savepoint,
        Err(failed) => {
            let shared = Arc::new(failed);
            return (work(Err(Arc::clone(&shared))).1, Err(gone()));
        }
    };
    let (keep, settle) = work(Ok(&savepoint));
    if savepoint.is_autocommit() {
        return (settle, Err(gone()));
    }
    let closed = match keep {
        Keep::Yes => savepoint.commit(),
        Keep::No => savepoint.rollback().and_then(|()| savepoint.commit()),
    };
    (settle, closed)
}

fn gone() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK);
    rusqlite::Error::SqliteFailure(code, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lane() -> Lane {
        let open = || {
            let connection = Connection::open_in_memory().expect("memory is there");
            connection.execute_batch("CREATE TABLE t (n INTEGER UNIQUE)").expect("a table");
            Ok(connection)
        };
        Lane::start(Access::Write, open).await.unwrap()
    }

    fn insert(connection: &Connection, n: i64) -> rusqlite::Result<()> {
        connection.execute("INSERT INTO t (n) VALUES (?1)", [n]).map(drop)
    }

    async fn stored(lane: &Lane) -> Vec<i64> {
        let all = |connection: &Connection| {
            let mut statement = connection.prepare("SELECT n FROM t ORDER BY n")?;
            let all =
                statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok(Ok::<Vec<i64>, ()>(all))
        };
        lane.run("read", all).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn work_that_refuses_or_fails_changes_nothing_and_its_neighbours_do_not_notice() {
        let lane = lane().await;
        let kept = lane.run("insert", |c| insert(c, 1).map(Ok::<(), ()>));
        let refused = lane.run("insert", |c| insert(c, 2).map(|()| Err::<(), &str>("no")));
        let failed = lane.run("insert", |c| {
            insert(c, 3)?;
            insert(c, 1).map(Ok::<(), ()>)
        });
        let also_kept = lane.run("insert", |c| insert(c, 4).map(Ok::<(), ()>));
        let (kept, refused, failed, also_kept) = tokio::join!(kept, refused, failed, also_kept);
        assert_eq!(kept.unwrap(), Ok(()));
        assert_eq!(refused.unwrap(), Err("no"));
        assert!(matches!(failed.unwrap_err(), StoreFailed::Sql { doing: "insert", .. }));
        assert_eq!(also_kept.unwrap(), Ok(()));
        assert_eq!(stored(&lane).await, [1, 4]);
    }

    #[tokio::test]
    async fn a_batch_whose_transaction_is_gone_is_told_so_as_a_whole() {
        let lane = lane().await;
        // Holds the thread, so that the four below become one batch.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (busy, is_busy) = oneshot::channel();
        let blocker = tokio::spawn({
            let lane = lane.clone();
            async move {
                lane.run("wait", move |_| {
                    busy.send(()).expect("the test waits");
                    held.recv().expect("the test releases");
                    Ok(Ok::<(), ()>(()))
                })
                .await
            }
        });
        is_busy.await.unwrap();
        let before = lane.run("insert", |c| insert(c, 1).map(Ok::<(), ()>));
        let rolls_back = lane.run("insert", |c| c.execute_batch("ROLLBACK").map(Ok::<(), ()>));
        let after = lane.run("insert", |c| insert(c, 2).map(Ok::<(), ()>));
        let go = async {
            tokio::task::yield_now().await;
            release.send(()).unwrap();
        };
        let (before, rolls_back, after, ()) = tokio::join!(before, rolls_back, after, go);
        blocker.await.unwrap().unwrap().unwrap();
        assert!(before.is_err() && rolls_back.is_err() && after.is_err());
        assert_eq!(stored(&lane).await, [] as [i64; 0]);
    }

    #[tokio::test]
    async fn work_that_panics_ends_the_lane_and_everybody_is_told() {
        let lane = lane().await;
        let failed =
            lane.run("die", |_| -> rusqlite::Result<Result<(), ()>> { panic!("as asked") });
        assert!(matches!(failed.await.unwrap_err(), StoreFailed::Gone { doing: "die" }));
        let next = lane.run("insert", |c| insert(c, 1).map(Ok::<(), ()>)).await;
        assert!(matches!(next.unwrap_err(), StoreFailed::Gone { doing: "insert" }));
    }
}
