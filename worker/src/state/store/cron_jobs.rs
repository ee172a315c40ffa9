//! Scheduled jobs: what clients asked for, and when each runs next.
//!
//! A job's definition is kept as the client's JSON. The store does not read it, so one that a newer worker has
//! written passes through an older one unharmed.
//!
//! **Invariants**
//! - Every edit of a definition changes its revision, and an edit that was made of an earlier revision is refused.
//! - The schedule itself (`claim`, `reschedule`, `abandon`) is written under the writer lease alone (`cron_runs`);
//!   what clients ask for needs none.

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::cron_runs::Status;
use super::lease::{self, Epoch, StaleEpoch};
use super::{Never, Store, StoreFailed};

/// A job's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct JobId(pub(crate) String);

/// A run's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunId(pub(crate) String);

impl ToSql for JobId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl ToSql for RunId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for JobId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        String::column_result(value).map(Self)
    }
}

impl FromSql for RunId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        String::column_result(value).map(Self)
    }
}

/// A job, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredJob {
    /// Its id.
    pub(crate) id: JobId,
    /// The client's JSON.
    pub(crate) definition: String,
    /// Whether it runs by itself.
    pub(crate) enabled: bool,
    /// Which edit of the definition this is.
    pub(crate) revision: i64,
    /// When it was made.
    pub(crate) created_at_ms: i64,
    /// When it was last edited.
    pub(crate) updated_at_ms: i64,
    /// When it is due.
    pub(crate) next: Option<NextRun>,
    /// A run that somebody asked for, not begun yet.
    pub(crate) requested: Option<RunId>,
    /// The run that is not at its end.
    pub(crate) running: Option<Running>,
    /// What came of its runs.
    pub(crate) past: Past,
}

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextRun {
    /// When, on the wall clock.
    pub(crate) at_ms: i64,
    /// When that was computed. If it lies far ahead, it was computed by a clock that was wrong.
    pub(crate) set_at_ms: i64,
}

/// A run that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// Which.
    pub(crate) run_id: RunId,
    /// Whose; see [`Holder`](super::Holder).
    pub(crate) holder: String,
    /// Since when.
    pub(crate) at_ms: i64,
}

/// What came of a job's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// When the latest one began.
    pub(crate) run_at_ms: Option<i64>,
    /// How it ended.
    pub(crate) status: Option<Status>,
    /// Why, if it failed.
    pub(crate) error: Option<String>,
    /// How long it took.
    pub(crate) duration_ms: Option<i64>,
    /// How many have failed in a row.
    pub(crate) consecutive_errors: i64,
    /// How many were skipped in a row.
    pub(crate) consecutive_skipped: i64,
}

/// An edited definition.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    /// The client's JSON.
    pub(crate) definition: String,
    /// Whether it runs by itself.
    pub(crate) enabled: bool,
    /// When it is due.
    pub(crate) next: Option<NextRun>,
}

/// Which jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// All.
    All,
    /// Those that are or will be due, were asked for, or are running.
    Scheduled,
}

