//! `cron.*`: scheduled jobs, looked up and changed. Every generation answers; the one with the writer lease runs them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Call, Knowledge, Refusal};
use crate::agents::DEFAULT_AGENT;
use crate::cron::jobs::{Asked, ChangeFailed, Mode, Standing};
use crate::cron::lookup::{JobFilter, SortBy};
use crate::shape::{Field, Shape};
use crate::state::store::cron_jobs::{EditFailed, JobId, RequestFailed};
use crate::state::store::cron_runs::Status;
use crate::state::store::run_list::RunFilter;
use crate::state::store::{FILE, StoreFailed};

const DIRECTION: Shape = Shape::OneOf(&["asc", "desc"]);
const STATUS: Shape = Shape::OneOf(&["ok", "error", "skipped"]);

pub(super) static LIST_PARAMS: Shape = Shape::Object(&[
    Field::optional("includeDisabled", Shape::Flag),
    Field::optional("enabled", Shape::OneOf(&["all", "enabled", "disabled"])),
    Field::optional("agentId", Shape::Text),
    Field::optional("query", Shape::AnyText),
    Field::optional("sortBy", Shape::OneOf(&["nextRunAtMs", "updatedAtMs", "name"])),
    Field::optional("sortDir", DIRECTION),
    Field::optional("offset", Shape::Integer { least: 0 }),
    Field::optional("limit", Shape::Integer { least: 1 }),
]);
pub(super) static STATUS_PARAMS: Shape = Shape::Object(&[]);
pub(super) static ID_PARAMS: Shape = Shape::Object(&[ID, JOB_ID]);
pub(super) static UPDATE_PARAMS: Shape = Shape::Object(&[
    ID,
    JOB_ID,
    // What it may change is said by the jobs themselves.
    Field::required("patch", Shape::Map(&Shape::Anything)),
]);
pub(super) static RUN_PARAMS: Shape =
    Shape::Object(&[ID, JOB_ID, Field::optional("mode", Shape::OneOf(&["due", "force"]))]);
pub(super) static RUNS_PARAMS: Shape = Shape::Object(&[
    ID,
    JOB_ID,
    Field::optional("scope", Shape::OneOf(&["job", "all"])),
    Field::optional("status", Shape::OneOf(&["all", "ok", "error", "skipped"])),
    Field::optional("statuses", Shape::List(&STATUS)),
    Field::optional("query", Shape::AnyText),
    Field::optional("sortDir", DIRECTION),
    Field::optional("offset", Shape::Integer { least: 0 }),
    Field::optional("limit", Shape::Integer { least: 1 }),
]);

const ID: Field = Field::optional("id", Shape::Text);
const JOB_ID: Field = Field::optional("jobId", Shape::Text);

/// Which job: clients know two names for it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    id: Option<String>,
    job_id: Option<String>,
}

impl Named {
    fn job(call: &Call) -> Result<Option<JobId>, Refusal> {
        let Self { id, job_id } = call.read()?;
        Ok(id.or(job_id).map(JobId))
    }

    fn one(call: &Call, method: &str) -> Result<JobId, Refusal> {
        Self::job(call)?.ok_or_else(|| invalid(method, &"missing id"))
    }
}

pub(super) async fn add(knowledge: Arc<Knowledge>, call: Call) {
    let added = knowledge.jobs.add(&call.params).await;
    call.reply.outcome(added.map_err(|failed| not_changed("cron.add", &failed)));
}

