//! What clients ask for by name over a WebSocket.
//!
//! A method is a function of what the worker knows; who may call it, and with which parameters, stands
//! beside it in the one table, [`BUNDLED`]. One that takes its time answers by letter, so that it holds no
//! connection where it is.

mod agent;
mod agent_files;
mod agents;
mod call;
mod chat;
mod config;
mod cron;
pub(crate) mod devices;
mod health;
mod history;
mod logs;
mod models;
mod outcome;
pub(crate) mod plugins;
mod reloading;
mod restart;
mod row;
mod sessions;
mod status;
pub(crate) mod system_presence;
mod table;
mod wait;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use arc_swap::ArcSwap;

pub(crate) use self::call::{Call, Reply, outcome_unknown};
pub(crate) use self::table::BUNDLED;
use crate::agents::Runs;
use crate::attendance::Attendance;
use crate::cron::clock::SystemClock;
use crate::cron::jobs::Jobs;
use crate::identity::{Devices, Needs, TokenInForce};
use crate::log_ring::LogRing;
use crate::neighbourhood::Neighbourhood;
use crate::plugins::Plugins;
pub(crate) use crate::refusal::{Code, Refusal};
use crate::registry::Registry;
use crate::shape::Shape;
use crate::state::config::{CurrentConfig, Snapshot, WriteBudget};
use crate::state::store::{Store, StoreFailed};

/// The version clients are told: of this worker, never of the gateway it is compatible with.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A method that clients can call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method {
    /// Its name on the wire.
    pub(crate) name: &'static str,
    /// What a caller must hold.
    pub(crate) needs: Needs,
    /// What its parameters must look like; `None` is whatever they are.
    pub(crate) params: Option<&'static Shape>,
    /// What it does.
    pub(crate) work: Work,
}

/// What a method does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// It answers at once.
    Now(fn(&Knowledge) -> Result<Box<RawValue>, Refusal>),
    /// It answers by letter, when it can.
    Later(fn(Arc<Knowledge>, Call) -> Answering),
}

/// A call being answered.
pub(crate) type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What methods know about the worker.
#[derive(Debug)]
pub(crate) struct Knowledge {
    /// The state directory.
    pub(crate) state_dir: PathBuf,
    /// The jobs that are scheduled.
    pub(crate) jobs: Jobs<SystemClock>,
    /// The runs that are under way.
    pub(crate) runs: Arc<Runs>,
    /// Where it is said why a fresh worker is needed: whoever hears it asks the front. `None` without a front.
    pub(crate) wants_takeover: Option<mpsc::Sender<String>>,
    /// How long a wait for a run leaves the database alone at first.
    pub(crate) wait_pause: Duration,
    /// Who is connected here.
    pub(crate) attendance: Attendance,
    /// The generations beside.
    pub(crate) neighbourhood: Neighbourhood,
    /// The last lines of the log.
    pub(crate) log: LogRing,
    /// What is remembered.
    pub(crate) store: Store,
    /// What clients have to show that have nothing else.
    pub(crate) token: TokenInForce,
    /// The devices that are paired, or would be.
    pub(crate) devices: Devices,
    /// OpenClaw's configuration, as it holds.
    pub(crate) config: ArcSwap<Snapshot>,
    /// Its file.
    pub(crate) config_path: PathBuf,
    /// Its file, as it was last looked at.
    pub(crate) current_config: Mutex<CurrentConfig>,
    /// How often each client may still rewrite it.
    pub(crate) config_writes: Mutex<WriteBudget>,
    /// The programs beside this worker.
    pub(crate) plugins: Plugins,
    /// What this worker can do because of all that.
    pub(crate) registry: ArcSwap<Registry>,
}

impl Knowledge {
    /// What the worker says of its health, as the snapshot and the `health` event have it too.
    pub(crate) fn health(&self) -> serde_json::Value {
        health::report(self)
    }

    /// Where an agent's sessions are listed.
    fn sessions_path(&self, agent: &str) -> PathBuf {
        self.state_dir.join("agents").join(agent).join("sessions/sessions.json")
    }
}

/// The wall clock in ms, as the protocol's timestamps are.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A method's answer in its wire form.
fn payload(value: &impl Serialize) -> Result<Box<RawValue>, Refusal> {
    serde_json::value::to_raw_value(value)
        .map_err(|error| Refusal::unavailable(format!("could not write the answer: {error}")))
}

/// What is answered when the database does not do its part.
fn store_failed(failed: &StoreFailed) -> Refusal {
    Refusal::unavailable(handoff::chain(failed))
}
