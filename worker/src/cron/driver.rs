//! Begins what is due, while this generation holds the writer lease.
//!
//! ```text
//!   lease granted ─► take ─► give up runs of the dead ─┐
//!        ┌────────────────────────────────────────────┘
//!        ▼
//!   read jobs ─► plan ─► claim, begin ─► sleep ─┬─ lease changed, run ended, nudge, time ─┐
//!        ▲                                      └─────────────────────────────────────────┤
//!        └────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! **Invariants**
//! - Nothing begins without a claim, and no claim without the lease.
//! - When the lease goes, what runs is finished and recorded, and nothing else begins.
//! - Without jobs and without another generation that could make some, it sleeps until it is nudged.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::clock::{Clock, Now};
use super::events::Event;
use super::job::{Definition, Job};
use super::planner::{Due, Plan, Planner, RECHECK, Step, Why};
use super::retry::afterwards;
use crate::state::store::cron_afterwards::Afterwards;
use crate::state::store::cron_jobs::{JobId, NextRun, RescheduleFailed, RunId, StoredJob, Which};
use crate::state::store::cron_runs::{
    Cause, ClaimFailed, FinishFailed, RunClaim, RunOutcome, Status,
};
use crate::state::store::lease::{Epoch, TakeRefused};
use crate::state::store::{Store, StoreFailed};

/// Hears of everything that happens to jobs.
pub(crate) type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// Wakes whoever drives the schedule: jobs may have changed.
pub(crate) type Nudge = Arc<dyn Fn() + Send + Sync>;

/// How long it waits before it tries again what the database would not do.
const RETRY: Duration = Duration::from_secs(5);
/// How often a pass is repeated because of its own changes, before others get their turn.
const ROUNDS: usize = 8;

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Of which job.
    pub(crate) job: JobId,
    /// What it says.
    pub(crate) definition: Definition,
    /// The run's id, which is that of the agent's run too.
    pub(crate) run_id: RunId,
    /// When it was to run; `None` when somebody had asked for it.
    pub(crate) due_at_ms: Option<i64>,
}

/// Runs jobs.
pub(crate) struct Driver<C, R> {
    store: Store,
    clock: Arc<C>,
    run: Arc<R>,
    tell: Tell,
    at_once: usize,
    planner: Planner,
    tenure: Option<Tenure>,
    runs: JoinSet<()>,
    not_understood: HashSet<(JobId, i64)>,
}