pub(super) async fn get(knowledge: Arc<Knowledge>, call: Call) {
    let found = async {
        let id = Named::one(&call, "cron.get")?;
        let job = knowledge.jobs.one(&id).await.map_err(|failed| unavailable(&failed))?;
        job.ok_or_else(|| Refusal::invalid(EditFailed::NoJob { id }.to_string()))
    };
    let found = found.await;
    call.reply.outcome(found);
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct List {
    include_disabled: bool,
    enabled: Option<String>,
    agent_id: Option<String>,
    query: Option<String>,
    sort_by: Option<String>,
    sort_dir: Option<String>,
    offset: usize,
    limit: Option<usize>,
}

impl List {
    fn filter(self) -> JobFilter {
        let enabled = match self.enabled.as_deref() {
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            Some(_) => None,
            None => (!self.include_disabled).then_some(true),
        };
        let sort_by = match self.sort_by.as_deref() {
            Some("updatedAtMs") => SortBy::Updated,
            Some("name") => SortBy::Name,
            _ => SortBy::NextRun,
        };
        JobFilter {
            enabled,
            agent_id: self.agent_id,
            query: self.query.filter(|query| !query.is_empty()),
            sort_by,
            descending: self.sort_dir.as_deref() == Some("desc"),
            offset: self.offset,
            limit: self.limit,
        }
    }
}

pub(super) async fn list(knowledge: Arc<Knowledge>, call: Call) {
    let listed = async {
        let filter = call.read::<List>()?.filter();
        let page = knowledge.jobs.list(&filter, DEFAULT_AGENT).await;
        let mut page = page.map_err(|failed| unavailable(&failed))?;
        page["deliveryPreviews"] = previews(&page);
        Ok(page)
    };
    let listed = listed.await;
    call.reply.outcome(listed);
}

/// Where the answers of these jobs go.
fn previews(page: &Value) -> Value {
    let jobs = page["jobs"].as_array().map_or(&[][..], Vec::as_slice);
    let preview = |job: &Value| Some((job["id"].as_str()?.to_owned(), preview(&job["delivery"])));
    Value::Object(jobs.iter().filter_map(preview).collect::<Map<_, _>>())
}

fn preview(delivery: &Value) -> Value {
    let to = delivery["to"].as_str();
    let label = match delivery["mode"].as_str() {
        None | Some("none") => {
            return json!({"label": "not requested", "detail": "not requested"});
        }
        Some("webhook") => format!("webhook -> {}", to.unwrap_or_default()),
        Some(mode) => {
            let channel = delivery["channel"].as_str().unwrap_or("last");
            let to = to.map(|to| format!(":{to}")).unwrap_or_default();
            format!("{mode} -> {channel}{to}")
        }
    };
    json!({"label": label, "detail": "nothing is delivered by this gateway; answers are kept with the runs"})
}

pub(super) async fn remove(knowledge: Arc<Knowledge>, call: Call) {
    let removed = async {
        let id = Named::one(&call, "cron.remove")?;
        let removed = knowledge.jobs.remove(&id).await.map_err(|failed| unavailable(&failed))?;
        Ok(json!({"ok": true, "removed": removed}))
    };
    let removed = removed.await;
    call.reply.outcome(removed);
}

#[derive(Deserialize)]
struct Run {
    mode: Option<String>,
}

/// Answers as soon as the run is asked for; its end is told by events.
pub(super) async fn run(knowledge: Arc<Knowledge>, call: Call) {
    let asked = async {
        let id = Named::one(&call, "cron.run")?;
        let mode = match call.read::<Run>()?.mode.as_deref() {
            Some("due") => Mode::Due,
            _ => Mode::Force,
        };
        let not_run = |reason: &str| json!({"ok": true, "ran": false, "reason": reason});
        match knowledge.jobs.request(&id, mode).await {
            Ok(Asked::Enqueued(run)) => Ok(json!({"ok": true, "enqueued": true, "runId": run.0})),
            Ok(Asked::NotDue) => Ok(not_run("not-due")),
            Ok(Asked::Running) | Err(RequestFailed::Running { .. }) => {
                Ok(not_run("already-running"))
            }
            Err(none @ RequestFailed::NoJob { .. }) => Err(Refusal::invalid(none.to_string())),
            Err(RequestFailed::Store(failed)) => Err(unavailable(&failed)),
        }
    };
    let asked = asked.await;
    call.reply.outcome(asked);
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Runs {
    scope: Option<String>,
    status: Option<String>,
    statuses: Vec<String>,
    query: Option<String>,
    sort_dir: Option<String>,
    offset: u32,
    limit: Option<u32>,
}

pub(super) async fn runs(knowledge: Arc<Knowledge>, call: Call) {
    let listed = async {
        let asked: Runs = call.read()?;
        let job = match asked.scope.as_deref() {
            Some("all") => None,
            Some(_) => Some(Named::one(&call, "cron.runs")?),
            None => Named::job(&call)?,
        };
        let filter = RunFilter {
            job,
            // The shape has let no others pass but `all`, which is none of them.
            statuses: asked.statuses.iter().chain(&asked.status).filter_map(status).collect(),
            query: asked.query.filter(|query| !query.is_empty()),
            oldest_first: asked.sort_dir.as_deref() == Some("asc"),
            offset: asked.offset,
            limit: asked.limit,
        };
        knowledge.jobs.runs(filter).await.map_err(|failed| unavailable(&failed))
    };
    let listed = listed.await;
    call.reply.outcome(listed);
}

fn status(word: &String) -> Option<Status> {
    [Status::Ok, Status::Error, Status::Skipped].into_iter().find(|status| status.as_str() == word)
}

pub(super) async fn standing(knowledge: Arc<Knowledge>, call: Call) {
    let standing = knowledge.jobs.standing().await.map(|Standing { jobs, next_wake_at_ms }| {
        json!({
            "enabled": true, "storePath": knowledge.state_dir.join(FILE), "jobs": jobs,
            "nextWakeAtMs": next_wake_at_ms,
        })
    });
    call.reply.outcome(standing.map_err(|failed| unavailable(&failed)));
}

pub(super) async fn update(knowledge: Arc<Knowledge>, call: Call) {
    let updated = async {
        let id = Named::one(&call, "cron.update")?;
        let updated = knowledge.jobs.update(&id, &call.params["patch"]).await;
        updated.map_err(|failed| not_changed("cron.update", &failed))
    };
    let updated = updated.await;
    call.reply.outcome(updated);
}

fn invalid(method: &str, what: &dyn std::fmt::Display) -> Refusal {
    Refusal::invalid(format!("invalid {method} params: {what}"))
}

fn not_changed(method: &str, failed: &ChangeFailed) -> Refusal {
    match failed {
        ChangeFailed::Invalid(what) => invalid(method, what),
        ChangeFailed::Edit(EditFailed::NoJob { .. }) => Refusal::invalid(failed.to_string()),
        ChangeFailed::Edit(EditFailed::Changed { .. }) => Refusal::unavailable(failed.to_string()),
        ChangeFailed::Edit(EditFailed::Store(failed)) | ChangeFailed::Store(failed) => {
            unavailable(failed)
        }
    }
}

fn unavailable(failed: &StoreFailed) -> Refusal {
    Refusal::unavailable(handoff::chain(failed))
}
