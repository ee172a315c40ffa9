//! Runs that have ended, as clients look them up.

use rusqlite::{Connection, Row};

use super::cron_jobs::{JobId, RunId};
use super::cron_runs::{RunOutcome, Status};
use super::{Store, StoreFailed};

/// As many runs as a page holds unless told otherwise.
const LIMIT: u32 = 50;
/// As many as it holds at most.
const MOST: u32 = 200;

/// A finished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FinishedRun {
    /// Which.
    pub(crate) run_id: RunId,
    /// Whose.
    pub(crate) job_id: JobId,
    /// When it was to run; `None` when somebody had asked for it.
    pub(crate) due_at_ms: Option<i64>,
    /// When it began.
    pub(crate) started_at_ms: i64,
    /// When it ended.
    pub(crate) finished_at_ms: i64,
    /// When its job was to run next, as it was known then.
    pub(crate) next_run_at_ms: Option<i64>,
    /// What came of it.
    pub(crate) outcome: RunOutcome,
}

/// Which runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunFilter {
    /// Only this job's.
    pub(crate) job: Option<JobId>,
    /// Only those that ended in one of these ways; all when empty.
    pub(crate) statuses: Vec<Status>,
    /// Only those with this in what they said or in their error.
    pub(crate) query: Option<String>,
    /// The latest one last.
    pub(crate) oldest_first: bool,
    /// Skip so many.
    pub(crate) offset: u32,
    /// At most so many.
    pub(crate) limit: Option<u32>,
}

/// A part of the list of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunPage {
    /// The runs, the latest first unless asked otherwise.
    pub(crate) runs: Vec<FinishedRun>,
    /// How many there are in all.
    pub(crate) total: u64,
    /// How many were skipped.
    pub(crate) offset: u32,
    /// The limit that was applied.
    pub(crate) limit: u32,
}

impl Store {
    /// Finished runs.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn runs(&self, filter: RunFilter) -> Result<RunPage, StoreFailed> {
        self.read("list runs", move |connection| page(connection, &filter)).await
    }
}

fn page(connection: &Connection, filter: &RunFilter) -> rusqlite::Result<RunPage> {
    const WHERE: &str = "FROM cron_runs WHERE finished_at_ms IS NOT NULL \
         AND (?1 IS NULL OR job_id = ?1) AND (?2 = '' OR instr(?2, status) > 0) \
         AND (?3 IS NULL OR instr(lower(coalesce(summary, '') || ' ' || coalesce(error, '')), lower(?3)) > 0)";
    // No word is part of another one.
    let statuses: String = filter.statuses.iter().map(|status| status.as_str()).collect();
    let limit = filter.limit.unwrap_or(LIMIT).clamp(1, MOST);
    let total: i64 = connection
        .prepare_cached(&format!("SELECT count(*) {WHERE}"))?
        .query_row((&filter.job, &statuses, &filter.query), |row| row.get(0))?;
    let direction = if filter.oldest_first { "ASC" } else { "DESC" };
    let runs = connection
        .prepare_cached(&format!(
            "SELECT run_id, job_id, due_at_ms, started_at_ms, finished_at_ms, next_run_at_ms, status, error, \
                 summary, session_id, session_key, model, provider \
             {WHERE} ORDER BY finished_at_ms {direction}, rowid {direction} LIMIT ?4 OFFSET ?5"
        ))?
        .query_map((&filter.job, &statuses, &filter.query, limit, filter.offset), from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(RunPage { runs, total: u64::try_from(total).unwrap_or(0), offset: filter.offset, limit })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<FinishedRun> {
    Ok(FinishedRun {
        run_id: row.get(0)?,
        job_id: row.get(1)?,
        due_at_ms: row.get(2)?,
        started_at_ms: row.get(3)?,
        finished_at_ms: row.get(4)?,
        next_run_at_ms: row.get(5)?,
        outcome: RunOutcome {
            status: row.get(6)?,
            error: row.get(7)?,
            summary: row.get(8)?,
            session_id: row.get(9)?,
            session_key: row.get(10)?,
            model: row.get(11)?,
            provider: row.get(12)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::cron_afterwards::Afterwards;
    use super::super::cron_jobs::Edit;
    use super::super::cron_runs::{Cause, RunClaim};
    use super::super::shared::Shared;
    use super::*;

    async fn run(store: &Store, n: i64, outcome: RunOutcome) {
        let epoch = store.take_lease(1).await.unwrap();
        let (job, run_id) = (JobId(format!("j{}", n % 2)), RunId(format!("r{n}")));
        if store.job(job.clone()).await.unwrap().is_none() {
            let edit = Edit { definition: "{}".to_owned(), enabled: false, next: None };
            store.add_job(job.clone(), edit, 0).await.unwrap();
        }
        store.request_run(job.clone(), run_id.clone()).await.unwrap();
        let cause = Cause::Requested;
        let claim = RunClaim { job, revision: 1, cause, run_id: run_id.clone(), now_ms: n };
        store.claim_run(epoch, claim).await.unwrap();
        store.finish_run(run_id, 1, outcome, Afterwards::Keep, n + 1).await.unwrap();
    }

    #[tokio::test]
    async fn runs_are_listed_the_latest_first_filtered_and_cut() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        let said = |text: &str| RunOutcome {
            summary: Some(text.to_owned()),
            ..RunOutcome::of(Status::Ok)
        };
        run(&store, 1, said("Good morning")).await;
        run(&store, 2, RunOutcome::failed("no MORNING paper")).await;
        run(&store, 3, RunOutcome::of(Status::Skipped)).await;
        run(&store, 4, said("good night")).await;
        let list = |filter: RunFilter| {
            let store = &store;
            async move {
                let page = store.runs(filter).await.unwrap();
                let ids: Vec<_> = page.runs.into_iter().map(|run| run.run_id.0).collect();
                (ids.join(" "), page.total, page.limit)
            }
        };
        let filter = RunFilter::default;
        assert_eq!(list(filter()).await, ("r4 r3 r2 r1".to_owned(), 4, 50));
        let oldest = RunFilter { oldest_first: true, offset: 1, limit: Some(2), ..filter() };
        assert_eq!(list(oldest).await, ("r2 r3".to_owned(), 4, 2));
        let of_one = RunFilter { job: Some(JobId("j1".to_owned())), ..filter() };
        assert_eq!(list(of_one).await.0, "r3 r1");
        let bad = RunFilter { statuses: vec![Status::Error, Status::Skipped], ..filter() };
        assert_eq!(list(bad).await.0, "r3 r2");
        let query = RunFilter { query: Some("morning".to_owned()), ..filter() };
        assert_eq!(list(query).await.0, "r2 r1");
        assert_eq!(list(RunFilter { limit: Some(9999), ..filter() }).await.2, MOST);
    }
}
