//! `holdfast prove`: it is right about what holds, notices what does not, and touches nothing without leave.

use std::path::Path;
use std::process::Stdio;

use holdfast_tests::rig::{Front, Outcome, Signal, binaries, eventually, soon};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::Command;

use crate::{fixture, generation, good, quick};

/// Few clients, so that many tests can run side by side.
const FEW: [&str; 6] = ["--connections", "12", "--ws", "6", "--rate", "100"];

/// `holdfast prove` of somebody who has no front, in a directory of their own.
fn prove(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(binaries::holdfast());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", directory).env("TMPDIR", directory).arg("prove").args(words);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn outcome(mut command: Command) -> Outcome {
    soon("it ends", command.output()).await.expect("it is built").into()
}

fn document(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.output).unwrap_or_else(|_| panic!("no JSON: {outcome:?}"))
}

/// The requests of a load that were answered, if it was run.
fn answered(document: &Value, load: &str) -> Option<u64> {
    let loads = document["loads"].as_array().expect("a list");
    loads.iter().find(|said| said["load"] == load)?["answered"].as_u64()
}

#[tokio::test]
async fn the_bundled_worker_holds_under_all_loads_and_nothing_is_left_behind() {
    let place = tempfile::tempdir().unwrap();
    let words = [&["--private", "--takeovers", "2", "--json"][..], &FEW].concat();
    let outcome = outcome(prove(place.path(), &words)).await;
    outcome.assert_code(0);
    let document = document(&outcome);
    assert_eq!((&document["schema"], &document["held"]), (&1.into(), &true.into()), "{document}");
    assert_eq!(document["takeovers"]["committed"], 2);
    for load in ["new connections", "keep-alive", "streams", "websockets"] {
        assert!(answered(&document, load).is_some_and(|count| count > 0), "{load}: {document}");
    }
    for side in ["before", "during"] {
        assert!(document["latency"][side]["p50_us"].is_u64(), "{document}");
    }
    let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_worker_that_loses_requests_fails_the_proof_which_names_how() {
    let place = tempfile::tempdir().unwrap();
    let words = [&["--private", "--takeovers", "1"][..], &FEW, &["--"]].concat();
    let mut command = prove(place.path(), &words);
    command.args(fixture(["loses:9"]).words());
    let outcome = outcome(command).await;
    outcome.assert_code(1);
    let verdict = outcome.output.lines().last().unwrap_or_default();
    assert!(verdict.starts_with("failed: ") && verdict.contains(" closed early"), "{outcome:?}");
    assert!(outcome.output.contains("websockets: not run, "), "{outcome:?}");
    // What its workers have said is kept.
    let kept = outcome.errors.rsplit(" is in ").next().unwrap_or_default().trim();
    assert!(Path::new(kept).is_file(), "{outcome:?}");
}

#[tokio::test]
async fn the_running_front_is_taken_over_as_often_as_was_said() {
    let front = Front::with(good).await;
    let words = [&["prove", "--yes", "--takeovers", "2", "--path", "/here"][..], &FEW].concat();
    let outcome = front.run(&words).await;
    outcome.assert_code(0).assert_says("is taken over 2 times");
    assert!(outcome.output.contains("GET /here"), "{outcome:?}");
    assert!(outcome.output.ends_with("lost in 2 takeovers\n"), "{outcome:?}");
    assert_eq!(front.serving().await.generation, generation(3));
}

#[tokio::test]
async fn a_takeover_that_is_rolled_back_fails_the_proof() {
    let program = fixture(["first-good", "refuse:not-today"]);
    let front = Front::with(|s| quick(s.worker(program))).await;
    let words = [&["prove", "--yes", "--takeovers", "1"][..], &FEW].concat();
    let outcome = front.run(&words).await;
    outcome.assert_code(1);
    let verdict = outcome.output.lines().last().unwrap_or_default();
    assert!(verdict.contains("1 of 1 takeovers were not made: rolled back"), "{outcome:?}");
    assert!(verdict.contains("not-today"), "{outcome:?}");
}

#[tokio::test]
async fn a_running_front_is_left_alone_when_nobody_can_agree() {
    let front = Front::with(good).await;
    let outcome = front.run(&["prove"]).await;
    outcome.assert_code(64).assert_says("--yes");
    outcome.assert_says("holdfast prove --private");
    assert_eq!(front.serving().await.generation, generation(1));
}

#[tokio::test]
async fn without_a_front_one_of_its_own_is_proved_and_that_is_said() {
    let place = tempfile::tempdir().unwrap();
    let outcome = outcome(prove(place.path(), &[&["--takeovers", "1"][..], &FEW].concat())).await;
    outcome
        .assert_code(0)
        .assert_says("no front answers on ")
        .assert_says(".holdfast/control.sock");
    outcome.assert_says("--private");
}

#[tokio::test]
async fn an_interrupt_ends_it_with_the_verdict_on_what_has_come() {
    let front = Front::with(good).await;
    let words = [&["prove", "--yes", "--takeovers", "1000", "--json"][..], &FEW].concat();
    let mut command = front.command(&words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it is built");
    let pid = Pid::from_raw(i32::try_from(child.id().expect("it runs")).unwrap());
    front.until("a takeover was made", |status| status.takeovers.committed > 0).await;
    kill(pid, Signal::SIGINT).unwrap();
    let outcome: Outcome = soon("it ends", child.wait_with_output()).await.unwrap().into();
    outcome.assert_code(0);
    let document = document(&outcome);
    assert_eq!(document["ended"], "interrupted", "{document}");
    assert!(answered(&document, "new connections").is_some_and(|count| count > 0), "{document}");
}

#[tokio::test]
async fn a_worker_that_answers_nothing_good_is_nothing_to_prove() {
    let front = Front::start().await;
    let outcome = front.run(&["prove", "--yes", "--path", "/nowhere"]).await;
    outcome.assert_code(1).assert_says("GET /nowhere is answered 404").assert_says("--path /PATH");
    assert_eq!(front.serving().await.generation, generation(1));
}

#[tokio::test]
async fn what_cannot_be_meant_is_a_mistake_of_usage() {
    let place = tempfile::tempdir().unwrap();
    for words in [
        &["--takeovers", "0"][..],
        &["--takeovers", "many"],
        &["--connections", "0"],
        &["--ws", "-1"],
        &["--rate", "0"],
        &["--limit", "0s"],
        &["--limit", "5"],
        &["--path", "healthz"],
        &["--private", "--yes"],
        &["--yes", "--", "program"],
        &["--token-file", "/nowhere/token"],
        &["--explode"],
    ] {
        let outcome = outcome(prove(place.path(), words)).await;
        outcome.assert_code(64);
        assert!(!outcome.errors.is_empty(), "{words:?}");
    }
}

#[tokio::test]
async fn more_connections_than_descriptors_are_refused_before_anything_starts() {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    let script = "ulimit -n 200 && exec \"$0\" prove --private";
    command.args(["-c", script]).arg(binaries::holdfast()).env("HOME", place.path());
    let outcome = outcome(command).await;
    outcome.assert_code(64).assert_says("464 descriptors").assert_says("--connections 50");
}

#[tokio::test]
async fn a_program_that_does_not_start_is_told_of_in_its_own_words() {
    let place = tempfile::tempdir().unwrap();
    let mut command = prove(place.path(), &["--private", "--"]);
    command.arg("/nowhere/program");
    let outcome = outcome(command).await;
    outcome.assert_code(78).assert_says("/nowhere/program");
    let gone = async || std::fs::read_dir(place.path()).unwrap().next().is_none().then_some(());
    eventually("nothing is left", gone).await;
}