/// Why a job was not edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditFailed {
    /// There is none.
    #[error("cron job not found: {}", id.0)]
    NoJob {
        /// Its id.
        id: JobId,
    },
    /// Somebody else has edited it since it was read.
    #[error("cron job {} was changed by somebody else at the same time", id.0)]
    Changed {
        /// Its id.
        id: JobId,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

/// Why a job was not asked to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestFailed {
    /// There is none.
    #[error("cron job not found: {}", id.0)]
    NoJob {
        /// Its id.
        id: JobId,
    },
    /// It runs, or was asked to already.
    #[error("cron job {} is already running", id.0)]
    Running {
        /// Its id.
        id: JobId,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

/// Why a job was not given another time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RescheduleFailed {
    /// The lease is somebody else's.
    #[error(transparent)]
    Stale(StaleEpoch),
    /// The job was edited, claimed or removed meanwhile.
    #[error("cron job {} is not as it was read", id.0)]
    Changed {
        /// Its id.
        id: JobId,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

const COLUMNS: &str = "id, definition, enabled, revision, created_at_ms, updated_at_ms, next_run_at_ms, \
     next_set_at_ms, requested_run, running_run, running_holder, running_at_ms, last_run_at_ms, \
     last_status, last_error, last_duration_ms, consecutive_errors, consecutive_skipped";

impl Store {
    /// Keeps a new job.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn add_job(
        &self,
        id: JobId,
        job: Edit,
        now_ms: i64,
    ) -> Result<StoredJob, StoreFailed> {
        let work = move |connection: &Connection| {
            let Edit { definition, enabled, next } = job;
            connection
                .prepare_cached(&format!(
                    "INSERT INTO cron_jobs (id, definition, enabled, created_at_ms, updated_at_ms, \
                         next_run_at_ms, next_set_at_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6) RETURNING {COLUMNS}"
                ))?
                .query_row(
                    (
                        id,
                        definition,
                        enabled,
                        now_ms,
                        next.map(|n| n.at_ms),
                        next.map(|n| n.set_at_ms),
                    ),
                    from_row,
                )
                .map(Ok::<_, Never>)
        };
        match self.write("keep a cron job", work).await? {
            Ok(job) => Ok(job),
            Err(never) => match never {},
        }
    }

    /// Replaces the definition that was read at `revision`.
    ///
    /// # Errors
    /// [`EditFailed`]
    pub(crate) async fn edit_job(
        &self,
        id: JobId,
        revision: i64,
        edit: Edit,
        now_ms: i64,
    ) -> Result<StoredJob, EditFailed> {
        let shown = id.clone();
        let work = move |connection: &Connection| {
            let Some(found) = read_job(connection, &id)? else { return Ok(Err(None)) };
            if found.revision != revision {
                return Ok(Err(Some(())));
            }
            let Edit { definition, enabled, next } = edit;
            connection
                .prepare_cached(&format!(
                    "UPDATE cron_jobs SET definition = ?2, enabled = ?3, revision = revision + 1, \
                         updated_at_ms = ?4, next_run_at_ms = ?5, next_set_at_ms = ?6 \
                     WHERE id = ?1 RETURNING {COLUMNS}"
                ))?
                .query_row(
                    (
                        id,
                        definition,
                        enabled,
                        now_ms,
                        next.map(|n| n.at_ms),
                        next.map(|n| n.set_at_ms),
                    ),
                    from_row,
                )
                .map(Ok)
        };
        self.write("change a cron job", work).await?.map_err(|changed| match changed {
            Some(()) => EditFailed::Changed { id: shown },
            None => EditFailed::NoJob { id: shown },
        })
    }

    /// Forgets a job; what it had run stays in the list of runs. Says what was forgotten.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn remove_job(&self, id: JobId) -> Result<Option<StoredJob>, StoreFailed> {
        let work = move |connection: &Connection| {
            connection
                .prepare_cached(&format!(
                    "DELETE FROM cron_jobs WHERE id = ?1 RETURNING {COLUMNS}"
                ))?
                .query_row([id], from_row)
                .optional()
                .map(Ok::<_, Never>)
        };
        match self.write("remove a cron job", work).await? {
            Ok(removed) => Ok(removed),
            Err(never) => match never {},
        }
    }

    /// The job with this id.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn job(&self, id: JobId) -> Result<Option<StoredJob>, StoreFailed> {
        self.read("read a cron job", move |connection| read_job(connection, &id)).await
    }

    /// The jobs, in the order they were made.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn jobs(&self, which: Which) -> Result<Vec<StoredJob>, StoreFailed> {
        let condition = match which {
            Which::All => "",
            Which::Scheduled => {
                "WHERE next_run_at_ms IS NOT NULL OR requested_run IS NOT NULL OR running_run IS NOT NULL"
            }
        };
        let work = move |connection: &Connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM cron_jobs {condition} ORDER BY created_at_ms, id"
                ))?
                .query_map([], from_row)?
                .collect()
        };
        self.read("read the cron jobs", work).await
    }

    /// Asks for a run, which the holder of the writer lease begins.
    ///
    /// # Errors
    /// [`RequestFailed`]
    pub(crate) async fn request_run(&self, id: JobId, run: RunId) -> Result<(), RequestFailed> {
        let shown = id.clone();
        let work = move |connection: &Connection| {
            let Some(found) = read_job(connection, &id)? else { return Ok(Err(None)) };
            if found.running.is_some() || found.requested.is_some() {
                return Ok(Err(Some(())));
            }
            connection
                .prepare_cached("UPDATE cron_jobs SET requested_run = ?2 WHERE id = ?1")?
                .execute((id, run))?;
            Ok(Ok(()))
        };
        self.write("ask for a run", work).await?.map_err(|running| match running {
            Some(()) => RequestFailed::Running { id: shown },
            None => RequestFailed::NoJob { id: shown },
        })
    }

    /// Gives a job another time, if it still has the one it was read with.
    ///
    /// # Errors
    /// [`RescheduleFailed`]
    pub(crate) async fn reschedule_job(
        &self,
        epoch: Epoch,
        job: &StoredJob,
        next: Option<NextRun>,
    ) -> Result<(), RescheduleFailed> {
        let (id, revision) = (job.id.clone(), job.revision);
        let held = job.next.map(|next| next.at_ms);
        let presence = self.presence.clone();
        let work = move |connection: &Connection| {
            if let Err(stale) = lease::check(connection, presence.holder().as_str(), epoch)? {
                return Ok(Err(Some(stale)));
            }
            let changed = connection
                .prepare_cached(
                    "UPDATE cron_jobs SET next_run_at_ms = ?4, next_set_at_ms = ?5 \
                     WHERE id = ?1 AND revision = ?2 AND next_run_at_ms IS ?3",
                )?
                .execute((id, revision, held, next.map(|n| n.at_ms), next.map(|n| n.set_at_ms)))?;
            Ok(if changed == 1 { Ok(()) } else { Err(None) })
        };
        self.write("reschedule a cron job", work).await?.map_err(|stale| match stale {
            Some(stale) => RescheduleFailed::Stale(stale),
            None => RescheduleFailed::Changed { id: job.id.clone() },
        })
    }
}

pub(super) fn read_job(connection: &Connection, id: &JobId) -> rusqlite::Result<Option<StoredJob>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM cron_jobs WHERE id = ?1"))?
        .query_row([id], from_row)
        .optional()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<StoredJob> {
    let next = match (row.get(6)?, row.get(7)?) {
        (Some(at_ms), Some(set_at_ms)) => Some(NextRun { at_ms, set_at_ms }),
        _ => None,
    };
    let running = match (row.get(9)?, row.get(10)?, row.get(11)?) {
        (Some(run_id), Some(holder), Some(at_ms)) => Some(Running { run_id, holder, at_ms }),
        _ => None,
    };
    Ok(StoredJob {
        id: row.get(0)?,
        definition: row.get(1)?,
        enabled: row.get(2)?,
        revision: row.get(3)?,
        created_at_ms: row.get(4)?,
        updated_at_ms: row.get(5)?,
        next,
        requested: row.get(8)?,
        running,
        past: Past {
            run_at_ms: row.get(12)?,
            status: row.get(13)?,
            error: row.get(14)?,
            duration_ms: row.get(15)?,
            consecutive_errors: row.get(16)?,
            consecutive_skipped: row.get(17)?,
        },
    })
}
