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
mod wait;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use arc_swap::ArcSwap;

pub(crate) use self::call::{Call, Reply, outcome_unknown};
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

/// The methods that come with the worker.
pub(crate) const BUNDLED: &[Method] = &[
    Method {
        name: "agent",
        needs: Needs::Write,
        params: Some(&agent::PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(agent::answer(knowledge, call))),
    },
    Method {
        name: "agent.wait",
        needs: Needs::Read,
        params: Some(&wait::PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(wait::answer(knowledge, call))),
    },
    Method {
        name: "agents.create",
        needs: Needs::Admin,
        params: Some(&agents::CREATE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(agents::create(knowledge, call))),
    },
    Method {
        name: "agents.delete",
        needs: Needs::Admin,
        params: Some(&agents::DELETE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(agents::delete(knowledge, call))),
    },
    Method {
        name: "agents.files.get",
        needs: Needs::Read,
        params: Some(&agent_files::GET_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(agent_files::get(knowledge, call))),
    },
    Method {
        name: "agents.files.list",
        needs: Needs::Read,
        params: Some(&agent_files::LIST_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(agent_files::list(knowledge, call))),
    },
    Method {
        name: "agents.files.set",
        needs: Needs::Admin,
        params: Some(&agent_files::SET_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(agent_files::set(knowledge, call))),
    },
    Method {
        name: "agents.list",
        needs: Needs::Read,
        params: Some(&agents::LIST_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(agents::list(knowledge, call))),
    },
    Method {
        name: "agents.update",
        needs: Needs::Admin,
        params: Some(&agents::UPDATE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(agents::update(knowledge, call))),
    },
    Method {
        name: "chat.abort",
        needs: Needs::Write,
        params: Some(&chat::ABORT_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(chat::abort(knowledge, call))),
    },
    Method {
        name: "chat.history",
        needs: Needs::Read,
        params: Some(&history::HISTORY_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(history::history(knowledge, call))),
    },
    Method {
        name: "chat.send",
        needs: Needs::Write,
        params: Some(&chat::SEND_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(chat::send(knowledge, call))),
    },
    Method {
        name: "config.apply",
        needs: Needs::Admin,
        params: Some(&config::PATCH_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(config::apply(knowledge, call))),
    },
    Method {
        name: "config.get",
        needs: Needs::Read,
        params: Some(&config::NO_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(config::get(knowledge, call))),
    },
    Method {
        name: "config.patch",
        needs: Needs::Admin,
        params: Some(&config::PATCH_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(config::patch(knowledge, call))),
    },
    Method {
        name: "config.schema",
        needs: Needs::Admin,
        params: Some(&config::NO_PARAMS),
        work: Work::Later(|_, call| Box::pin(config::whole_schema(call))),
    },
    Method {
        name: "config.schema.lookup",
        needs: Needs::Admin,
        params: Some(&config::LOOKUP_PARAMS),
        work: Work::Later(|_, call| Box::pin(config::looked_up(call))),
    },
    Method {
        name: "config.set",
        needs: Needs::Admin,
        params: Some(&config::SET_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(config::set(knowledge, call))),
    },
    Method {
        name: "device.pair.approve",
        needs: Needs::Pairing,
        params: Some(&devices::REQUEST_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(devices::approve(knowledge, call))),
    },
    Method {
        name: "device.pair.list",
        needs: Needs::Pairing,
        params: Some(&devices::LIST_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(devices::list(knowledge, call))),
    },
    Method {
        name: "device.pair.reject",
        needs: Needs::Pairing,
        params: Some(&devices::REQUEST_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(devices::reject(knowledge, call))),
    },
    Method {
        name: "device.pair.remove",
        needs: Needs::Pairing,
        params: Some(&devices::REMOVE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(devices::remove(knowledge, call))),
    },
    Method {
        name: "device.token.revoke",
        needs: Needs::Pairing,
        params: Some(&devices::REVOKE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(devices::revoke(knowledge, call))),
    },
    Method {
        name: "device.token.rotate",
        needs: Needs::Pairing,
        params: Some(&devices::ROTATE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(devices::rotate(knowledge, call))),
    },
    Method {
        name: "cron.add",
        needs: Needs::Admin,
        params: None,
        work: Work::Later(|knowledge, call| Box::pin(cron::add(knowledge, call))),
    },
    Method {
        name: "cron.get",
        needs: Needs::Read,
        params: Some(&cron::ID_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(cron::get(knowledge, call))),
    },
    Method {
        name: "cron.list",
        needs: Needs::Read,
        params: Some(&cron::LIST_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(cron::list(knowledge, call))),
    },
    Method {
        name: "cron.remove",
        needs: Needs::Admin,
        params: Some(&cron::ID_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(cron::remove(knowledge, call))),
    },
    Method {
        name: "cron.run",
        needs: Needs::Admin,
        params: Some(&cron::RUN_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(cron::run(knowledge, call))),
    },
    Method {
        name: "cron.runs",
        needs: Needs::Read,
        params: Some(&cron::RUNS_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(cron::runs(knowledge, call))),
    },
    Method {
        name: "cron.status",
        needs: Needs::Read,
        params: Some(&cron::STATUS_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(cron::standing(knowledge, call))),
    },
    Method {
        name: "cron.update",
        needs: Needs::Admin,
        params: Some(&cron::UPDATE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(cron::update(knowledge, call))),
    },
    Method {
        name: restart::PREFLIGHT,
        needs: Needs::Read,
        params: Some(&restart::PREFLIGHT_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(restart::preflight(knowledge, call))),
    },
    Method {
        name: restart::REQUEST,
        needs: Needs::Admin,
        params: Some(&restart::REQUEST_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(restart::request(knowledge, call))),
    },
    Method { name: "health", needs: Needs::Nothing, params: None, work: Work::Now(health::answer) },
    Method {
        name: "logs.tail",
        needs: Needs::Read,
        params: Some(&logs::PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(logs::tail(knowledge, call))),
    },
    Method {
        name: "sessions.create",
        needs: Needs::Write,
        params: Some(&sessions::CREATE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(sessions::create(knowledge, call))),
    },
    Method {
        name: "sessions.delete",
        needs: Needs::Admin,
        params: Some(&sessions::DELETE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(sessions::delete(knowledge, call))),
    },
    Method {
        name: "sessions.describe",
        needs: Needs::Read,
        params: Some(&sessions::DESCRIBE_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(sessions::describe(knowledge, call))),
    },
    Method {
        name: "sessions.get",
        needs: Needs::Read,
        params: Some(&history::GET_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(history::get(knowledge, call))),
    },
    Method {
        name: "sessions.list",
        needs: Needs::Read,
        params: Some(&sessions::LIST_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(sessions::list(knowledge, call))),
    },
    Method {
        name: "sessions.patch",
        needs: Needs::Admin,
        params: Some(&sessions::PATCH_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(sessions::patch(knowledge, call))),
    },
    Method {
        name: "sessions.preview",
        needs: Needs::Read,
        params: Some(&history::PREVIEW_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(history::preview(knowledge, call))),
    },
    Method {
        name: "sessions.reset",
        needs: Needs::Admin,
        params: Some(&sessions::RESET_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(sessions::reset(knowledge, call))),
    },
    Method {
        name: "sessions.send",
        needs: Needs::Write,
        params: Some(&sessions::SEND_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(sessions::send(knowledge, call))),
    },
    Method {
        name: "models.list",
        needs: Needs::Read,
        params: Some(&models::PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(models::list(knowledge, call))),
    },
    Method {
        name: "plugins.list",
        needs: Needs::Read,
        params: Some(&plugins::NO_PARAMS),
        work: Work::Later(|_, call| Box::pin(plugins::list(call))),
    },
    Method {
        name: "plugins.reload",
        needs: Needs::Admin,
        params: Some(&plugins::NO_PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(plugins::reload(knowledge, call))),
    },
    Method { name: "status", needs: Needs::Read, params: None, work: Work::Now(status::answer) },
    Method {
        name: "system-presence",
        needs: Needs::Read,
        params: Some(&system_presence::PARAMS),
        work: Work::Later(|knowledge, call| Box::pin(system_presence::list(knowledge, call))),
    },
];

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