#[derive(Clone, Copy)]
struct Tenure {
    grant: u64,
    epoch: Epoch,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("could not take the writer lease")]
    NotTaken(#[source] TakeRefused),
    #[error("the writer lease is lost")]
    Lost(#[source] crate::state::store::lease::StaleEpoch),
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

impl<C, R, F> Driver<C, R>
where
    C: Clock,
    R: Fn(Order) -> F + Send + Sync + 'static,
    F: Future<Output = RunOutcome> + Send + 'static,
{
    /// One that runs at most `at_once` jobs at a time, with `run`.
    pub(crate) fn new(store: Store, clock: Arc<C>, tell: Tell, at_once: usize, run: R) -> Self {
        Self {
            store,
            clock,
            run: Arc::new(run),
            tell,
            at_once: at_once.max(1),
            planner: Planner::default(),
            tenure: None,
            runs: JoinSet::new(),
            not_understood: HashSet::new(),
        }
    }

    /// Drives the schedule under the grants that come through `lease`, until its sender is gone and what
    /// runs has ended. `nudge` says that jobs may have changed.
    ///
    /// Not cancel-safe: dropped, it aborts what runs.
    pub(crate) async fn drive(
        mut self,
        mut lease: watch::Receiver<Option<u64>>,
        nudge: Arc<Notify>,
    ) {
        loop {
            lease.mark_unchanged();
            let sleep = self.pass(&lease).await;
            let slept = async {
                match sleep {
                    Some(sleep) => tokio::time::sleep(sleep).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = lease.changed() => if changed.is_err() { break },
                Some(ended) = self.runs.join_next() => note(ended),
                () = nudge.notified() => {}
                () = slept => {}
            }
        }
        self.finish().await;
    }

    /// Waits for what runs.
    pub(super) async fn finish(&mut self) {
        while let Some(ended) = self.runs.join_next().await {
            note(ended);
        }
    }

    /// Begins what is due. Says until when to sleep; `None` when only somebody else can change that.
    pub(super) async fn pass(&mut self, lease: &watch::Receiver<Option<u64>>) -> Option<Duration> {
        let Some(grant) = *lease.borrow() else {
            self.tenure = None;
            return None;
        };
        match self.rounds(grant, lease).await {
            Ok(sleep) => sleep,
            Err(interrupted) => {
                let reason = handoff::chain(&interrupted);
                match interrupted {
                    // Its holder is on its way out, or a newer grant is on its way here.
                    Interrupted::NotTaken(TakeRefused::Held { .. }) | Interrupted::Lost(_) => {
                        self.tenure = None;
                        debug!(reason = %reason, "the schedule is somebody else's");
                        Some(RECHECK)
                    }
                    Interrupted::NotTaken(TakeRefused::Store(_)) | Interrupted::Store(_) => {
                        warn!(reason = %reason, "the schedule waits");
                        Some(RETRY)
                    }
                }
            }
        }
    }

    async fn rounds(
        &mut self,
        grant: u64,
        lease: &watch::Receiver<Option<u64>>,
    ) -> Result<Option<Duration>, Interrupted> {
        let epoch = self.tenure(grant).await?;
        for _ in 0..ROUNDS {
            // In this order: what the others add before they are gone is read after that.
            let others = self.store.others_are_alive();
            let jobs = self.read(epoch).await?;
            let now = self.clock.now();
            let plan = self.planner.due(now, &jobs);
            let sleep = plan.sleep.or_else(|| others.then_some(RECHECK));
            if !self.perform(plan, &jobs, now, epoch, lease).await? {
                return Ok(sleep);
            }
        }
        Ok(Some(Duration::from_millis(100)))
    }

    async fn tenure(&mut self, grant: u64) -> Result<Epoch, Interrupted> {
        if let Some(tenure) = self.tenure
            && tenure.grant == grant
        {
            return Ok(tenure.epoch);
        }
        let epoch = self.store.take_lease(grant).await.map_err(Interrupted::NotTaken)?;
        info!(grant, "runs the schedule");
        self.give_up(epoch).await?;
        self.tenure = Some(Tenure { grant, epoch });
        Ok(epoch)
    }

    async fn give_up(&self, epoch: Epoch) -> Result<(), Interrupted> {
        match self.store.abandon_runs(epoch, self.clock.now().wall_ms).await {
            Ok(abandoned) => {
                for run in abandoned {
                    warn!(run = %run.0, "a run was interrupted by the end of its generation");
                }
                Ok(())
            }
            Err(ClaimFailed::Stale(stale)) => Err(Interrupted::Lost(stale)),
            Err(ClaimFailed::Store(failed)) => Err(failed.into()),
            Err(ClaimFailed::Changed { .. } | ClaimFailed::Running { .. }) => Ok(()),
        }
    }

    /// The jobs that this worker understands.
    async fn read(&mut self, epoch: Epoch) -> Result<Vec<Job>, Interrupted> {
        let ours = self.store.holder().as_str().to_owned();
        let theirs = |job: &StoredJob| job.running.as_ref().is_some_and(|run| run.holder != ours);
        let mut stored = self.store.jobs(Which::Scheduled).await?;
        if stored.iter().any(theirs) {
            // Whoever runs it may have died since.
            self.give_up(epoch).await?;
            stored = self.store.jobs(Which::Scheduled).await?;
        }
        let mut jobs = Vec::with_capacity(stored.len());
        for stored in stored {
            let edit = (stored.id.clone(), stored.revision);
            match Job::read(stored) {
                Ok(job) => jobs.push(job),
                Err(reason) => {
                    if self.not_understood.insert(edit.clone()) {
                        let reason = handoff::chain(&reason);
                        warn!(job = %edit.0.0, reason = %reason, "a job cannot be run by this worker");
                    }
                }
            }
        }
        Ok(jobs)
    }

    /// Does what the plan says. Says whether anything has changed by that.
    async fn perform(
        &mut self,
        plan: Plan,
        jobs: &[Job],
        now: Now,
        epoch: Epoch,
        lease: &watch::Receiver<Option<u64>>,
    ) -> Result<bool, Interrupted> {
        let mut changed = false;
        for (place, next) in plan.moved {
            changed |= self.reschedule(&jobs[place], next, epoch).await?;
        }
        for due in plan.due {
            if self.runs.len() >= self.at_once || *lease.borrow() != self.granted() {
                // The end of a run, or the change of the lease, begins another pass.
                return Ok(false);
            }
            changed |= self.begin(due, jobs, now, epoch).await?;
        }
        Ok(changed)
    }

    fn granted(&self) -> Option<u64> {
        self.tenure.map(|tenure| tenure.grant)
    }

    async fn reschedule(
        &self,
        job: &Job,
        next: Option<NextRun>,
        epoch: Epoch,
    ) -> Result<bool, Interrupted> {
        info!(job = %job.stored.id.0, "the clock was set; a job's next run was computed again");
        match self.store.reschedule_job(epoch, &job.stored, next).await {
            Ok(()) | Err(RescheduleFailed::Changed { .. }) => Ok(true),
            Err(RescheduleFailed::Stale(stale)) => Err(Interrupted::Lost(stale)),
            Err(RescheduleFailed::Store(failed)) => Err(failed.into()),
        }
    }

    async fn begin(
        &mut self,
        due: Due,
        jobs: &[Job],
        now: Now,
        epoch: Epoch,
    ) -> Result<bool, Interrupted> {
        let job = &jobs[due.job];
        let (run_id, due_at_ms, cause, step) = match due.why {
            Why::Requested(run_id) => (run_id, None, Cause::Requested, Step::Run),
            Why::Time { at_ms, next, step } => {
                let run_id = RunId(Uuid::new_v4().to_string());
                (run_id, Some(at_ms), Cause::Due { at_ms, next }, step)
            }
        };
        let claim = RunClaim {
            job: job.stored.id.clone(),
            revision: job.stored.revision,
            cause,
            run_id: run_id.clone(),
            now_ms: now.wall_ms,
        };
        let claimed = match step {
            Step::Run => self.store.claim_run(epoch, claim).await,
            Step::Skip => {
                let reason = "missed: nobody was there to run it in time";
                let skipped = RunOutcome::of(Status::Skipped);
                let afterwards = afterwards(job, &skipped, due_at_ms, now);
                self.store.skip_run(epoch, claim, reason, afterwards).await
            }
        };
        let stored = match claimed {
            Ok(stored) => stored,
            // It is read again in the next round.
            Err(ClaimFailed::Changed { .. } | ClaimFailed::Running { .. }) => return Ok(true),
            Err(ClaimFailed::Stale(stale)) => return Err(Interrupted::Lost(stale)),
            Err(ClaimFailed::Store(failed)) => return Err(failed.into()),
        };
        match step {
            Step::Run => self.spawn(Job { stored, ..job.clone() }, run_id, due_at_ms, now),
            Step::Skip => {
                let outcome = RunOutcome::of(Status::Skipped);
                let at_ms = now.wall_ms;
                let told = Event::Finished { job: stored, run_id, at_ms, duration_ms: 0, outcome };
                (self.tell)(told);
            }
        }
        Ok(true)
    }

    fn spawn(&mut self, job: Job, run_id: RunId, due_at_ms: Option<i64>, began: Now) {
        let at_ms = began.wall_ms;
        (self.tell)(Event::Started { job: job.stored.clone(), run_id: run_id.clone(), at_ms });
        let order = Order {
            job: job.stored.id.clone(),
            definition: job.definition.clone(),
            run_id: run_id.clone(),
            due_at_ms,
        };
        let run = Arc::clone(&self.run);
        let (store, clock, tell) =
            (self.store.clone(), Arc::clone(&self.clock), Arc::clone(&self.tell));
        self.runs.spawn(async move {
            let ran = AssertUnwindSafe(async move { run(order).await }).catch_unwind().await;
            let outcome = ran.unwrap_or_else(|_| RunOutcome::failed("the run ended in a panic"));
            let ended = clock.now();
            let duration = ended.up.saturating_sub(began.up);
            let duration_ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            let then = afterwards(&job, &outcome, due_at_ms, ended);
            // By what has passed, so that a clock that was set meanwhile makes no run long.
            let ended_at_ms = at_ms.saturating_add(duration_ms);
            let revision = job.stored.revision;
            let recorded = record(&store, &run_id, revision, &outcome, then, ended_at_ms).await;
            if let Some(left) = recorded {
                let job = left.unwrap_or(job.stored);
                tell(Event::Finished { job, run_id, at_ms, duration_ms, outcome });
            }
        });
    }
}

/// Records the end of a run, however long that takes: until then its job counts as running.
async fn record(
    store: &Store,
    run_id: &RunId,
    revision: i64,
    outcome: &RunOutcome,
    then: Afterwards,
    ended_at_ms: i64,
) -> Option<Option<StoredJob>> {
    loop {
        let finished =
            store.finish_run(run_id.clone(), revision, outcome.clone(), then, ended_at_ms).await;
        match finished {
            Ok(job) => return Some(job),
            Err(FinishFailed::Store(failed)) if !matches!(failed, StoreFailed::Gone { .. }) => {
                warn!(run = %run_id.0, reason = %handoff::chain(&failed), "a run's end is not recorded yet");
                tokio::time::sleep(RETRY).await;
            }
            Err(failed) => {
                error!(run = %run_id.0, reason = %handoff::chain(&failed), "a run's end is lost");
                return None;
            }
        }
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failed) = ended {
        error!(error = &failed as &dyn std::error::Error, "a run's task ended early");
    }
}
