//! How a CLI agent is run: `agents.defaults.cliBackends.<id>` of the configuration, over what is known of `claude-cli`.
//!
//! **Invariants**
//! - `claude-cli` is always there; what the configuration says of it goes before what is known of it, member by member.
//! - Members that are not known here are another version's, and no error.
//! - What the configuration gets wrong is said when it is needed, and is no failure of the program's.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::{Failure, Reason};
use super::reliability::Reliability;
use crate::state::config::{Sealed, Secret};

/// The backend that needs no configuration.
pub(super) const CLAUDE: &str = "claude-cli";

/// Variables that would lead `claude` to another account, endpoint or configuration than its user's.
const CLAUDE_CLEARS: [&str; 38] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_API_KEY_OLD",
    "ANTHROPIC_API_TOKEN",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ANTHROPIC_OAUTH_TOKEN",
    "ANTHROPIC_UNIX_SOCKET",
    "CLAUDE_CONFIG_DIR",
    "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
    "CLAUDE_CODE_OAUTH_SCOPES",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
    "CLAUDE_CODE_PLUGIN_CACHE_DIR",
    "CLAUDE_CODE_PLUGIN_SEED_DIR",
    "CLAUDE_CODE_REMOTE",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_COWORK_PLUGINS",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_VERTEX",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_LOGS_EXPORTER",
    "OTEL_METRICS_EXPORTER",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
];

/// The backends of a configuration, given `agents.defaults.cliBackends`: each, or why it cannot be used.
pub(super) fn backends(
    configured: &BTreeMap<String, Sealed>,
) -> BTreeMap<String, Result<CliBackend, Failure>> {
    let mut entries = BTreeMap::from([(CLAUDE.to_owned(), claude())]);
    for (id, entry) in configured {
        entries.entry(id.clone()).or_default().extend(entry.members().clone());
    }
    let read = |(id, entry): (String, Map<String, Value>)| {
        let mut secrets = Vec::new();
        entry.get("env").into_iter().for_each(|env| gather(env, &mut secrets));
        let backend = serde_json::from_value(Value::Object(entry)).map_err(|wrong| {
            let words = format!("agents.defaults.cliBackends.{id}: {wrong}");
            Failure::hiding(Reason::Config, &words, &secrets)
        });
        (id, backend)
    };
    entries.into_iter().map(read).collect()
}

/// All texts in a value.
fn gather(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| gather(value, texts)),
        Value::Object(members) => members.values().for_each(|value| gather(value, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn claude() -> Map<String, Value> {
    let aliases: Map<String, Value> = [
        ("opus", &["", "-4", "-4.5", "-4.6", "-4.7"][..], &["-4", "-4-5", "-4-6", "-4-7"][..]),
        ("sonnet", &["", "-4.0", "-4.1", "-4.5", "-4.6"], &["-4-0", "-4-1", "-4-5", "-4-6"]),
        ("haiku", &["", "-3.5"], &["-3-5"]),
    ]
    .into_iter()
    .flat_map(|(name, short, long)| {
        let short = short.iter().map(move |version| format!("{name}{version}"));
        let long = long.iter().map(move |version| format!("claude-{name}{version}"));
        short.chain(long).map(move |alias| (alias, name.into()))
    })
    .collect();
    let format = ["-p", "--output-format", "stream-json"];
    let fixed = ["--include-partial-messages", "--verbose", "--setting-sources", "user"];
    let tools = ["--allowedTools", "mcp__openclaw__*"];
    let permission = ["--permission-mode", "bypassPermissions"];
    let args = [&format[..], &fixed, &tools, &permission].concat();
    let resume_args =
        [&format[..], &fixed, &tools, &["--resume", "{sessionId}"], &permission].concat();
    let known = json!({
        "command": "claude",
        "args": args,
        "resumeArgs": resume_args,
        "output": "jsonl",
        "input": "stdin",
        "liveSession": "claude-stdio",
        "bundleMcp": true,
        "modelArg": "--model",
        "modelAliases": aliases,
        "sessionArg": "--session-id",
        "sessionMode": "always",
        "systemPromptFileArg": "--append-system-prompt-file",
        "systemPromptWhen": "first",
        "clearEnv": CLAUDE_CLEARS.as_slice(),
    });
    match known {
        Value::Object(known) => known,
        _ => unreachable!("it is written above"),
    }
}

/// A program that is an agent, and how it is spoken to.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CliBackend {
    /// What is run: a name on the `PATH`, or a path.
    pub(crate) command: String,
    /// Its first arguments.
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Those instead, to go on with a conversation; `{sessionId}` is the conversation's.
    #[serde(default)]
    pub(crate) resume_args: Vec<String>,
    /// What it writes.
    #[serde(default)]
    pub(crate) output: Output,
    /// What it writes when it resumes, if that is something else.
    #[serde(default)]
    pub(crate) resume_output: Option<Output>,
    /// Where it reads the message.
    #[serde(default)]
    pub(crate) input: Input,
    /// The longest message that is an argument, in bytes; a longer one is its standard input.
    #[serde(default)]
    pub(crate) max_prompt_arg_chars: Option<usize>,
    /// Whether it stays for further turns.
    #[serde(default)]
    pub(crate) live_session: Option<LiveSession>,
    /// Whether it is given the worker's tools, by MCP.
    #[serde(default)]
    pub(crate) bundle_mcp: bool,
    /// Variables it gets.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, Secret>,
    /// Variables it does not inherit.
    #[serde(default)]
    pub(crate) clear_env: Vec<String>,
    /// The option before the model.
    #[serde(default)]
    pub(crate) model_arg: Option<String>,
    /// What it calls models.
    #[serde(default)]
    pub(crate) model_aliases: BTreeMap<String, String>,
    /// The option before the id of a new conversation.
    #[serde(default)]
    pub(crate) session_arg: Option<String>,
    /// Several arguments instead; `{sessionId}` is the conversation's.
    #[serde(default)]
    pub(crate) session_args: Vec<String>,
    /// When it is told an id.
    #[serde(default)]
    pub(crate) session_mode: SessionMode,
    /// The option before the system prompt.
    #[serde(default)]
    pub(crate) system_prompt_arg: Option<String>,
    /// The option before a file with the system prompt.
    #[serde(default)]
    pub(crate) system_prompt_file_arg: Option<String>,
    /// When it is given the system prompt.
    #[serde(default)]
    pub(crate) system_prompt_when: SystemPromptWhen,
    /// What it may cost.
    #[serde(default)]
    pub(crate) reliability: Reliability,
}

/// What a program writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    /// One JSON object at its end.
    #[default]
    Json,
    /// The answer.
    Text,
    /// A JSON object a line.
    Jsonl,
}

