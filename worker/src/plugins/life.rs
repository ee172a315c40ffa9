//! A plugin's task: it starts the program, watches it, starts it again, and ends it.
//!
//! ```text
//! lease (exclusive ones) ─► lock ─► spawn ─► initialize ─► running ─► dead ─► rest ─► again
//!                                                            │ retired, or the lease went
//!                                         calls over ◄───────┘
//!                                             └─► shutdown ─► stdin closed ─► SIGTERM ─► SIGKILL
//! ```
//!
//! **Invariants**
//! - A plugin that has died takes nobody else's calls with it, and is started again after a rest.
//! - It is ended only when its calls are over, unless it ends by itself or the worker does.
//! - One that says other methods or harnesses than it declares does not run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use handoff::chain;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::backoff::Backoff;
use super::conversation::{self, Conversation, NoAnswer};
use super::declaration::Declaration;
use super::exclusive::Exclusive;
use super::plugin::{Plugin, Standing};
use super::process::Process;
use super::wire::PROTOCOL;

/// How long it may take to say how it is, and to say that it ends.
const SOON: Duration = Duration::from_secs(5);

/// What a plugin's task needs of the worker.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// `g7`.
    pub(super) generation: String,
    /// The writer lease, while it is here.
    pub(super) lease: watch::Receiver<Option<u64>>,
    /// Where exclusive plugins are locked.
    pub(super) locks: PathBuf,
    /// How many descriptors a plugin may hold, if not as many as the worker.
    pub(super) descriptors: Option<u64>,
}

/// Why a plugin is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Retired,
    LeaseGone,
}

/// How one life of it has ended.
#[derive(Debug)]
enum End {
    Died(String),
    Stopped(Stop),
}

/// Runs a plugin until it is retired; not before this one is gone.
pub(super) async fn live(plugin: Arc<Plugin>, world: World, before: Option<Arc<Plugin>>) {
    let mut task = Task { stop: Stopping::of(&plugin, &world), plugin, world };
    if let Some(before) = before {
        before.gone().await;
    }
    task.run().await;
    task.plugin.stand(Standing::Gone);
}

struct Task {
    plugin: Arc<Plugin>,
    world: World,
    stop: Stopping,
}

/// What ends a plugin.
#[derive(Clone)]
struct Stopping {
    retired: watch::Receiver<bool>,
    /// Of exclusive ones.
    lease: Option<watch::Receiver<Option<u64>>>,
}

impl Stopping {
    fn of(plugin: &Plugin, world: &World) -> Self {
        let lease = plugin.declaration().exclusive.then(|| world.lease.clone());
        Self { retired: plugin.retired.subscribe(), lease }
    }

