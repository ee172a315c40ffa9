//! Runs of scheduled jobs: claimed once, recorded, and given up when their generation is gone.
//!
//! ```text
//!             claim (epoch, revision, due as read)             finish (by the run that was claimed)
//!  job due ──────────────────────────────────────► running ──────────────────────────────────────► recorded
//!             one transaction: next run set,          │ its holder is dead
//!             run recorded, job marked running        └─────────────► abandoned: recorded as an error
//! ```
//!
//! **Invariants**
//! - An instant is claimed at most once: the claim moves the job on to its next one in the same transaction.
//! - A job runs at most once at a time, whoever holds the lease.
//! - A run outlives the lease it was claimed under: its end is written by its own id. Nothing else that
//!   the schedule writes is accepted from an earlier epoch.
//! - What was begun and not finished is never begun again: its effects are unknown.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _};

use super::cron_afterwards::{self as afterwards, Afterwards};
use super::cron_jobs::{JobId, NextRun, RunId, StoredJob, read_job};
use super::lease::{self, Epoch, StaleEpoch};
use super::{Store, StoreFailed};

/// As many finished runs are kept of each job.
const KEPT: u32 = 2000;

/// How a run ended, in the words of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It did what it should.
    Ok,
    /// It did not.
    Error,
    /// It was not begun.
    Skipped,
}

impl Status {
    /// On the wire and in the database.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }
}

impl ToSql for Status {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Status {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "ok" => Ok(Self::Ok),
            "error" => Ok(Self::Error),
            "skipped" => Ok(Self::Skipped),
            word => Err(FromSqlError::Other(format!("no run ends as {word}").into())),
        }
    }
}

/// Why a job is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It is due. The run moves it on to `next`.
    Due {
        /// When it was to run.
        at_ms: i64,
        /// When it is to run then.
        next: Option<NextRun>,
    },
    /// Somebody asked. Its schedule stays.
    Requested,
}

/// A claim on one run of a job, made of the job as it was read.
#[derive(Clone, Debug)]
pub(crate) struct RunClaim {
    /// Which job.
    pub(crate) job: JobId,
    /// As it was read.
    pub(crate) revision: i64,
    /// Why.
    pub(crate) cause: Cause,
    /// Under which id. That of the request, if there was one.
    pub(crate) run_id: RunId,
    /// Now.
    pub(crate) now_ms: i64,
}

/// Why a run was not claimed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimFailed {
    /// The lease is somebody else's.
    #[error(transparent)]
    Stale(StaleEpoch),
    /// The job was edited, claimed or removed meanwhile.
    #[error("cron job {} is not as it was read", id.0)]
    Changed {
        /// Its id.
        id: JobId,
    },
    /// It runs.
    #[error("cron job {} is already running", id.0)]
    Running {
        /// Its id.
        id: JobId,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

enum Refused {
    Stale(StaleEpoch),
    Changed,
    Running,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunOutcome {
    /// How it ended.
    pub(crate) status: Status,
    /// Why, if it failed.
    pub(crate) error: Option<String>,
    /// What it said.
    pub(crate) summary: Option<String>,
    /// The life of the session it ran in.
    pub(crate) session_id: Option<String>,
    /// The session it ran in.
    pub(crate) session_key: Option<String>,
    /// The model that answered.
    pub(crate) model: Option<String>,
    /// Whose model that is.
    pub(crate) provider: Option<String>,
}

impl RunOutcome {
    /// One with nothing to add.
    pub(crate) const fn of(status: Status) -> Self {
        Self {
            status,
            error: None,
            summary: None,
            session_id: None,
            session_key: None,
            model: None,
            provider: None,
        }
    }

    /// One that failed.
    pub(crate) fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::of(Status::Error) }
    }
}

