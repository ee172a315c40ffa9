//! What clients may do with jobs. Every generation may, whether it holds the writer lease or not: whoever holds
//! it reads what they did.
//!
//! **Invariants**
//! - What is answered is on disk.
//! - Two who change a job at once both succeed or one is told; neither undoes the other's change.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::clock::Clock;
use super::driver::{Nudge, Tell};
use super::events::Event;
use super::job::view;
use super::lookup::{self, JobFilter};
use super::request::{Checked, Invalid, check_new, check_patch};
use super::schedule::Timetable;
use crate::state::store::cron_jobs::{
    Edit, EditFailed, JobId, NextRun, RequestFailed, RunId, StoredJob, Which,
};
use crate::state::store::run_list::RunFilter;
use crate::state::store::{Store, StoreFailed};

/// How often a change is tried that somebody else's change came before.
const TRIES: usize = 5;

/// A single instant may lie so far back when it is asked for.
const PASSED_MS: i64 = 60_000;

/// The jobs, for clients.
pub(crate) struct Jobs<C> {
    store: Store,
    clock: Arc<C>,
    tell: Tell,
    nudge: Nudge,
}

impl<C> fmt::Debug for Jobs<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Why a job was not made or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeFailed {
    /// It would be no job.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is none, or it changes all the time.
    #[error(transparent)]
    Edit(#[from] EditFailed),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

/// When a run that was asked for begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// At once.
    Force,
    /// Only if it is due.
    Due,
}

/// What came of asking for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It begins as soon as it can.
    Enqueued(RunId),
    /// It is not due.
    NotDue,
    /// It runs already, or will.
    Running,
}

/// How the schedule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How many jobs there are.
    pub(crate) jobs: usize,
    /// When the next one is due.
    pub(crate) next_wake_at_ms: Option<i64>,
}

impl<C: Clock> Jobs<C> {
    /// `nudge` wakes the driver, wherever it is.
    pub(crate) fn new(store: Store, clock: Arc<C>, tell: Tell, nudge: Nudge) -> Self {
        Self { store, clock, tell, nudge }
    }

    /// Makes a job of the parameters of `cron.add`, and shows it.
    ///
    /// # Errors
    /// [`ChangeFailed`]
    pub(crate) async fn add(&self, params: &Value) -> Result<Value, ChangeFailed> {
        let now_ms = self.clock.now().wall_ms;
        let checked = check_new(params, now_ms)?;
        let id = Uuid::new_v4().to_string();
        let edit = edit(checked, &id, now_ms, now_ms)?;
        let job = self.store.add_job(JobId(id), edit, now_ms).await?;
        (self.nudge)();
        (self.tell)(Event::Added(job.clone()));
        Ok(view(&job))
    }

