//! The table of all methods that come with the worker: who may call each, with which parameters, and what it does.
//!
//! **Invariants**
//! - A method that is not here, and is no plugin's, does not exist: the registry advertises and finds nothing else.

use super::{
    Method, Work, agent, agent_files, agents, chat, config, cron, devices, health, history, logs,
    models, plugins, restart, sessions, status, system_presence, wait,
};
use crate::identity::Needs;

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