/// Why a run was not recorded as finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishFailed {
    /// It was given up, or finished already.
    #[error("run {} is not running", run_id.0)]
    NotRunning {
        /// Which.
        run_id: RunId,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

impl Store {
    /// Claims a run, and moves the job on to its next one.
    ///
    /// # Errors
    /// [`ClaimFailed`]; then nothing has changed.
    pub(crate) async fn claim_run(
        &self,
        epoch: Epoch,
        claim: RunClaim,
    ) -> Result<StoredJob, ClaimFailed> {
        let id = claim.job.clone();
        let presence = self.presence.clone();
        let work = move |connection: &Connection| {
            take(connection, presence.holder().as_str(), epoch, &claim)
        };
        self.write("claim a run", work).await?.map_err(|refused| match refused {
            Refused::Stale(stale) => ClaimFailed::Stale(stale),
            Refused::Changed => ClaimFailed::Changed { id },
            Refused::Running => ClaimFailed::Running { id },
        })
    }

    /// Claims a run and records at once that it was skipped, and why.
    ///
    /// # Errors
    /// [`ClaimFailed`]; then nothing has changed.
    pub(crate) async fn skip_run(
        &self,
        epoch: Epoch,
        claim: RunClaim,
        reason: &str,
        then: Afterwards,
    ) -> Result<StoredJob, ClaimFailed> {
        let id = claim.job.clone();
        let presence = self.presence.clone();
        let outcome =
            RunOutcome { error: Some(reason.to_owned()), ..RunOutcome::of(Status::Skipped) };
        let work = move |connection: &Connection| {
            let claimed = take(connection, presence.holder().as_str(), epoch, &claim)?;
            let Ok(job) = claimed else { return Ok(claimed) };
            record(connection, &claim.run_id, &outcome, claim.now_ms)?;
            afterwards::settle(connection, &job, claim.revision, then)?;
            Ok(Ok(read_job(connection, &job.id)?.unwrap_or(job)))
        };
        self.write("skip a run", work).await?.map_err(|refused| match refused {
            Refused::Stale(stale) => ClaimFailed::Stale(stale),
            Refused::Changed => ClaimFailed::Changed { id },
            Refused::Running => ClaimFailed::Running { id },
        })
    }

    /// Records what came of a run. `revision` is its job's when it was claimed. Returns the job, unless it is gone.
    ///
    /// # Errors
    /// [`FinishFailed`]
    pub(crate) async fn finish_run(
        &self,
        run_id: RunId,
        revision: i64,
        outcome: RunOutcome,
        then: Afterwards,
        now_ms: i64,
    ) -> Result<Option<StoredJob>, FinishFailed> {
        let shown = run_id.clone();
        let work = move |connection: &Connection| {
            let Some(job) = record(connection, &run_id, &outcome, now_ms)? else {
                return Ok(Err(()));
            };
            let Some(job) = read_job(connection, &job)? else { return Ok(Ok(None)) };
            afterwards::settle(connection, &job, revision, then)?;
            afterwards::show(connection, &run_id, then)?;
            read_job(connection, &job.id).map(Ok)
        };
        let finished = self.write("finish a run", work).await?;
        finished.map_err(|()| FinishFailed::NotRunning { run_id: shown })
    }

    /// Gives up the runs whose generations are dead. Says which.
    ///
    /// # Errors
    /// [`ClaimFailed::Stale`], [`ClaimFailed::Store`]
    pub(crate) async fn abandon_runs(
        &self,
        epoch: Epoch,
        now_ms: i64,
    ) -> Result<Vec<RunId>, ClaimFailed> {
        let presence = self.presence.clone();
        let work = move |connection: &Connection| {
            if let Err(stale) = lease::check(connection, presence.holder().as_str(), epoch)? {
                return Ok(Err(stale));
            }
            let unfinished = connection
                .prepare_cached(
                    "SELECT run_id, holder FROM cron_runs WHERE finished_at_ms IS NULL",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<Vec<(RunId, String)>>>()?;
            let outcome = RunOutcome::failed("interrupted: the worker ended before the run did");
            let mut abandoned = Vec::new();
            for (run_id, holder) in unfinished {
                if presence.is_alive(&holder) {
                    continue;
                }
                if let Some(job) = record(connection, &run_id, &outcome, now_ms)? {
                    // A job without a next run would wait for ever.
                    connection
                        .prepare_cached(
                            "UPDATE cron_jobs SET enabled = 0 WHERE id = ?1 AND next_run_at_ms IS NULL",
                        )?
                        .execute([job])?;
                }
                abandoned.push(run_id);
            }
            Ok(Ok(abandoned))
        };
        self.write("give up runs", work).await?.map_err(ClaimFailed::Stale)
    }
}

fn take(
    connection: &Connection,
    holder: &str,
    epoch: Epoch,
    claim: &RunClaim,
) -> rusqlite::Result<Result<StoredJob, Refused>> {
    if let Err(stale) = lease::check(connection, holder, epoch)? {
        return Ok(Err(Refused::Stale(stale)));
    }
    let Some(job) = read_job(connection, &claim.job)? else { return Ok(Err(Refused::Changed)) };
    if job.running.is_some() {
        return Ok(Err(Refused::Running));
    }
    let (due_at_ms, next) = match &claim.cause {
        Cause::Due { at_ms, next } => {
            let as_read = job.next.map(|next| next.at_ms) == Some(*at_ms);
            if !job.enabled || job.revision != claim.revision || !as_read {
                return Ok(Err(Refused::Changed));
            }
            (Some(*at_ms), *next)
        }
        Cause::Requested if job.requested.as_ref() == Some(&claim.run_id) => (None, job.next),
        Cause::Requested => return Ok(Err(Refused::Changed)),
    };
    connection
        .prepare_cached(
            "INSERT INTO cron_runs (run_id, job_id, holder, epoch, due_at_ms, started_at_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((&claim.run_id, &job.id, holder, epoch.number(), due_at_ms, claim.now_ms))?;
    connection
        .prepare_cached(
            "UPDATE cron_jobs SET next_run_at_ms = ?2, next_set_at_ms = ?3, \
                 requested_run = nullif(requested_run, ?4), \
                 running_run = ?4, running_holder = ?5, running_at_ms = ?6 \
             WHERE id = ?1",
        )?
        .execute((
            &job.id,
            next.map(|next| next.at_ms),
            next.map(|next| next.set_at_ms),
            &claim.run_id,
            holder,
            claim.now_ms,
        ))?;
    Ok(Ok(read_job(connection, &job.id)?.unwrap_or(job)))
}

/// Ends a run. `None` if it is not running; else its job's id, whether that still exists or not.
fn record(
    connection: &Connection,
    run_id: &RunId,
    outcome: &RunOutcome,
    now_ms: i64,
) -> rusqlite::Result<Option<JobId>> {
    let RunOutcome { status, error, summary, session_id, session_key, model, provider } = outcome;
    let job: Option<JobId> = connection
        .prepare_cached(
            "UPDATE cron_runs SET finished_at_ms = max(?2, started_at_ms), status = ?3, error = ?4, summary = ?5, \
                 session_id = ?6, session_key = ?7, model = ?8, provider = ?9, \
                 next_run_at_ms = (SELECT next_run_at_ms FROM cron_jobs WHERE id = job_id) \
             WHERE run_id = ?1 AND finished_at_ms IS NULL RETURNING job_id",
        )?
        .query_row(
            (run_id, now_ms, status, error, summary, session_id, session_key, model, provider),
            |row| row.get(0),
        )
        .optional()?;
    let Some(job) = job else { return Ok(None) };
    connection
        .prepare_cached(
            "UPDATE cron_jobs SET last_run_at_ms = running_at_ms, \
                 last_status = ?2, last_error = ?3, last_duration_ms = max(?4 - running_at_ms, 0), \
                 consecutive_errors = CASE ?2 WHEN 'error' THEN consecutive_errors + 1 \
                     WHEN 'ok' THEN 0 ELSE consecutive_errors END, \
                 consecutive_skipped = CASE ?2 WHEN 'skipped' THEN consecutive_skipped + 1 ELSE 0 END, \
                 running_run = NULL, running_holder = NULL, running_at_ms = NULL \
             WHERE running_run = ?1",
        )?
        .execute((run_id, status, error, now_ms))?;
    connection
        .prepare_cached(
            "DELETE FROM cron_runs WHERE run_id IN (SELECT run_id FROM cron_runs \
                 WHERE job_id = ?1 AND finished_at_ms IS NOT NULL \
                 ORDER BY finished_at_ms DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute((&job, KEPT))?;
    Ok(Some(job))
}

#[cfg(test)]
mod tests {
    use super::super::cron_jobs::Edit;
    use super::super::shared::Shared;
    use super::*;

    #[tokio::test]
    async fn a_claim_on_a_job_that_is_not_as_it_was_read_is_refused() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        let next = |at_ms| Some(NextRun { at_ms, set_at_ms: 5 });
        let edit = |at_ms| Edit { definition: "{}".to_owned(), enabled: true, next: next(at_ms) };
        let job = store.add_job(JobId("j".to_owned()), edit(10), 5).await.unwrap();
        let epoch = store.take_lease(1).await.unwrap();
        let claim = |run: &str, revision, at_ms| {
            let cause = Cause::Due { at_ms, next: next(20) };
            let (job, run_id) = (job.id.clone(), RunId(run.to_owned()));
            store.claim_run(epoch, RunClaim { job, revision, cause, run_id, now_ms: 10 })
        };
        claim("r1", 1, 10).await.unwrap();
        let r1 = RunId("r1".to_owned());
        let ok = RunOutcome::of(Status::Ok);
        store.finish_run(r1.clone(), 1, ok.clone(), Afterwards::Keep, 12).await.unwrap();
        let twice = store.finish_run(r1, 1, ok, Afterwards::Keep, 12).await.unwrap_err();
        assert!(matches!(twice, FinishFailed::NotRunning { .. }));
        let claimed = claim("r2", 1, 10).await.unwrap_err();
        assert!(matches!(claimed, ClaimFailed::Changed { .. }), "that instant has run");
        store.edit_job(job.id.clone(), 1, edit(20), 13).await.unwrap();
        let edited = claim("r2", 1, 20).await.unwrap_err();
        assert!(matches!(edited, ClaimFailed::Changed { .. }), "that was before the edit");
        claim("r2", 2, 20).await.unwrap();
        store.remove_job(job.id.clone()).await.unwrap();
        let removed = claim("r3", 2, 20).await.unwrap_err();
        assert!(matches!(removed, ClaimFailed::Changed { .. }), "it is gone");
    }
}
