//! The CLI agents of a worker: a pool of sessions for each backend that its configuration names.
//!
//! **Invariants**
//! - What dead workers have left is removed before anything is started.
//! - A backend that is no longer configured keeps the sessions it has until they rest for too long, and gets no more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::super::Failure;
use super::backend::backends;
use super::mcp::Toolbox;
use super::pool::{Keeping, Pool};
use super::run::Cli;
use super::scratch::ScratchRoot;
use super::session::{AdoptFailed, SessionParts};
use crate::state::config::Settled;

/// Where directories lie, below the state directory.
const PLACE: &str = "cli";
/// How long a turn may take unless the configuration says otherwise: as long as anybody waits.
const TIMEOUT: Duration = Duration::from_secs(48 * 60 * 60);

/// A session on its way to another owner.
#[derive(Debug)]
pub(crate) struct Moving {
    /// Whose program it is.
    pub(crate) backend: String,
    /// Whose session, as `agent:main:main`.
    pub(crate) session: String,
    /// All of it.
    pub(crate) parts: SessionParts,
}

/// The CLI agents of a worker.
#[derive(Debug)]
pub(crate) struct CliAgents {
    root: ScratchRoot,
    toolbox: Toolbox,
    keeping: Keeping,
    /// By the ids of their backends.
    pools: Mutex<Pools>,
}

#[derive(Debug, Default)]
struct Pools {
    configured: BTreeMap<String, Result<Pool, Failure>>,
    /// Those that have sessions, perhaps, and get no more.
    former: BTreeMap<String, Pool>,
    timeout: Duration,
}

