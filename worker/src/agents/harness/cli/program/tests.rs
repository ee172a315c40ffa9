//! Arguments as they were recorded, and what changes them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::backend::CLAUDE;
use super::super::backend::tests::read;
use super::*;

pub(in super::super) fn asked() -> Asked {
    Asked {
        session: "agent:main:main".to_owned(),
        life: "1".to_owned(),
        said: Arc::default(),
        agent: "main".to_owned(),
        message: "one".to_owned(),
        model: Some("claude-sonnet-4-6".to_owned()),
        system_prompt: Some("You are helpful.".into()),
        skills: vec![("weather".to_owned(), "/home/user/ws/skills/weather".into())],
        workspace: "/home/user/ws".into(),
        timeout: Duration::from_secs(600),
        conversation: None,
    }
}

fn backend(configured: Value) -> CliBackend {
    let configured = json!({CLAUDE: configured});
    read(&configured).remove(CLAUDE).unwrap().unwrap()
}

fn tools() -> Tools<'static> {
    Tools { address: "127.0.0.1:37015".parse().unwrap(), token: "t0ken" }
}

fn args(asked: &Asked, backend: &CliBackend, conversation: &Conversation) -> String {
    let tools = backend.bundle_mcp.then(tools);
    let furniture = furniture(asked, backend, tools);
    arguments(asked, backend, conversation, (Path::new("/s"), &furniture)).join(" ")
}

fn known() -> Conversation {
    Conversation::Known("id-1".to_owned())
}

#[test]
fn a_live_session_is_started_with_the_recorded_arguments() {
    assert_eq!(
        args(&asked(), &backend(json!({})), &Conversation::New(Some("new".to_owned()))),
        "-p --include-partial-messages --verbose --setting-sources user --allowedTools mcp__openclaw__* \
         --permission-mode bypassPermissions --strict-mcp-config --mcp-config /s/mcp.json \
         --plugin-dir /s/plugin --model sonnet --append-system-prompt-file /s/system-prompt.md \
         --input-format stream-json --output-format stream-json --permission-prompt-tool stdio \
         --replay-user-messages"
    );
}

#[test]
fn one_that_resumes_is_told_the_conversation_and_not_the_prompt() {
    assert_eq!(
        args(&asked(), &backend(json!({})), &known()),
        "-p --include-partial-messages --verbose --setting-sources user --allowedTools mcp__openclaw__* \
         --resume id-1 --permission-mode bypassPermissions --strict-mcp-config --mcp-config /s/mcp.json \
         --plugin-dir /s/plugin --model sonnet \
         --input-format stream-json --output-format stream-json --permission-prompt-tool stdio \
         --replay-user-messages"
    );
}

#[test]
fn other_programs_are_started_as_they_are_configured() {
    let base = json!({
        "args": ["go"], "resumeArgs": null, "liveSession": null, "bundleMcp": false, "input": "arg",
        "output": "json", "modelArg": "-m", "sessionArg": "--session", "systemPromptFileArg": null,
        "systemPromptArg": "--system",
    });
    let plain = Asked { skills: Vec::new(), ..asked() };
    let new = Conversation::New(Some("new".to_owned()));
    let go = "go -m sonnet --system You are helpful.";
    for (change, conversation, expected) in [
        (json!({}), &new, format!("{go} --session new one")),
        (json!({}), &known(), format!("{go} --session id-1 one")),
        (json!({}), &Conversation::New(None), format!("{go} one")),
        (json!({"sessionArgs": ["-s", "x{sessionId}"]}), &known(), format!("{go} -s xid-1 one")),
        (
            json!({"resumeArgs": ["on", "{sessionId}"]}),
            &known(),
            "on id-1 -m sonnet one".to_owned(),
        ),
        (
            json!({"resumeArgs": ["on"], "systemPromptWhen": "always"}),
            &known(),
            "on -m sonnet --system You are helpful. one".to_owned(),
        ),
        (
            json!({"systemPromptWhen": "never"}),
            &Conversation::New(None),
            "go -m sonnet one".to_owned(),
        ),
        (
            json!({"args": ["--p", "{prompt}", "x"], "systemPromptArg": null}),
            &Conversation::New(None),
            "--p one x -m sonnet".to_owned(),
        ),
        (json!({"input": "stdin"}), &Conversation::New(None), go.to_owned()),
        (json!({"maxPromptArgChars": 2}), &Conversation::New(None), go.to_owned()),
        (json!({"maxPromptArgChars": 3}), &Conversation::New(None), format!("{go} one")),
    ] {
        let mut configured = base.clone();
        configured.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        for null in ["resumeArgs"] {
            if configured[null].is_null() {
                configured[null] = json!([]);
            }
        }
        assert_eq!(args(&plain, &backend(configured), conversation), expected, "{change}");
    }
}

#[test]
fn a_message_is_never_taken_for_another_placeholder() {
    let backend = backend(json!({
        "args": ["{prompt}"], "liveSession": null, "bundleMcp": false, "input": "arg",
        "sessionArg": null, "modelArg": null, "systemPromptWhen": "never",
    }));
    let asked = Asked { message: "{sessionId} {prompt}".to_owned(), skills: vec![], ..asked() };
    assert_eq!(args(&asked, &backend, &known()).split_once(' ').unwrap().0, "-p");
    let fresh = Conversation::New(Some("x".to_owned()));
    assert_eq!(args(&asked, &backend, &fresh), "{sessionId} {prompt}");
}

