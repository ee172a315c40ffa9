//! How a program is started: its arguments, environment and directory, from what was asked and nothing else.
//!
//! **Invariants**
//! - Arguments are made anew for each start: none is taken from the program before, whose directory is gone.
//! - No secret is an argument or a file: the token of the tools is a variable, and `mcp.json` names that.
//! - The worker's own credentials and sockets are not inherited.
//! - Whatever a running program would have been started differently for is in its fingerprint.

mod asked;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

pub(super) use self::asked::Asked;
use super::backend::{CliBackend, Input, SessionMode, SystemPromptWhen};
use super::codec::is_session_id;
use super::reliability::Beginning;
use super::scratch::{Furniture, Item};
use crate::state::config::Environment;

/// What stands for the id of a conversation in configured arguments.
const SESSION_ID: &str = "{sessionId}";
/// What stands for the message.
const PROMPT: &str = "{prompt}";
/// Where things lie in the scratch directory.
const MCP_CONFIG: &str = "mcp.json";
const PLUGIN: &str = "plugin";
const SYSTEM_PROMPT: &str = "system-prompt.md";
/// The variable that holds the token of the tools.
const MCP_TOKEN: &str = "OPENCLAW_MCP_TOKEN";
/// A program that stays speaks stream-json both ways, whatever else is configured.
const LIVE: [[&str; 2]; 3] = [
    ["--input-format", "stream-json"],
    ["--output-format", "stream-json"],
    ["--permission-prompt-tool", "stdio"],
];
/// It says what it was told, so that a turn's answer begins visibly.
const REPLAY: &str = "--replay-user-messages";
/// Where turns come from, as far as tools are told.
const CHANNEL: &str = "webchat";
/// What the worker was started with and is nobody else's business. What begins like the last two is not, either.
const WITHHELD: [&str; 9] = [
    "OPENCLAW_GATEWAY_TOKEN",
    "OPENCLAW_GATEWAY_PASSWORD",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];
const WITHHELD_PREFIXES: [&str; 2] = ["HOLDFAST_", "OPENCLAW_MCP_"];

/// Who may ask for tools, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tools<'a> {
    pub(super) address: SocketAddr,
    pub(super) token: &'a str,
}

/// A conversation, as the program is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conversation {
    /// A new one, which is to be called that, or whatever the program likes.
    New(Option<String>),
    /// The one it calls so.
    Known(String),
}

impl Conversation {
    /// What a program is told when it is started and the last one, if there was one, called the conversation `known`.
    pub(super) fn of(backend: &CliBackend, known: Option<String>) -> Self {
        let known = known.filter(|id| is_session_id(id));
        match (backend.session_mode, known) {
            (SessionMode::None, _) | (SessionMode::Existing, None) => Self::New(None),
            (SessionMode::Existing | SessionMode::Always, Some(known)) => Self::Known(known),
            (SessionMode::Always, None) => Self::New(Some(uuid::Uuid::new_v4().to_string())),
        }
    }

    /// Whether the program knows nothing of it.
    const fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }

    /// How it begins, for a program of this backend.
    pub(super) const fn beginning(&self, backend: &CliBackend) -> Beginning {
        match self {
            Self::Known(_) if backend.can_resume() => Beginning::Resumed,
            Self::Known(_) | Self::New(_) => Beginning::Fresh,
        }
    }
}