    /// Changes a job as the patch of `cron.update` says, and shows it.
    ///
    /// # Errors
    /// [`ChangeFailed`]
    pub(crate) async fn update(&self, id: &JobId, patch: &Value) -> Result<Value, ChangeFailed> {
        let mut tried = 0;
        loop {
            let kept = self.store.job(id.clone()).await?;
            let Some(kept) = kept else {
                return Err(EditFailed::NoJob { id: id.clone() }.into());
            };
            tried += 1;
            match self.replace(&kept, patch).await {
                Err(ChangeFailed::Edit(EditFailed::Changed { .. })) if tried < TRIES => {}
                Ok(job) => {
                    (self.nudge)();
                    (self.tell)(Event::Updated(job.clone()));
                    return Ok(view(&job));
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    async fn replace(&self, kept: &StoredJob, patch: &Value) -> Result<StoredJob, ChangeFailed> {
        let now_ms = self.clock.now().wall_ms;
        let json: Map<String, Value> = serde_json::from_str(&kept.definition)
            .map_err(|reason| Invalid::Incomplete { reason })?;
        let rescheduled = patch.get("schedule").is_some();
        let checked = check_patch(json, kept.enabled, patch, now_ms)?;
        let goes_on = checked.enabled && kept.enabled && !rescheduled;
        let mut edit = edit(checked, &kept.id.0, kept.created_at_ms, now_ms)?;
        if goes_on {
            edit.next = kept.next;
        }
        Ok(self.store.edit_job(kept.id.clone(), kept.revision, edit, now_ms).await?)
    }

    /// Forgets a job. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn remove(&self, id: &JobId) -> Result<bool, StoreFailed> {
        let removed = self.store.remove_job(id.clone()).await?;
        let existed = removed.is_some();
        if let Some(job) = removed {
            (self.nudge)();
            (self.tell)(Event::Removed(job));
        }
        Ok(existed)
    }

    /// Shows one job.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn one(&self, id: &JobId) -> Result<Option<Value>, StoreFailed> {
        Ok(self.store.job(id.clone()).await?.as_ref().map(view))
    }

    /// A page of jobs, as `cron.list` answers, without the previews of deliveries.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn list(
        &self,
        filter: &JobFilter,
        default_agent: &str,
    ) -> Result<Value, StoreFailed> {
        let jobs = self.store.jobs(Which::All).await?;
        Ok(lookup::job_page(jobs, filter, default_agent))
    }

    /// A page of runs, as `cron.runs` answers.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn runs(&self, filter: RunFilter) -> Result<Value, StoreFailed> {
        Ok(lookup::run_page(&self.store.runs(filter).await?))
    }

    /// How the schedule stands.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn standing(&self) -> Result<Standing, StoreFailed> {
        let jobs = self.store.jobs(Which::All).await?;
        let next = jobs.iter().filter(|job| job.enabled).filter_map(|job| job.next);
        Ok(Standing { jobs: jobs.len(), next_wake_at_ms: next.map(|next| next.at_ms).min() })
    }

    /// Asks for a run.
    ///
    /// # Errors
    /// [`RequestFailed`]; never [`RequestFailed::Running`].
    pub(crate) async fn request(&self, id: &JobId, mode: Mode) -> Result<Asked, RequestFailed> {
        let now_ms = self.clock.now().wall_ms;
        if mode == Mode::Due {
            let Some(job) = self.store.job(id.clone()).await? else {
                return Err(RequestFailed::NoJob { id: id.clone() });
            };
            if !job.enabled || job.next.is_none_or(|next| next.at_ms > now_ms) {
                return Ok(Asked::NotDue);
            }
        }
        let run = RunId(Uuid::new_v4().to_string());
        match self.store.request_run(id.clone(), run.clone()).await {
            Ok(()) => {
                (self.nudge)();
                Ok(Asked::Enqueued(run))
            }
            Err(RequestFailed::Running { .. }) => Ok(Asked::Running),
            Err(failed) => Err(failed),
        }
    }
}

