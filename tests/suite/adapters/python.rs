//! A server as it comes with Python, which has never heard of any of this.

use holdfast_tests::rig::{Front, Program};

use super::{get, loses_nobody};
use crate::{quick, skipped};

#[tokio::test]
async fn ten_takeovers_of_pythons_own_server_lose_no_new_connection() {
    let found = tokio::process::Command::new("python3").arg("--version").output().await;
    if found.is_err() {
        return skipped("python3 is not installed");
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("healthz"), "as it is").unwrap();
    let program = ["-m", "http.server", "--bind", "127.0.0.1", "{port}"];
    let program = program.into_iter().fold(Program::new("python3"), Program::arg);
    let front = Front::with(|s| {
        quick(s).flag("--adapter", "relay").directory(place.path()).worker(program)
    })
    .await;
    assert_eq!(get(&front, "/healthz").await.text(), "as it is");
    loses_nobody(&front, 10).await;
}
