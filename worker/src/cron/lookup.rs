//! What clients look up: pages of jobs and of runs, in the shapes they know.

use serde_json::{Value, json};

use super::job::{Definition, sparse, view};
use crate::state::store::cron_jobs::StoredJob;
use crate::state::store::run_list::{FinishedRun, RunPage};

/// As many jobs as a page holds at most.
const MOST: usize = 200;
/// As many as an empty page says it could hold.
const EMPTY: usize = 50;

/// Which jobs, and in which order.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobFilter {
    /// Only those that run by themselves, or only those that do not; both when `None`.
    pub(crate) enabled: Option<bool>,
    /// Only this agent's. Jobs that name none are the default agent's.
    pub(crate) agent_id: Option<String>,
    /// Only those with this in their name, description or agent.
    pub(crate) query: Option<String>,
    /// By what.
    pub(crate) sort_by: SortBy,
    /// From the greatest to the least.
    pub(crate) descending: bool,
    /// Skip so many.
    pub(crate) offset: usize,
    /// At most so many.
    pub(crate) limit: Option<usize>,
}

/// What jobs are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SortBy {
    /// When they run next; those that do not come last.
    #[default]
    NextRun,
    /// When they were last changed.
    Updated,
    /// Their name.
    Name,
}

/// A page of jobs, as `cron.list` answers, without the previews of deliveries.
pub(super) fn job_page(jobs: Vec<StoredJob>, filter: &JobFilter, default_agent: &str) -> Value {
    let mut found: Vec<(Option<Definition>, StoredJob)> = jobs
        .into_iter()
        .map(|job| (serde_json::from_str(&job.definition).ok(), job))
        .filter(|(definition, job)| passes(definition.as_ref(), job, filter, default_agent))
        .collect();
    let name = |definition: &Option<Definition>| {
        definition.as_ref().map_or_else(String::new, |d| d.name.to_lowercase())
    };
    found.sort_by(|(a, x), (b, y)| {
        let order = match filter.sort_by {
            SortBy::NextRun => {
                let next = |job: &StoredJob| job.next.map_or(i64::MAX, |next| next.at_ms);
                next(x).cmp(&next(y))
            }
            SortBy::Updated => x.updated_at_ms.cmp(&y.updated_at_ms),
            SortBy::Name => name(a).cmp(&name(b)),
        };
        let order = if filter.descending { order.reverse() } else { order };
        order.then_with(|| x.id.cmp(&y.id))
    });
    let total = found.len();
    let offset = filter.offset.min(total);
    let default_limit = if total == 0 { EMPTY } else { total };
    let limit = filter.limit.unwrap_or(default_limit).clamp(1, MOST);
    let jobs: Vec<Value> =
        found.iter().skip(offset).take(limit).map(|(_, job)| view(job)).collect();
    let next = offset + jobs.len();
    json!({
        "jobs": jobs, "total": total, "offset": offset, "limit": limit,
        "hasMore": next < total, "nextOffset": (next < total).then_some(next),
    })
}

fn passes(
    definition: Option<&Definition>,
    job: &StoredJob,
    filter: &JobFilter,
    default_agent: &str,
) -> bool {
    let agent = definition.and_then(|d| d.agent_id.as_deref());
    let matches = |query: &String| {
        let description = definition.and_then(|d| d.description.as_deref()).unwrap_or_default();
        let name = definition.map_or("", |d| d.name.as_str());
        let text = format!("{name} {description} {}", agent.unwrap_or_default());
        text.to_lowercase().contains(&query.to_lowercase())
    };
    filter.enabled.is_none_or(|enabled| enabled == job.enabled)
        && filter.agent_id.as_deref().is_none_or(|asked| asked == agent.unwrap_or(default_agent))
        && filter.query.as_ref().is_none_or(matches)
}

/// A page of runs, as `cron.runs` answers.
pub(super) fn run_page(page: &RunPage) -> Value {
    let entries: Vec<Value> = page.runs.iter().map(entry).collect();
    let next = u64::from(page.offset) + entries.len() as u64;
    let more = next < page.total;
    json!({
        "entries": entries, "total": page.total, "offset": page.offset, "limit": page.limit,
        "hasMore": more, "nextOffset": more.then_some(next),
    })
}

fn entry(run: &FinishedRun) -> Value {
    let outcome = &run.outcome;
    sparse(json!({
        "ts": run.finished_at_ms,
        "jobId": run.job_id.0,
        "action": "finished",
        "status": outcome.status.as_str(),
        "error": outcome.error,
        "summary": outcome.summary,
        "sessionId": outcome.session_id,
        "sessionKey": outcome.session_key,
        "model": outcome.model,
        "provider": outcome.provider,
        "runId": run.run_id.0,
        "dueAtMs": run.due_at_ms,
        "runAtMs": run.started_at_ms,
        "durationMs": run.finished_at_ms - run.started_at_ms,
        "nextRunAtMs": run.next_run_at_ms,
    }))
}