/// What to keep of a job, and when it runs next.
fn edit(checked: Checked, id: &str, created_at_ms: i64, now_ms: i64) -> Result<Edit, ChangeFailed> {
    let timetable =
        checked.definition.schedule.timetable(id, created_at_ms).map_err(Invalid::from)?;
    let first = match &timetable {
        // One that has passed does not run because somebody enabled it.
        Timetable::Once { at_ms } if now_ms - at_ms > PASSED_MS => None,
        _ => timetable.first(now_ms),
    };
    let next = first.filter(|_| checked.enabled).map(|at_ms| NextRun { at_ms, set_at_ms: now_ms });
    let definition = Value::Object(checked.json).to_string();
    Ok(Edit { definition, enabled: checked.enabled, next })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::super::clock::SetClock;
    use super::super::lookup::SortBy;
    use super::*;
    use crate::state::store::shared::Shared;

    const NOW: i64 = 1_795_225_770_056;

    struct Rig {
        _shared: Shared,
        clock: Arc<SetClock>,
        jobs: Jobs<SetClock>,
        told: Arc<Mutex<Vec<Value>>>,
    }

    async fn rig() -> Rig {
        let shared = Shared::new();
        let clock = Arc::new(SetClock::at(NOW));
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let tell: Tell = Arc::new(move |event| tell.lock().unwrap().push(event.payload()));
        let store = shared.open("g1").await;
        let jobs = Jobs::new(store, Arc::clone(&clock), tell, Arc::new(|| {}));
        Rig { _shared: shared, clock, jobs, told }
    }

    fn hourly(name: &str) -> Value {
        json!({"name": name, "enabled": true, "schedule": {"kind": "every", "everyMs": 3600000},
            "sessionTarget": "isolated", "wakeMode": "now",
            "payload": {"kind": "agentTurn", "message": "hi"}})
    }

    fn id(job: &Value) -> JobId {
        JobId(job["id"].as_str().unwrap().to_owned())
    }

    /// The frames of a recorded session, with the id and the times put in.
    #[tokio::test]
    async fn a_job_is_made_changed_and_removed_in_the_shapes_clients_know() {
        let rig = rig().await;
        let job = rig.jobs.add(&hourly("t1")).await.unwrap();
        let recorded = json!({
            "id": job["id"], "name": "t1", "enabled": true, "createdAtMs": NOW, "updatedAtMs": NOW,
            "schedule": {"kind": "every", "everyMs": 3600000, "anchorMs": NOW},
            "sessionTarget": "isolated", "wakeMode": "now",
            "payload": {"kind": "agentTurn", "message": "hi"}, "delivery": {"mode": "announce"},
            "state": {"nextRunAtMs": NOW + 3_600_000},
        });
        assert_eq!(job, recorded);
        let list = rig.jobs.list(&JobFilter::default(), "main").await.unwrap();
        assert_eq!(
            list,
            json!({"jobs": [recorded], "total": 1, "offset": 0, "limit": 1, "hasMore": false,
                "nextOffset": null})
        );
        let standing = rig.jobs.standing().await.unwrap();
        assert_eq!(standing, Standing { jobs: 1, next_wake_at_ms: Some(NOW + 3_600_000) });
        assert_eq!(rig.jobs.one(&id(&job)).await.unwrap().as_ref(), Some(&recorded));

        rig.clock.pass(42);
        let changed = rig.jobs.update(&id(&job), &json!({"enabled": false})).await.unwrap();
        assert_eq!(
            (&changed["enabled"], &changed["updatedAtMs"], &changed["state"]),
            (&json!(false), &json!(NOW + 42), &json!({}))
        );
        assert!(rig.jobs.remove(&id(&job)).await.unwrap());
        assert!(!rig.jobs.remove(&id(&job)).await.unwrap());
        let told = rig.told.lock().unwrap();
        let added = json!({"jobId": job["id"], "action": "added", "job": recorded,
            "nextRunAtMs": NOW + 3_600_000});
        assert_eq!(told[0], added);
        let updated = json!({"jobId": job["id"], "action": "updated", "job": changed});
        assert_eq!(told[1], updated);
        let removed = json!({"jobId": job["id"], "action": "removed", "job": changed});
        assert_eq!(told[2], removed);
    }

    #[tokio::test]
    async fn an_empty_list_says_how_many_it_could_hold() {
        let rig = rig().await;
        let empty = json!({"jobs": [], "total": 0, "offset": 0, "limit": 50, "hasMore": false,
            "nextOffset": null});
        assert_eq!(rig.jobs.list(&JobFilter::default(), "main").await.unwrap(), empty);
        let runs = json!({"entries": [], "total": 0, "offset": 0, "limit": 50, "hasMore": false,
            "nextOffset": null});
        assert_eq!(rig.jobs.runs(RunFilter::default()).await.unwrap(), runs);
    }

    #[tokio::test]
    async fn lists_are_filtered_sorted_and_cut() {
        let rig = rig().await;
        for (name, agent, every) in
            [("Beta", "main", 3), ("alpha", "other", 1), ("gamma", "main", 2)]
        {
            let mut job = hourly(name);
            job["agentId"] = json!(agent);
            job["schedule"]["everyMs"] = json!(every * 1000);
            job["enabled"] = json!(name != "gamma");
            rig.jobs.add(&job).await.unwrap();
        }
        let names = |filter: JobFilter| {
            let jobs = &rig.jobs;
            async move {
                let page = jobs.list(&filter, "main").await.unwrap();
                let names = page["jobs"].as_array().unwrap().iter();
                let names: Vec<_> =
                    names.map(|job| job["name"].as_str().unwrap().to_owned()).collect();
                (names.join(" "), page["nextOffset"].clone())
            }
        };
        let filter = JobFilter::default;
        assert_eq!(names(filter()).await.0, "alpha Beta gamma");
        let by_name = JobFilter { sort_by: SortBy::Name, descending: true, ..filter() };
        assert_eq!(names(by_name).await.0, "gamma Beta alpha");
        let by_update = JobFilter { sort_by: SortBy::Updated, limit: Some(3), ..filter() };
        assert_eq!(names(by_update).await.0.len(), "alpha Beta gamma".len());
        assert_eq!(names(JobFilter { enabled: Some(true), ..filter() }).await.0, "alpha Beta");
        let of_main = JobFilter { agent_id: Some("main".to_owned()), ..filter() };
        assert_eq!(names(of_main).await.0, "Beta gamma");
        assert_eq!(names(JobFilter { query: Some("BET".to_owned()), ..filter() }).await.0, "Beta");
        let page = JobFilter { offset: 1, limit: Some(1), ..filter() };
        assert_eq!(names(page).await, ("Beta".to_owned(), json!(2)));
    }

    #[tokio::test]
    async fn a_run_can_be_asked_for_once_at_a_time() {
        let rig = rig().await;
        let job = id(&rig.jobs.add(&hourly("t1")).await.unwrap());
        assert_eq!(rig.jobs.request(&job, Mode::Due).await.unwrap(), Asked::NotDue);
        assert!(matches!(rig.jobs.request(&job, Mode::Force).await.unwrap(), Asked::Enqueued(_)));
        assert_eq!(rig.jobs.request(&job, Mode::Force).await.unwrap(), Asked::Running);
        let nobody = JobId("x".to_owned());
        let refused = rig.jobs.request(&nobody, Mode::Force).await.unwrap_err();
        assert_eq!(refused.to_string(), "cron job not found: x");
    }

    #[tokio::test]
    async fn an_instant_that_has_passed_does_not_run_because_its_job_was_enabled() {
        let rig = rig().await;
        let mut job = hourly("once");
        job["schedule"] = json!({"kind": "at", "at": "2026-11-21T12:00:00Z"});
        job["enabled"] = json!(false);
        let job = id(&rig.jobs.add(&job).await.unwrap());
        rig.clock.pass(24 * 3_600_000);
        let enabled = rig.jobs.update(&job, &json!({"enabled": true})).await.unwrap();
        assert_eq!((&enabled["enabled"], &enabled["state"]), (&json!(true), &json!({})));
    }

    #[tokio::test]
    async fn changes_that_meet_are_both_kept() {
        let rig = rig().await;
        let job = id(&rig.jobs.add(&hourly("t1")).await.unwrap());
        let (name, text) = (json!({"name": "t2"}), json!({"description": "d"}));
        let (a, b) = tokio::join!(rig.jobs.update(&job, &name), rig.jobs.update(&job, &text));
        a.unwrap();
        b.unwrap();
        let both = rig.jobs.one(&job).await.unwrap().unwrap();
        assert_eq!((&both["name"], &both["description"]), (&json!("t2"), &json!("d")));
    }
}