impl CliAgents {
    /// None yet, of a worker that keeps its state there.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self::kept(state_dir, Toolbox::default(), Keeping::default())
    }

    fn kept(state_dir: &Path, toolbox: Toolbox, keeping: Keeping) -> Self {
        let root = ScratchRoot::at(state_dir.join(PLACE));
        Self { root, toolbox, keeping, pools: Mutex::default() }
    }

    /// Ends and removes what dead workers have left. It blocks.
    pub(crate) fn sweep(&self) {
        match self.root.sweep() {
            Ok(0) => {}
            Ok(swept) => info!(directories = swept, "removed what dead workers had left of CLIs"),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "what dead workers have left of CLIs was not looked for"
                );
            }
        }
    }

    /// Goes by another configuration from the next turns on.
    pub(crate) fn renew(&self, settled: &Settled) {
        let defaults = &settled.config().agents.defaults;
        let timeout = defaults.timeout_seconds.filter(|seconds| *seconds > 0);
        let values = settled.environment();
        let mut pools = self.pools();
        pools.timeout = timeout.map_or(TIMEOUT, |s| Duration::from_secs(s.into()));
        let mut former = std::mem::take(&mut pools.former);
        for (id, pool) in std::mem::take(&mut pools.configured) {
            if let Ok(pool) = pool {
                former.insert(id, pool);
            }
        }
        for (id, backend) in backends(&defaults.cli_backends) {
            let pool = backend.map(|backend| match former.remove(&id) {
                Some(pool) => {
                    pool.reconfigure(backend, values.clone());
                    pool
                }
                None => {
                    let (root, toolbox) = (self.root.clone(), self.toolbox.clone());
                    Pool::new(&id, backend, values.clone(), root, toolbox, self.keeping)
                }
            });
            pools.configured.insert(id, pool);
        }
        pools.former = former;
    }

    /// What answers for this model of this backend; `None` when there is no such backend.
    ///
    /// # Errors
    /// A failure that is the configuration's.
    pub(crate) fn model(&self, backend: &str, model: &str) -> Option<Result<Cli, Failure>> {
        let pools = self.pools();
        let pool = pools.configured.get(backend)?.clone();
        Some(pool.map(|pool| Cli::new(pool, model.to_owned(), pools.timeout)))
    }

    /// Takes all sessions apart, each once its turn is over.
    #[cfg_attr(not(test), expect(dead_code, reason = "the migration does not move sessions yet"))]
    pub(crate) async fn take_apart(&self) -> Vec<Moving> {
        let mut moving = Vec::new();
        for (backend, pool) in self.all() {
            let sessions = pool.take_apart().await.into_iter();
            moving.extend(sessions.map(|(session, parts)| Moving {
                backend: backend.clone(),
                session,
                parts,
            }));
        }
        moving
    }

    /// Goes on with a session that another owner has taken apart; one of a backend that is not configured here is ended.
    ///
    /// # Errors
    /// [`AdoptFailed`]: it is ended.
    #[cfg_attr(not(test), expect(dead_code, reason = "the migration does not move sessions yet"))]
    pub(crate) fn adopt(&self, moving: Moving) -> Result<(), AdoptFailed> {
        let pool = self.pools().configured.get(&moving.backend).cloned();
        match pool {
            Some(Ok(pool)) => pool.adopt(&moving.session, moving.parts),
            Some(Err(_)) | None => Err(AdoptFailed::Backend { backend: moving.backend }),
        }
    }

    /// Ends all sessions, politely until `deadline`, and ends when they have.
    pub(crate) async fn close(&self, deadline: Instant) {
        let politely = async {
            for (_, pool) in self.all() {
                pool.close().await;
            }
        };
        if tokio::time::timeout_at(deadline.into(), politely).await.is_ok() {
            return;
        }
        let root = self.root.clone();
        // It is not joined when it has panicked, and that was said then.
        if let Ok(Ok(ended @ 1..)) = tokio::task::spawn_blocking(move || root.clear()).await {
            warn!(programs = ended, "CLIs were still at work and were ended");
        }
    }

    fn all(&self) -> Vec<(String, Pool)> {
        let pools = self.pools();
        let configured =
            pools.configured.iter().filter_map(|(id, pool)| Some((id, pool.as_ref().ok()?)));
        let both = configured.chain(&pools.former);
        both.map(|(id, pool)| (id.clone(), pool.clone())).collect()
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::Reason;
    use super::super::rig::{Rig, begin_run, fixture, keeping, next_piece, runs, until};
    use super::*;
    use crate::state::config::{Environment, understand};

    fn settled(backends: &Value) -> Settled {
        let text = json!({"agents": {"defaults": {"cliBackends": backends}}}).to_string();
        understand(&text, &Environment::default()).unwrap().settled
    }

    fn agents(place: &Path, backends: &Value) -> CliAgents {
        let agents = CliAgents::kept(place, Toolbox::default(), keeping());
        agents.renew(&settled(backends));
        agents
    }

    fn at_leisure() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn claude(agents: &CliAgents) -> Cli {
        agents.model("claude-cli", "sonnet").unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_change_of_the_configuration_holds_from_the_next_turn_on() {
        let rig = Rig::new(json!({}));
        let place = tempfile::tempdir().unwrap();
        let agents = agents(place.path(), &json!({"claude-cli": {"command": fixture()}}));
        let cli = claude(&agents);
        let past = rig.past("a");
        assert_eq!(begin_run(&cli, "one", &past).await, Ok("hello turn 1: one".to_owned()));
        let changed = json!({"command": fixture(), "env": {"A": "1"}});
        agents.renew(&settled(&json!({"claude-cli": changed, "x": {}})));
        assert_eq!(begin_run(&cli, "two", &past).await, Ok("hello turn 2: two".to_owned()));
        assert_eq!(rig.starts().len(), 2);
        let failure = agents.model("x", "").unwrap().unwrap_err();
        assert_eq!(failure.reason, Reason::Config);
        assert!(agents.model("y", "").is_none());
        agents.close(at_leisure()).await;
    }

    #[tokio::test]
    async fn a_backend_that_is_configured_no_more_keeps_its_sessions_and_gets_them_back() {
        let rig = Rig::new(json!({}));
        let place = tempfile::tempdir().unwrap();
        let mine = json!({"mine": {
            "command": fixture(), "output": "jsonl", "input": "stdin", "liveSession": "claude-stdio",
        }});
        let agents = agents(place.path(), &mine);
        let cli = agents.model("mine", "").unwrap().unwrap();
        let past = rig.past("a");
        begin_run(&cli, "one", &past).await.unwrap();
        agents.renew(&settled(&json!({})));
        assert!(agents.model("mine", "").is_none());
        agents.renew(&settled(&mine));
        let cli = agents.model("mine", "").unwrap().unwrap();
        assert_eq!(begin_run(&cli, "two", &past).await, Ok("hello turn 2: two".to_owned()));
        assert_eq!(rig.starts().len(), 1);
        agents.renew(&settled(&json!({})));
        agents.close(at_leisure()).await;
        assert_eq!(std::fs::read_dir(place.path().join(PLACE)).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_at_work_when_there_is_no_time_left_is_ended_with_its_directory() {
        let rig = Rig::new(json!({}));
        let place = tempfile::tempdir().unwrap();
        let agents = agents(place.path(), &json!({"claude-cli": {"command": fixture()}}));
        let cli = claude(&agents);
        let past = rig.past("a");
        let child = begin_run(&cli, "child", &past).await.unwrap();
        let mut run = cli.run("stubborn".to_owned(), &past);
        assert_eq!(next_piece(&mut run).await, Some(Ok("no".to_owned())));
        agents.close(Instant::now()).await;
        let failed = next_piece(&mut run).await.unwrap().unwrap_err();
        assert!(failed.contains("signal 9"), "{failed}");
        until("its group is gone", || !runs(&child)).await;
        assert_eq!(std::fs::read_dir(place.path().join(PLACE)).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn sessions_move_to_the_agents_of_another_worker() {
        let rig = Rig::new(json!({}));
        let place = tempfile::tempdir().unwrap();
        let configured = json!({"claude-cli": {"command": fixture()}});
        let [first, second] = [(); 2].map(|()| agents(place.path(), &configured));
        for session in ["a", "b"] {
            begin_run(&claude(&first), "one", &rig.past(session)).await.unwrap();
        }
        let moving = first.take_apart().await;
        assert_eq!(moving.len(), 2);
        for moving in moving {
            second.adopt(moving).unwrap();
        }
        for session in ["a", "b"] {
            let said = begin_run(&claude(&second), "two", &rig.past(session)).await;
            assert_eq!(said, Ok("hello turn 2: two".to_owned()));
        }
        assert_eq!(rig.starts().len(), 2);
        first.close(at_leisure()).await;
        second.close(at_leisure()).await;
        assert_eq!(std::fs::read_dir(place.path().join(PLACE)).unwrap().count(), 0);
    }
}