#[test]
fn an_option_that_is_given_otherwise_is_given_once() {
    let backend = backend(json!({
        "args": ["--output-format", "text", "--input-format=text", "--replay-user-messages", "-x", "--output-format"],
    }));
    let args = args(&asked(), &backend, &Conversation::New(None));
    assert!(args.starts_with("-x --strict-mcp-config"), "{args}");
    assert_eq!(args.matches("--output-format").count(), 1);
    assert_eq!(args.matches("--replay-user-messages").count(), 1);
}

#[test]
fn which_conversation_it_is_told_follows_the_mode() {
    let id = || Some("id-1".to_owned());
    for (mode, known_id, expected) in [
        ("always", id(), Some(known())),
        ("always", None, None),
        ("always", Some("--evil".to_owned()), None),
        ("existing", id(), Some(known())),
        ("existing", None, Some(Conversation::New(None))),
        ("none", id(), Some(Conversation::New(None))),
    ] {
        let backend = backend(json!({"sessionMode": mode}));
        let told = Conversation::of(&backend, known_id.clone());
        match expected {
            Some(expected) => assert_eq!(told, expected, "{mode} {known_id:?}"),
            None => assert!(matches!(told, Conversation::New(Some(_))), "{mode} {known_id:?}"),
        }
    }
}

#[test]
fn the_environment_has_what_it_needs_and_no_more() {
    let backend = backend(json!({"env": {"OWN": "1", "KEY": "${SECRET}", "UNSET": "${NONE}"}}));
    let inherited = [
        ("PATH", "/bin"),
        ("HOME", "/home/user"),
        ("HOLDFAST_LINK_FD", "3"),
        ("HOLDFAST_TOKEN", "x"),
        ("OPENCLAW_GATEWAY_TOKEN", "x"),
        ("OPENCLAW_MCP_TOKEN", "stale"),
        ("ANTHROPIC_API_KEY", "x"),
        ("NOTIFY_SOCKET", "/run/x"),
    ];
    let inherited = inherited.map(|(name, value)| (name.into(), value.into()));
    let values = Environment::of([("SECRET", "s3cret")]);
    let environment =
        environment(inherited.into_iter(), &asked(), &backend, &values, Some(tools()));
    let shown: Vec<String> = environment
        .iter()
        .map(|(name, value)| format!("{}={}", name.display(), value.display()))
        .collect();
    assert_eq!(
        shown,
        [
            "HOME=/home/user",
            "KEY=s3cret",
            "OPENCLAW_MCP_ACCOUNT_ID=",
            "OPENCLAW_MCP_AGENT_ID=main",
            "OPENCLAW_MCP_MESSAGE_CHANNEL=webchat",
            "OPENCLAW_MCP_SESSION_KEY=agent:main:main",
            "OPENCLAW_MCP_TOKEN=t0ken",
            "OWN=1",
            "PATH=/bin",
        ]
    );
}

#[test]
fn the_directory_names_the_tools_and_holds_no_secret() {
    let furniture = furniture(&asked(), &backend(json!({})), Some(tools()));
    let paths: Vec<_> = furniture.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "mcp.json",
            "system-prompt.md",
            "plugin/.claude-plugin/plugin.json",
            "plugin/skills/weather"
        ]
    );
    let Item::Text(config) = &furniture[0].1 else { panic!("{furniture:?}") };
    let config: Value = serde_json::from_str(config).unwrap();
    let server = &config["mcpServers"]["openclaw"];
    assert_eq!(server["type"], "http");
    assert_eq!(server["url"], "http://127.0.0.1:37015/mcp");
    assert_eq!(server["headers"]["Authorization"], "Bearer ${OPENCLAW_MCP_TOKEN}");
    assert!(!config.to_string().contains("t0ken"));
}

#[test]
fn whatever_a_program_would_be_started_differently_for_changes_its_fingerprint() {
    let values = Environment::of([("SECRET", "1")]);
    let print = |asked: &Asked, configured: Value, tools: &[&str]| {
        fingerprint(asked, &backend(configured), &values, tools)
    };
    let first = print(&asked(), json!({}), &["a"]);
    let same = [
        Asked { message: "two".to_owned(), ..asked() },
        Asked { conversation: Some("id-1".to_owned()), timeout: Duration::ZERO, ..asked() },
        Asked { model: Some("sonnet".to_owned()), ..asked() },
    ];
    for asked in same {
        assert_eq!(print(&asked, json!({}), &["a"]), first, "{asked:?}");
    }
    let other = [
        Asked { model: Some("opus".to_owned()), ..asked() },
        Asked { system_prompt: None, ..asked() },
        Asked { workspace: "/elsewhere".into(), ..asked() },
        Asked { skills: vec![], ..asked() },
        Asked { life: "2".to_owned(), ..asked() },
    ];
    for asked in other {
        assert_ne!(print(&asked, json!({}), &["a"]), first, "{asked:?}");
    }
    for configured in [
        json!({"command": "/opt/claude"}),
        json!({"args": ["-p"]}),
        json!({"env": {"A": "1"}}),
        json!({"clearEnv": []}),
    ] {
        assert_ne!(print(&asked(), configured.clone(), &["a"]), first, "{configured}");
    }
    assert_ne!(print(&asked(), json!({}), &["a", "b"]), first);
    let named = json!({"env": {"A": "${SECRET}"}});
    let later = Environment::of([("SECRET", "2")]);
    assert_ne!(
        print(&asked(), named.clone(), &["a"]),
        fingerprint(&asked(), &backend(named), &later, &["a"]),
    );
}
