//! A Rust server that takes its socket by socket activation, and knows nothing of Holdfast beside that.

use holdfast_tests::rig::{Front, Program, binaries};

use super::{get, loses_nobody};
use crate::quick;

#[tokio::test]
async fn ten_takeovers_of_an_axum_server_with_listenfd_lose_no_new_connection() {
    let program = Program::new(binaries::example("listenfd_axum"));
    let activated = |s| quick(s).flag("--adapter", "activate").flag("--ready-http", "/");
    let front = Front::with(|s| activated(s).worker(program)).await;
    let pid = get(&front, "/").await.text();
    loses_nobody(&front, 10).await;
    assert_ne!(get(&front, "/").await.text(), pid);
}
