//! `holdfast-worker check`: what it says of a configuration, and how it exits.

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{command, within};

/// Runs a check to its end; its exit code and what it said.
async fn check(command: &mut tokio::process::Command, arguments: &[&str]) -> (Option<i32>, String) {
    let command = command.arg("check").args(arguments).stdout(Stdio::piped());
    let output = within("the check", command.output()).await.unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn written(dir: &TempDir, text: &str) -> String {
    let path = dir.path().join("openclaw.json");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn all_that_is_wrong_is_placed_and_exits_78() {
    let dir = tempfile::tempdir().unwrap();
    let text = "// ours\n{\n  gateway: { port: 'hunter2', auth: { token: '${NO_SUCH}' } },\n  agents: { list: [{ name: 'x' }] },\n}\n";
    let path = written(&dir, text);
    let (code, said) = check(&mut command(&dir), &["--config", &path]).await;
    assert_eq!(code, Some(78));
    let expected = [
        "3:20: error: gateway.port: this is a string; write a number from 1 to 65535",
        "3:46: error: gateway.auth.token: the environment has no NO_SUCH; set NO_SUCH before starting",
        "4:20: error: agents.list[0]: `id` is missing; add `id`",
    ];
    assert_eq!(said, expected.map(|line| format!("{path}:{line}\n")).concat());
    assert!(!said.contains("hunter2"), "no value is shown");
    assert!(!dir.path().join("state").exists(), "a check makes nothing");
}

#[tokio::test]
async fn a_configuration_that_openclaw_wrote_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, include_str!("../fixtures/openclaw-2026.5.12.json"));
    for arguments in [&["--config", &path][..], &[]] {
        let (code, said) = check(command(&dir).env("OPENCLAW_CONFIG_PATH", &path), arguments).await;
        assert_eq!(said, format!("{path}: usable: 2 agents, 1 model provider\n"));
        assert_eq!(code, Some(0));
    }
}

#[tokio::test]
async fn without_a_file_the_defaults_hold_unless_one_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = check(command(&dir).env("OPENCLAW_STATE_DIR", dir.path()), &[]).await;
    assert!(said.ends_with("openclaw.json: there is no such file; the defaults hold\n"), "{said}");
    assert_eq!(code, Some(0));
    let (code, said) = check(&mut command(&dir), &["--config", "/nowhere/openclaw.json"]).await;
    assert_eq!(said, "/nowhere/openclaw.json: error: there is no such file\n");
    assert_eq!(code, Some(78));
}

#[tokio::test]
async fn a_file_that_is_no_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, "");
    for content in [&b"\xff"[..], &vec![b' '; 4 * 1024 * 1024 + 1]] {
        std::fs::write(&path, content).unwrap();
        let (code, said) = check(&mut command(&dir), &["--config", &path]).await;
        assert!(said.starts_with(&format!("{path}: error: ")), "{said}");
        assert_eq!(code, Some(78));
    }
}

#[tokio::test]
async fn the_schema_is_a_json_schema_that_refuses_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = check(&mut command(&dir), &["--schema"]).await;
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&said).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("2020-12"));
    assert!(schema["properties"]["gateway"].is_object());
    assert!(!said.contains("\"additionalProperties\": false"));
}

#[tokio::test]
async fn what_a_check_does_not_understand_exits_64() {
    let dir = tempfile::tempdir().unwrap();
    let status = command(&dir).args(["check", "--no-such-flag"]).status();
    assert_eq!(within("the check", status).await.unwrap().code(), Some(64));
}
