//! Which program a takeover starts, and what it is given.

use std::os::unix::fs::symlink;

use holdfast_tests::rig::{Front, Program, binaries};

use crate::{fixture, good, quick};

#[tokio::test]
async fn another_program_becomes_that_of_later_generations_too() {
    let front = Front::with(good).await;
    let bundled = Program::new(binaries::holdfast_worker());
    front.takeover_to(&bundled).await.assert_committed();
    assert_eq!(executable(&front).await, binaries::holdfast_worker());
    front.takeover().await.assert_committed();
    assert_eq!(executable(&front).await, binaries::holdfast_worker());
}

#[tokio::test]
async fn a_program_named_by_a_flag_keeps_the_arguments() {
    let front = Front::with(good).await;
    let place = tempfile::tempdir().unwrap();
    let named = place.path().join("named");
    symlink(env!("CARGO_BIN_EXE_fixture-worker"), &named).unwrap();
    let named = named.to_str().unwrap();
    front.takeover_with(&["--program", named]).await.assert_committed();
    assert_eq!(front.serving().await.worker().unwrap().arguments(), [named, "serve"]);
}

#[tokio::test]
async fn the_path_of_the_program_is_resolved_anew_each_time() {
    let place = tempfile::tempdir().unwrap();
    let link = place.path().join("current");
    symlink(env!("CARGO_BIN_EXE_fixture-worker"), &link).unwrap();
    let front = Front::with(|s| quick(s.worker(Program::new(&link).arg("serve")))).await;
    let fixture = std::path::Path::new(env!("CARGO_BIN_EXE_fixture-worker"));
    assert_eq!(executable(&front).await, fixture);
    let next = place.path().join("next");
    // The bundled worker refuses the fixture's word, so a script in its place takes it away.
    std::fs::write(&next, format!("#!/bin/sh\nexec {}\n", binaries::holdfast_worker().display()))
        .unwrap();
    std::fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let flipped = place.path().join("flipped");
    symlink(&next, &flipped).unwrap();
    std::fs::rename(flipped, link).unwrap();
    front.takeover().await.assert_committed();
    assert_eq!(executable(&front).await, binaries::holdfast_worker());
}

#[tokio::test]
async fn an_env_file_reaches_the_next_generations_and_nobody_else() {
    let front = Front::with(good).await;
    let file = front.directory().join("environment");
    std::fs::write(&file, "# a comment\nCOLOUR=green\nEMPTY=\n\nSPACED=two words\n").unwrap();
    let flags = ["--env-file", file.to_str().unwrap()];
    front.takeover_with(&flags).await.assert_committed();
    for _ in 0..2 {
        let environment = front.serving().await.worker().unwrap().environment();
        let of = |name: &str| environment.get(name).map(String::as_str);
        assert_eq!(of("COLOUR"), Some("green"));
        assert_eq!(of("EMPTY"), Some(""));
        assert_eq!(of("SPACED"), Some("two words"));
        assert_eq!(of("HOLDFAST_LINK"), Some("stdin"));
        front.takeover().await.assert_committed();
    }
    assert!(!front.process().environment().contains_key("COLOUR"));
}

#[tokio::test]
async fn an_env_file_that_cannot_be_read_changes_nothing() {
    let front = Front::with(good).await;
    let outcome = front.run(&["takeover", "--env-file", "/nonexistent/environment"]).await;
    assert_ne!(outcome.code, 0);
    outcome.assert_says("/nonexistent/environment");
    let status = front.status().await;
    assert!(status.is_settled(), "{status:?}");
    assert_eq!(status.takeovers.committed, 0);
}

#[tokio::test]
async fn a_worker_gets_the_directory_and_environment_of_the_front() {
    let directory = tempfile::tempdir().unwrap();
    let front =
        Front::with(|s| good(s).directory(directory.path()).environment("COLOUR", "blue")).await;
    let worker = front.serving().await.worker().unwrap();
    assert_eq!(worker.directory(), Some(directory.path().canonicalize().unwrap()));
    assert_eq!(worker.environment().get("COLOUR").map(String::as_str), Some("blue"));
    let words = fixture(["serve"]);
    let expected: Vec<_> = words.words().iter().map(|w| w.to_string_lossy().into_owned()).collect();
    assert_eq!(worker.arguments(), expected);
}

async fn executable(front: &Front) -> std::path::PathBuf {
    let worker = front.serving().await.worker().expect("who serves has a process");
    worker.executable().expect("who runs has a program")
}
