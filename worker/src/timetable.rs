//! The schedule in this worker: its jobs for clients, and its driver, whose runs are turns of agents.
//!
//! ```text
//!  worker's lease ─► forward ─► driver ─► turn ─► lane of the session ─► outcome, recorded
//!                       │          └─ event `cron` ─► post
//!        end ───────────┘
//! ```
//!
//! **Invariants**
//! - A run is an agent's run like any other: one at a time in its session, counted in the census, and ended by
//!   whoever ends it there.
//! - What changes in one generation wakes the driver of both at once.
//! - The driver ends only after what it has begun is recorded, unless the drain's deadline comes first.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handoff::migrate::Post;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{debug, error, warn};

use crate::agents::harness::{Earlier, Harness, Turn};
use crate::agents::{self, Asked, Begun, DEFAULT_AGENT, Ending, Outcome, Runs, SessionKey};
use crate::cron::clock::SystemClock;
use crate::cron::driver::{Driver, Nudge, Order, Tell};
use crate::cron::events::Event;
use crate::cron::job::{Definition, Payload};
use crate::cron::jobs::Jobs;
use crate::identity::Needs;
use crate::letters;
use crate::state::store::Store;
use crate::state::store::cron_runs::{RunOutcome, Status};

/// So many jobs run at a time.
const AT_ONCE: usize = 8;
/// Of what a run has said, so many characters are recorded.
const SUMMARY: usize = 2000;

/// What runs an agent, by its name, at the moment.
pub(crate) type FindHarness = Arc<dyn Fn(&str) -> Option<Harness> + Send + Sync>;

/// The schedule, before anything drives it.
pub(crate) struct Timetable {
    store: Store,
    clock: Arc<SystemClock>,
    tell: Tell,
    post: Post,
    nudge: Arc<Notify>,
}

impl Timetable {
    /// Of the jobs in this database. What happens to them is told by this post.
    pub(crate) fn new(store: Store, post: Post) -> Self {
        let publisher = post.clone();
        let tell: Tell = Arc::new(move |event| {
            letters::publish(&publisher, "cron", Needs::Read, &event.payload());
            if let Event::Finished { .. } = event {
                // Whoever holds the lease by now may have waited for the end of this run.
                agents::tell_of_jobs(&publisher);
            }
        });
        Self { store, clock: Arc::new(SystemClock), tell, post, nudge: Arc::default() }
    }

    /// The jobs, for clients.
    pub(crate) fn jobs(&self) -> Jobs<SystemClock> {
        Jobs::new(self.store.clone(), Arc::clone(&self.clock), Arc::clone(&self.tell), self.nudge())
    }

    /// Wakes the driver here and in the generation beside: either may hold the lease.
    fn nudge(&self) -> Nudge {
        let (here, post) = (Arc::clone(&self.nudge), self.post.clone());
        Arc::new(move || {
            here.notify_one();
            agents::tell_of_jobs(&post);
        })
    }

    /// Has agents do what is due, while the worker holds the writer lease.
    pub(crate) fn drive(
        self,
        lease: watch::Receiver<Option<u64>>,
        runs: Arc<Runs>,
        harnesses: FindHarness,
    ) -> Driven {
        runs.wake_for_jobs(Arc::clone(&self.nudge));
        let run = move |order| turn(Arc::clone(&runs), Arc::clone(&harnesses), order);
        let driver = Driver::new(self.store, self.clock, self.tell, AT_ONCE, run);
        let (grants, granted) = watch::channel(None);
        let (keeps_on, ended) = oneshot::channel();
        tokio::spawn(forward(lease, grants, ended));
        Driven { keeps_on, driver: tokio::spawn(driver.drive(granted, self.nudge)) }
    }
}

/// The schedule, driven.
#[derive(Debug)]
pub(crate) struct Driven {
    keeps_on: oneshot::Sender<()>,
    driver: JoinHandle<()>,
}

impl Driven {
    /// Begins nothing more, and waits until what runs is recorded. What is not by the deadline is given up: whoever
    /// holds the lease then records that.
    pub(crate) async fn end(self, deadline: Instant) {
        let Self { keeps_on, mut driver } = self;
        drop(keeps_on);
        match tokio::time::timeout_at(deadline.into(), &mut driver).await {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => {
                error!(error = &failed as &dyn Error, "the schedule's task panicked");
            }
            Err(_) => {
                warn!("scheduled runs were cut at the deadline");
                driver.abort();
            }
        }
    }
}