/// What the program finds in its directory.
pub(super) fn furniture(
    asked: &Asked,
    backend: &CliBackend,
    tools: Option<Tools<'_>>,
) -> Furniture {
    let mut furniture = Furniture::new();
    if let Some(Tools { address, .. }) = tools {
        let variable = |name: &str| format!("${{OPENCLAW_MCP_{name}}}");
        let server = json!({
            "type": "http",
            "url": format!("http://{address}/mcp"),
            "headers": {
                "Authorization": format!("Bearer {}", variable("TOKEN")),
                "x-session-key": variable("SESSION_KEY"),
                "x-openclaw-agent-id": variable("AGENT_ID"),
                "x-openclaw-account-id": variable("ACCOUNT_ID"),
                "x-openclaw-message-channel": variable("MESSAGE_CHANNEL"),
            },
        });
        let config = json!({"mcpServers": {"openclaw": server}}).to_string();
        furniture.push((MCP_CONFIG.into(), Item::Text(config)));
    }
    if let Some(prompt) = &asked.system_prompt
        && backend.system_prompt_file_arg.is_some()
    {
        furniture.push((SYSTEM_PROMPT.into(), Item::Text(prompt.to_string())));
    }
    if !asked.skills.is_empty() {
        let manifest = json!({
            "name": "openclaw-skills",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The skills of this agent.",
        });
        let place = Path::new(PLUGIN).join(".claude-plugin/plugin.json");
        furniture.push((place, Item::Text(manifest.to_string())));
        let place = |name: &str| Path::new(PLUGIN).join("skills").join(name);
        let skills = asked.skills.iter();
        furniture.extend(skills.map(|(name, path)| (place(name), Item::Link(path.clone()))));
    }
    furniture
}

/// The arguments after the command, given what lies in `scratch`.
pub(super) fn arguments(
    asked: &Asked,
    backend: &CliBackend,
    conversation: &Conversation,
    scratch: (&Path, &Furniture),
) -> Vec<String> {
    let beginning = conversation.beginning(backend);
    let mut args = match (beginning, conversation) {
        (Beginning::Resumed, Conversation::Known(id)) => {
            backend.resume_args.iter().map(|arg| arg.replace(SESSION_ID, id)).collect()
        }
        _ => backend.args.clone(),
    };
    if backend.is_live() {
        // Before anything follows that an option without its value could swallow.
        LIVE.iter().for_each(|[option, _]| remove_option(&mut args, option));
        args.retain(|arg| arg != REPLAY);
    }
    let (directory, furniture) = scratch;
    let place = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let holds = |name: &str| furniture.iter().any(|(path, _)| path.starts_with(name));
    if holds(MCP_CONFIG) {
        args.extend(["--strict-mcp-config", "--mcp-config"].map(str::to_owned));
        args.push(place(MCP_CONFIG));
    }
    if holds(PLUGIN) {
        args.extend(["--plugin-dir".to_owned(), place(PLUGIN)]);
    }
    if let (Some(option), Some(model)) = (&backend.model_arg, model(asked, backend)) {
        args.extend([option.clone(), model.to_owned()]);
    }
    if let Some(prompt) = &asked.system_prompt
        && gives_system_prompt(backend, beginning)
    {
        if let Some(option) = &backend.system_prompt_file_arg {
            args.extend([option.clone(), place(SYSTEM_PROMPT)]);
        } else if let Some(option) = &backend.system_prompt_arg {
            args.extend([option.clone(), prompt.to_string()]);
        }
    }
    if backend.is_live() {
        args.extend(LIVE.as_flattened().iter().copied().chain([REPLAY]).map(str::to_owned));
        return args;
    }
    if let (Beginning::Fresh, Conversation::New(Some(id)) | Conversation::Known(id)) =
        (beginning, conversation)
    {
        if !backend.session_args.is_empty() {
            args.extend(backend.session_args.iter().map(|arg| arg.replace(SESSION_ID, id)));
        } else if let Some(option) = &backend.session_arg {
            args.extend([option.clone(), id.clone()]);
        }
    }
    if stdin(asked, backend, conversation).is_none() {
        if !args.iter().any(|arg| arg == PROMPT) {
            args.push(PROMPT.to_owned());
        }
        for arg in args.iter_mut().filter(|arg| *arg == PROMPT) {
            *arg = asked.told(conversation.is_new());
        }
    }
    args
}

/// What a program that does not stay reads on its standard input, unless the message is an argument.
pub(super) fn stdin(
    asked: &Asked,
    backend: &CliBackend,
    conversation: &Conversation,
) -> Option<String> {
    let message = asked.told(conversation.is_new());
    let is_long = backend.max_prompt_arg_chars.is_some_and(|most| message.len() > most);
    (backend.input == Input::Stdin || is_long).then_some(message)
}