    /// Ends when it may no longer run. Cancel safe.
    async fn wanted(&mut self) -> Stop {
        let lease = self.lease.as_mut();
        let lease_gone = async {
            match lease {
                // An error means that the worker ends.
                Some(lease) => drop(lease.wait_for(Option::is_none).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.retired.wait_for(|retired| *retired) => Stop::Retired,
            () = lease_gone => Stop::LeaseGone,
        }
    }

    /// Ends when it may run; `false` when it is retired first. Cancel safe.
    async fn allowed(&mut self) -> bool {
        let Some(lease) = self.lease.as_mut() else { return !*self.retired.borrow() };
        tokio::select! {
            biased;
            _ = self.retired.wait_for(|retired| *retired) => false,
            granted = lease.wait_for(Option::is_some) => granted.is_ok(),
        }
    }
}

impl Task {
    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        let id = self.plugin.declaration().id.clone();
        while self.stop.allowed().await {
            self.plugin.stand(Standing::Starting);
            let begun_at = Instant::now();
            match self.live_once().await {
                End::Stopped(Stop::Retired) => return,
                End::Stopped(Stop::LeaseGone) => self.plugin.stand(Standing::Elsewhere),
                End::Died(reason) => {
                    let rest = backoff.died_after(begun_at.elapsed());
                    warn!(plugin = %id, reason, rest_ms = rest.as_millis(), "a plugin does not run");
                    self.plugin.stand(Standing::Resting { until: Instant::now() + rest, reason });
                    tokio::select! {
                        stop = self.stop.wanted() => match stop {
                            Stop::Retired => return,
                            Stop::LeaseGone => self.plugin.stand(Standing::Elsewhere),
                        },
                        () = sleep(rest) => {}
                    }
                }
            }
        }
    }

    async fn live_once(&mut self) -> End {
        let declaration = self.plugin.declaration();
        let mut lock = None;
        if declaration.exclusive {
            let acquired = tokio::select! {
                stop = self.stop.wanted() => return End::Stopped(stop),
                acquired = Exclusive::acquire(&self.world.locks, &declaration.id) => acquired,
            };
            match acquired {
                Ok(acquired) => lock = Some(acquired),
                Err(failed) => return End::Died(chain(&failed)),
            }
        }
        let (process, pipes) = match Process::spawn(declaration, self.world.descriptors) {
            Ok(spawned) => spawned,
            Err(failed) => return End::Died(chain(&failed)),
        };
        if let (Some(lock), Some(pid)) = (&mut lock, process.pid())
            && let Err(error) = lock.runs(pid)
        {
            return End::Died(format!("nobody could know of its process: {error}"));
        }
        let (conversation, lines) = Conversation::open();
        let mut talks = JoinSet::new();
        talks.spawn(Arc::clone(&conversation).listen(pipes.stdout));
        let mut writes = JoinSet::new();
        writes.spawn(conversation::write(pipes.stdin, lines));
        let mut life = Life { process, conversation, talks, writes };
        let end = match self.start(&mut life).await {
            Ok(()) => self.attend(&mut life).await,
            Err(end) => end,
        };
        let end = match end {
            End::Stopped(stop) => self.wind_up(&mut life, stop).await,
            End::Died(reason) => {
                let last_words = life.process.last_words().await;
                let said =
                    if last_words.is_empty() { String::new() } else { format!(": {last_words}") };
                End::Died(format!("{reason}{said}"))
            }
        };
        if let End::Stopped(_) = end {
            life.conversation.close();
            // It ends with what waited to be said, or when the plugin reads no more.
            let _ = timeout(SOON, life.writes.join_next()).await;
            drop(life.writes);
            life.process.end().await;
        }
        life.conversation.over();
        // The lock goes last: it was there first.
        end
    }

    /// Has the plugin say what it is.
    async fn start(&mut self, life: &mut Life) -> Result<(), End> {
        let declaration = self.plugin.declaration();
        let params = json!({
            "protocol": PROTOCOL,
            "plugin": declaration.id,
            "generation": self.world.generation,
        });
        let conversation = Arc::clone(&life.conversation);
        let answer = tokio::select! {
            stop = self.stop.wanted() => return Err(End::Stopped(stop)),
            reason = life.died() => return Err(End::Died(reason)),
            answer = timeout(declaration.start_timeout, conversation.ask("initialize", &params)) => answer,
        };
        let answer = answer.map_err(|_| {
            End::Died(format!("it did not say what it is within {:?}", declaration.start_timeout))
        })?;
        let introduction = match answer {
            Ok(introduction) => introduction,
            Err(NoAnswer::Fault(fault)) => {
                return Err(End::Died(format!("it would not start: {}", fault.message)));
            }
            Err(NoAnswer::NotAsked | NoAnswer::Gone) => return Err(End::Died(life.died().await)),
        };
        is_as_declared(&introduction, declaration).map_err(|refused| End::Died(chain(&refused)))
    }

    /// Watches the plugin while it runs.
    async fn attend(&mut self, life: &mut Life) -> End {
        let id = &self.plugin.declaration().id;
        info!(plugin = %id, pid = life.process.pid(), "a plugin runs");
        self.plugin.stand(Standing::Running(Arc::clone(&life.conversation)));
        let conversation = Arc::clone(&life.conversation);
        tokio::select! {
            stop = self.stop.wanted() => End::Stopped(stop),
            reason = life.died() => End::Died(reason),
            reason = unwell(&self.plugin, &conversation) => End::Died(reason),
        }
    }

    /// Lets its calls end, and says that it is to end.
    async fn wind_up(&self, life: &mut Life, stop: Stop) -> End {
        if stop == Stop::LeaseGone {
            // Whoever calls from now on is passed on.
            self.plugin.stand(Standing::Elsewhere);
        }
        let conversation = Arc::clone(&life.conversation);
        let over = async {
            self.plugin.idle().await;
            // Whatever it answers, its stdin is closed next.
            let _ = timeout(SOON, conversation.ask("shutdown", &json!({}))).await;
        };
        tokio::select! {
            () = over => {}
            // Then there is nothing to wait for.
            _ = life.died() => {}
        }
        info!(plugin = %self.plugin.declaration().id, "a plugin ends");
        End::Stopped(stop)
    }
}

/// One life of a plugin.
struct Life {
    process: Process,
    conversation: Arc<Conversation>,
    /// The one that hears what the plugin says.
    talks: JoinSet<String>,
    /// The one that tells it what it is asked.
    writes: JoinSet<String>,
}

impl Life {
    /// Ends when the plugin cannot go on, and says why. Cancel safe.
    async fn died(&mut self) -> String {
        tokio::select! {
            biased;
            reason = self.process.exited() => reason,
            Some(heard) = self.talks.join_next() => match heard {
                // One that ends closes its stdout a little earlier, and how it ended says more.
                Ok(reason) => timeout(SOON / 10, self.process.exited()).await.unwrap_or(reason),
                Err(_) => "what it said made its listener panic".to_owned(),
            },
            Some(written) = self.writes.join_next() => match written {
                Ok(reason) => timeout(SOON / 10, self.process.exited()).await.unwrap_or(reason),
                Err(_) => "what it was told made its writer panic".to_owned(),
            },
        }
    }
}

/// Asks now and then how it is; ends when it does not answer.
async fn unwell(plugin: &Plugin, conversation: &Arc<Conversation>) -> String {
    loop {
        sleep(plugin.declaration().health_interval).await;
        // One that has calls to answer may do one thing at a time, and those have their own limits.
        if !plugin.is_idle() {
            continue;
        }
        if timeout(SOON, conversation.ask("health", &json!({}))).await.is_err() && plugin.is_idle()
        {
            return format!("it did not say within {SOON:?} how it is");
        }
    }
}

/// Why a plugin is not what it was declared to be.
#[derive(Debug, thiserror::Error)]
enum NotAsDeclared {
    #[error("it does not say what it is in the way that is understood")]
    Unreadable { source: serde_json::Error },
    #[error("it speaks version {protocol} of the protocol, and version {PROTOCOL} is spoken here")]
    Protocol { protocol: u32 },
    #[error("it has the {what} [{has}], and its declaration says [{declared}]")]
    Other { what: &'static str, has: String, declared: String },
}

#[derive(Deserialize)]
struct Introduction {
    protocol: u32,
    #[serde(default)]
    methods: BTreeSet<String>,
    #[serde(default)]
    harnesses: BTreeSet<String>,
}

fn is_as_declared(introduction: &RawValue, declared: &Declaration) -> Result<(), NotAsDeclared> {
    let Introduction { protocol, methods, harnesses } = serde_json::from_str(introduction.get())
        .map_err(|source| NotAsDeclared::Unreadable { source })?;
    if protocol != PROTOCOL {
        return Err(NotAsDeclared::Protocol { protocol });
    }
    let declared_methods = declared.methods.iter().map(|method| method.name.clone()).collect();
    let declared_harnesses = declared.harnesses.iter().cloned().collect();
    for (what, has, declared) in
        [("methods", methods, declared_methods), ("harnesses", harnesses, declared_harnesses)]
    {
        if has != declared {
            let (has, declared) = (listed(&has), listed(&declared));
            return Err(NotAsDeclared::Other { what, has, declared });
        }
    }
    Ok(())
}

/// Names for people; of many, the first ones.
fn listed(names: &BTreeSet<String>) -> String {
    let mut listed = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if listed.len() > 500 {
        listed = listed.chars().take(500).chain("…".chars()).collect();
    }
    listed
}