/// Hands the worker's grants on, until it is told to end.
async fn forward(
    mut lease: watch::Receiver<Option<u64>>,
    grants: watch::Sender<Option<u64>>,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        let grant = *lease.borrow_and_update();
        // Without a front it is 0, and then there is nobody else. A front's first grant is 1.
        grants.send_replace(grant.map(|grant| grant.max(1)));
        tokio::select! {
            // Nothing is sent: it is dropped.
            _ = &mut ended => return,
            changed = lease.changed() => if changed.is_err() { return },
        }
    }
}

/// Has an agent take the turn that a job asks for.
async fn turn(runs: Arc<Runs>, harnesses: FindHarness, order: Order) -> RunOutcome {
    let session = session(&order);
    let key = Some(session.as_str().to_owned());
    debug!(job = %order.job.0, run = %order.run_id.0, due_at_ms = order.due_at_ms, "a job runs");
    RunOutcome { session_key: key, ..taken(&runs, &harnesses, session, order).await }
}

async fn taken(
    runs: &Arc<Runs>,
    harnesses: &FindHarness,
    session: SessionKey,
    order: Order,
) -> RunOutcome {
    let agent = session.agent();
    let Some(harness) = harnesses(agent) else {
        return RunOutcome::failed(format!("unknown agent id \"{agent}\""));
    };
    let limit = limit(&order.definition.payload);
    let message = match order.definition.payload {
        Payload::SystemEvent { text } => text,
        Payload::AgentTurn { message, .. } => message,
    };
    let run = order.run_id.0;
    let turn = Turn { message, word_delay: None };
    let asked = Asked {
        run: run.clone(),
        session: session.clone(),
        harness,
        turn,
        earlier: Earlier::default(),
        // The schedule claims its runs itself.
        key: None,
    };
    let ended = match runs.begin(asked).await {
        Ok(Begun::Started(ended)) => ended,
        Ok(Begun::InFlight | Begun::Done(_) | Begun::DoneUnreadably) => {
            return RunOutcome::failed("a run of this id was begun before");
        }
        Err(error) => return RunOutcome::failed(handoff::chain(&error)),
        Ok(Begun::LaneFull) => {
            return RunOutcome::failed("overloaded: too many messages wait in its session");
        }
    };
    let ended = match limit {
        None => ended.await,
        Some(limit) => match tokio::time::timeout(limit, ended).await {
            Ok(ended) => ended,
            Err(_) => {
                runs.abort(&session, Some(&run), Ending::Aborted).await;
                return RunOutcome::failed(format!("timeout: it took longer than {limit:?}"));
            }
        },
    };
    match ended {
        Ok(Outcome::Finished(text)) => {
            let summary: String = text.trim().chars().take(SUMMARY).collect();
            let summary = Some(summary).filter(|summary| !summary.is_empty());
            RunOutcome { summary, ..RunOutcome::of(Status::Ok) }
        }
        Ok(Outcome::Aborted | Outcome::LaneCleared) => RunOutcome::failed("somebody has ended it"),
        Ok(Outcome::Failed(reason)) => RunOutcome::failed(reason),
        Err(_) => RunOutcome::failed("the agent's run panicked"),
    }
}

/// How long a run may take; 0 is as long as it wants.
fn limit(payload: &Payload) -> Option<Duration> {
    let Payload::AgentTurn { timeout_seconds, .. } = payload else { return None };
    let limit = Duration::try_from_secs_f64((*timeout_seconds)?).ok()?;
    Some(limit).filter(|limit| !limit.is_zero())
}

