//! A command and a front that are not of the same version, or not there at all.

use std::path::Path;

use holdfast_tests::rig::{Front, Outcome, binaries, soon};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;

use crate::{good, skipped};

/// What the front answers to these bytes.
async fn answered(front: &Front, request: &str) -> String {
    let mut stream = UnixStream::connect(front.control()).await.expect("it can be done");
    stream.write_all(format!("{request}\n").as_bytes()).await.expect("it can be done");
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.expect("it can be done");
    answer
}

/// Runs a command against a front that says these lines, whatever it is asked.
async fn asked_of(lines: &'static str, words: &[&str]) -> Outcome {
    let place = tempfile::tempdir().expect("it can be done");
    let control = place.path().join("control.sock");
    let listener = UnixListener::bind(&control).expect("it can be done");
    let front = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut request = String::new();
            let _ = BufReader::new(read).read_line(&mut request).await;
            let _ = write.write_all(lines.as_bytes()).await;
        }
    });
    let outcome = command(words, &control).await;
    front.abort();
    outcome
}

async fn command(words: &[&str], control: &Path) -> Outcome {
    let mut command = Command::new(binaries::holdfast());
    command.args(words).env_clear().env("HOLDFAST_CONTROL", control).kill_on_drop(true);
    soon("the command ends", command.output()).await.expect("it can be done").into()
}

#[tokio::test]
async fn a_newer_command_is_refused_by_the_front_with_the_binary_that_speaks_its_version() {
    let front = Front::with(good).await;
    let answer = answered(&front, r#"{"version":2,"command":{"type":"status"}}"#).await;
    assert!(answer.contains("speaks version 1") && answer.contains("the caller 2"), "{answer}");
    // That binary is there even if its file is gone, and is asked like any other.
    let own = format!("/proc/{}/exe", front.process().pid());
    assert!(answer.contains(&own), "{answer}");
    let mut own = Command::new(own);
    own.arg("status").env("HOLDFAST_CONTROL", front.control());
    let outcome = Outcome::from(soon("its answer", own.output()).await.unwrap());
    outcome.assert_code(0);
}

#[tokio::test]
async fn a_command_that_an_older_front_does_not_know_is_refused_by_its_name() {
    let front = Front::with(good).await;
    let answer = answered(&front, r#"{"version":1,"command":{"type":"levitate"}}"#).await;
    assert!(answer.contains("does not know") && answer.contains("levitate"), "{answer}");
    assert!(answer.contains("holdfast reexec"), "{answer}");
    assert_eq!(front.status().await.takeovers.committed, 0);
}

#[tokio::test]
async fn what_a_newer_front_says_besides_is_passed_over() {
    let lines = "{\"event\":\"requested\",\"takeover\":1}\n\
                 {\"event\":\"levitating\",\"height\":3}\n\
                 {\"event\":\"done\",\"outcome\":\"committed\",\"cut\":0,\"reason\":null,\"colour\":\"green\"}\n";
    asked_of(lines, &["takeover"]).await.assert_code(0);
}

#[tokio::test]
async fn words_of_a_version_that_is_not_understood_are_a_clear_refusal() {
    for lines in ["{\"happening\":7}\n", "hello\n"] {
        for words in [&["status"][..], &["takeover"], &["healthcheck"]] {
            let outcome = asked_of(lines, words).await;
            outcome.assert_code(1).assert_says("another version").assert_says("/proc/PID/exe");
        }
    }
}

#[tokio::test]
async fn what_an_older_front_refuses_is_shown_as_it_says_it() {
    let lines = "{\"event\":\"refused\",\"reason\":\"this front speaks version 0 of the control protocol\"}\n";
    let outcome = asked_of(lines, &["status"]).await;
    outcome.assert_code(1).assert_says("speaks version 0");
}

#[tokio::test]
async fn where_no_front_is_it_is_said_which_socket_was_asked_and_how_to_start_one() {
    let place = tempfile::tempdir().unwrap();
    let control = place.path().join("control.sock");
    for words in [
        &["status"][..],
        &["takeover"],
        &["drain", "--now", "g1"],
        &["pause"],
        &["resume"],
        &["reexec"],
        &["stop"],
        &["logs"],
        &["healthcheck"],
    ] {
        let outcome = command(words, &control).await;
        outcome.assert_code(1).assert_says(control.to_str().unwrap()).assert_says("holdfast run");
    }
}

#[tokio::test]
async fn who_may_not_ask_is_told_whose_front_it_is() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can try as another user");
    }
    let front = Front::with(good).await;
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("holdfast");
    // By another process: one that is forked here while the copy is open could not execute it.
    let mut copy = Command::new("cp");
    copy.arg(binaries::holdfast()).arg(&program);
    assert!(copy.status().await.unwrap().success());
    for path in [place.path(), &program, front.directory()] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    nobody.arg("status").arg("--control").arg(front.control()).env("HOME", "/nonexistent");
    let outcome = Outcome::from(soon("the answer", nobody.output()).await.unwrap());
    outcome.assert_code(1).assert_says("user 65534 may not ask").assert_says("user 0's");
}