/// What the program calls the model that was asked for.
fn model<'a>(asked: &'a Asked, backend: &'a CliBackend) -> Option<&'a str> {
    let model = asked.model.as_deref()?;
    let alias = backend.model_aliases.get(model);
    let alias = alias.or_else(|| backend.model_aliases.get(&model.to_lowercase()));
    Some(alias.map_or(model, String::as_str))
}

const fn gives_system_prompt(backend: &CliBackend, beginning: Beginning) -> bool {
    match backend.system_prompt_when {
        SystemPromptWhen::Never => false,
        SystemPromptWhen::Always => true,
        SystemPromptWhen::First => matches!(beginning, Beginning::Fresh),
    }
}

/// Removes an option and its value, however they are written.
fn remove_option(args: &mut Vec<String>, option: &str) {
    let is_both = |arg: &str| arg.strip_prefix(option).is_some_and(|rest| rest.starts_with('='));
    args.retain(|arg| !is_both(arg));
    while let Some(at) = args.iter().position(|arg| arg == option) {
        args.drain(at..args.len().min(at + 2));
    }
}

/// The environment of the program, all of it.
pub(super) fn environment(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    asked: &Asked,
    backend: &CliBackend,
    values: &Environment,
    tools: Option<Tools<'_>>,
) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<_, _> =
        inherited.filter(|(name, _)| !is_withheld(name, backend)).collect();
    for (name, value) in &backend.env {
        // One that names a variable which is not set is not set, either.
        if let Some(value) = value.reveal(values) {
            environment.insert(name.into(), value.into());
        }
    }
    if let Some(Tools { token, .. }) = tools {
        let own = [
            (MCP_TOKEN, token),
            ("OPENCLAW_MCP_SESSION_KEY", &asked.session),
            ("OPENCLAW_MCP_AGENT_ID", &asked.agent),
            ("OPENCLAW_MCP_ACCOUNT_ID", ""),
            ("OPENCLAW_MCP_MESSAGE_CHANNEL", CHANNEL),
        ];
        environment.extend(own.map(|(name, value)| (name.into(), value.into())));
    }
    environment
}

fn is_withheld(name: &OsStr, backend: &CliBackend) -> bool {
    let Some(name) = name.to_str() else { return false };
    WITHHELD.contains(&name)
        || WITHHELD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || backend.clear_env.iter().any(|cleared| cleared == name)
}

/// What a program was started for: one of another fingerprint would answer as somebody else.
pub(super) fn fingerprint(
    asked: &Asked,
    backend: &CliBackend,
    values: &Environment,
    tools: &[&str],
) -> String {
    let mut hash = Sha256::new();
    let mut part = |name: &str, value: &[u8]| {
        for bytes in [name.as_bytes(), value] {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    };
    part("command", backend.command.as_bytes());
    for arg in backend.args.iter().chain(["\0".to_owned()].iter()).chain(&backend.resume_args) {
        part("arg", arg.as_bytes());
    }
    part("model", model(asked, backend).unwrap_or_default().as_bytes());
    part("prompt", asked.system_prompt.as_deref().unwrap_or_default().as_bytes());
    part("workspace", asked.workspace.as_os_str().as_encoded_bytes());
    part("agent", asked.agent.as_bytes());
    part("life", asked.life.as_bytes());
    for (name, path) in &asked.skills {
        part("skill", name.as_bytes());
        part("path", path.as_os_str().as_encoded_bytes());
    }
    for (name, value) in &backend.env {
        part("variable", name.as_bytes());
        part("value", value.reveal(values).unwrap_or_default().as_bytes());
    }
    for name in &backend.clear_env {
        part("cleared", name.as_bytes());
    }
    for tool in tools {
        part("tool", tool.as_bytes());
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

#[cfg(test)]
pub(super) mod tests;