/// Where a job runs.
fn session(order: &Order) -> SessionKey {
    let Definition { session_target, session_key, agent_id, .. } = &order.definition;
    let agent = agent_id.as_deref().unwrap_or(DEFAULT_AGENT);
    let of_agent = |name: &str| match name.strip_prefix("agent:") {
        Some(_) => SessionKey::named(name),
        None => SessionKey::named(&format!("agent:{agent}:{name}")),
    };
    match (session_target.as_str(), session_key) {
        ("main", _) => SessionKey::main_of(agent),
        ("current", Some(key)) => of_agent(key),
        (target, _) => match target.strip_prefix("session:") {
            Some(id) => of_agent(id),
            None => of_agent(&format!("cron:{}", order.job.0)),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agents::harness::Echo;
    use crate::state::store::cron_jobs::{JobId, RunId};
    use crate::state::store::shared::Shared;

    fn order(change: impl FnOnce(&mut Value)) -> Order {
        let mut definition = json!({
            "name": "n", "schedule": {"kind": "every", "everyMs": 1000}, "wakeMode": "now",
            "sessionTarget": "isolated", "payload": {"kind": "agentTurn", "message": "hi there"},
        });
        change(&mut definition);
        Order {
            job: JobId("j1".to_owned()),
            definition: serde_json::from_value(definition).unwrap(),
            run_id: RunId("r1".to_owned()),
            due_at_ms: Some(1),
        }
    }

    async fn outcome(order: Order) -> RunOutcome {
        let state = Shared::new();
        let store = state.open("g1").await;
        let runs = Arc::new(Runs::new(Post::default(), Arc::default(), store));
        let echo = Harness::Echo(Echo { word_delay: Duration::ZERO });
        let find: FindHarness =
            Arc::new(move |agent| (agent == DEFAULT_AGENT).then(|| echo.clone()));
        turn(runs, find, order).await
    }

    #[test]
    fn a_job_runs_in_the_session_that_it_names() {
        let key = |change: fn(&mut Value)| session(&order(change)).as_str().to_owned();
        assert_eq!(key(|_| ()), "agent:main:cron:j1");
        assert_eq!(key(|j| j["agentId"] = json!("ops")), "agent:ops:cron:j1");
        assert_eq!(key(|j| j["sessionTarget"] = json!("main")), "agent:main:main");
        assert_eq!(key(|j| j["sessionTarget"] = json!("session:daily")), "agent:main:daily");
        let current = |j: &mut Value| {
            j["sessionTarget"] = json!("current");
            j["sessionKey"] = json!("agent:ops:main");
        };
        assert_eq!(key(current), "agent:ops:main");
        assert_eq!(key(|j| j["sessionTarget"] = json!("current")), "agent:main:cron:j1");
    }

    #[tokio::test]
    async fn what_an_agent_says_is_the_summary_and_what_stops_it_the_error() {
        let said = outcome(order(|_| ())).await;
        assert_eq!((said.status, said.summary.as_deref()), (Status::Ok, Some("hi there")));
        assert_eq!(said.session_key.as_deref(), Some("agent:main:cron:j1"));
        let failed = outcome(order(|j| j["payload"]["message"] = json!("/fail no idea"))).await;
        assert_eq!((failed.status, failed.error.as_deref()), (Status::Error, Some("no idea")));
        let nobody = outcome(order(|j| j["agentId"] = json!("ghost"))).await;
        assert_eq!(nobody.error.as_deref(), Some("unknown agent id \"ghost\""));
        let event = |j: &mut Value| {
            j["sessionTarget"] = json!("main");
            j["payload"] = json!({"kind": "systemEvent", "text": "wake up"});
        };
        let event = outcome(order(event)).await;
        assert_eq!(event.summary.as_deref(), Some("wake up"));
        assert_eq!(event.session_key.as_deref(), Some("agent:main:main"));
    }

    #[tokio::test]
    async fn a_run_that_takes_longer_than_it_may_is_ended() {
        let slow = |j: &mut Value| {
            j["payload"]["message"] = json!("/slow 60000 never said");
            j["payload"]["timeoutSeconds"] = json!(0.05);
        };
        let ended = outcome(order(slow)).await;
        assert_eq!(ended.error.as_deref(), Some("timeout: it took longer than 50ms"));
    }

    #[tokio::test]
    async fn a_worker_without_a_front_holds_the_lease_by_itself() {
        let (worker, lease) = watch::channel(Some(0));
        let (grants, mut granted) = watch::channel(None);
        let (keeps_on, ended) = oneshot::channel();
        let forwarding = tokio::spawn(forward(lease, grants, ended));
        assert_eq!(*granted.wait_for(Option::is_some).await.unwrap(), Some(1));
        worker.send_replace(None);
        granted.wait_for(Option::is_none).await.unwrap();
        worker.send_replace(Some(7));
        assert_eq!(*granted.wait_for(Option::is_some).await.unwrap(), Some(7));
        drop(keeps_on);
        forwarding.await.unwrap();
        assert!(granted.changed().await.is_err(), "the driver is told to end");
    }
}
