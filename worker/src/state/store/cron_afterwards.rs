//! What becomes of a scheduled job after a run.
//!
//! **Invariants**
//! - It is written with the run's end, in one transaction: nobody claims the job in between.
//! - A job that was edited since the run began stays as it was edited.

use rusqlite::Connection;

use super::cron_jobs::{NextRun, RunId, StoredJob};

/// What becomes of a job after a run, unless it was edited since the run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It stays.
    Keep,
    /// It does not run by itself before then.
    Postpone(NextRun),
    /// It runs no more by itself.
    Disable,
    /// It is forgotten.
    Remove,
}

/// Does it to a job whose run has just been recorded. `revision` is the job's when that was claimed.
pub(super) fn settle(
    connection: &Connection,
    job: &StoredJob,
    revision: i64,
    afterwards: Afterwards,
) -> rusqlite::Result<()> {
    let sql = match afterwards {
        Afterwards::Keep => return Ok(()),
        Afterwards::Postpone(next) => {
            return connection
                .prepare_cached(
                    "UPDATE cron_jobs SET next_run_at_ms = ?3, next_set_at_ms = ?4 \
                     WHERE id = ?1 AND revision = ?2 AND enabled \
                         AND (next_run_at_ms IS NULL OR next_run_at_ms < ?3)",
                )?
                .execute((&job.id, revision, next.at_ms, next.set_at_ms))
                .map(drop);
        }
        Afterwards::Disable => {
            "UPDATE cron_jobs SET enabled = 0, next_run_at_ms = NULL, next_set_at_ms = NULL \
             WHERE id = ?1 AND revision = ?2"
        }
        Afterwards::Remove => "DELETE FROM cron_jobs WHERE id = ?1 AND revision = ?2",
    };
    connection.prepare_cached(sql)?.execute((&job.id, revision)).map(drop)
}

/// Has the record of a run say when its job is due now, if that has changed.
pub(super) fn show(
    connection: &Connection,
    run_id: &RunId,
    afterwards: Afterwards,
) -> rusqlite::Result<()> {
    if !matches!(afterwards, Afterwards::Postpone(_)) {
        return Ok(());
    }
    connection
        .prepare_cached(
            "UPDATE cron_runs SET next_run_at_ms = \
                 (SELECT next_run_at_ms FROM cron_jobs WHERE id = job_id) WHERE run_id = ?1",
        )?
        .execute([run_id])
        .map(drop)
}