/// Where a program reads the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Input {
    /// In its last argument, or where that says `{prompt}`.
    #[default]
    Arg,
    /// On its standard input.
    Stdin,
}

/// How a program that stays is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LiveSession {
    /// In stream-json, both ways.
    ClaudeStdio,
}

/// When a program is told the id of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SessionMode {
    /// Always; a new one if there is none.
    #[default]
    Always,
    /// When there is one.
    Existing,
    /// Never.
    None,
}

/// When a program is given the system prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SystemPromptWhen {
    /// At the beginning of a conversation.
    #[default]
    First,
    /// Each time it is started.
    Always,
    /// Never.
    Never,
}

impl CliBackend {
    /// Whether one program answers many turns.
    pub(super) fn is_live(&self) -> bool {
        self.live_session.is_some() && self.output == Output::Jsonl && self.input == Input::Stdin
    }

    /// Whether it can go on with a conversation that another program began.
    pub(super) const fn can_resume(&self) -> bool {
        !self.resume_args.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::state::config::Environment;

    /// The backends of this `agents.defaults.cliBackends`.
    pub(in super::super) fn read(
        configured: &Value,
    ) -> BTreeMap<String, Result<CliBackend, Failure>> {
        backends(&serde_json::from_value(configured.clone()).unwrap())
    }

    #[test]
    fn claude_needs_no_configuration() {
        let backends = read(&json!({}));
        let claude = backends[CLAUDE].as_ref().unwrap();
        assert_eq!((claude.command.as_str(), backends.len()), ("claude", 1));
        assert!(claude.is_live() && claude.can_resume() && claude.bundle_mcp);
        for (alias, model) in [("claude-sonnet-4-6", "sonnet"), ("opus-4.7", "opus")] {
            assert_eq!(claude.model_aliases[alias], model);
        }
    }

    #[test]
    fn what_is_configured_goes_before_what_is_known_and_the_rest_stays() {
        let backends = read(&json!({
            "claude-cli": {"command": "/opt/claude", "env": {"A": "b"}, "fromTheFuture": [1]},
            "my-cli": {"command": "my", "args": ["--json"], "modelArg": "-m"},
        }));
        let claude = backends[CLAUDE].as_ref().unwrap();
        assert_eq!(claude.command, "/opt/claude");
        assert_eq!(claude.env["A"].reveal(&Environment::default()), Some("b"));
        assert_eq!(claude.model_arg.as_deref(), Some("--model"));
        assert!(claude.is_live());
        let own = backends["my-cli"].as_ref().unwrap();
        assert_eq!((own.output, own.input), (Output::Json, Input::Arg));
        assert!(!own.is_live() && !own.can_resume() && !own.bundle_mcp);
    }

    #[test]
    fn an_entry_that_cannot_be_used_is_named_without_its_secrets_and_the_others_can() {
        for (entry, words) in [
            (json!({}), "missing field `command`"),
            (json!({"command": "x", "output": "yaml"}), "unknown variant `yaml`"),
            (json!({"command": 7}), "invalid type: integer `7`"),
            (json!({"command": "x", "env": "hunter2"}), "string \"[redacted]\""),
        ] {
            let backends = read(&json!({"my-cli": entry}));
            assert!(backends[CLAUDE].is_ok());
            let failure = backends["my-cli"].as_ref().unwrap_err();
            assert_eq!(failure.reason, Reason::Config);
            let detail = &failure.detail;
            assert!(detail.starts_with("agents.defaults.cliBackends.my-cli: "), "{detail}");
            assert!(detail.contains(words), "{detail}");
        }
    }
}
