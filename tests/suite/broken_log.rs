//! A log that nobody can write is no reason to let go of a port.

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Setup};

use super::{good, quick};

/// The bundled worker, and a front whose output goes where this shell sends it.
async fn serves_with_output(redirected: &str) {
    let script = format!("exec \"$@\" {redirected}");
    let mut front =
        Front::with(|setup: Setup| quick(setup.wrapped_in(&["bash", "-c", &script, "bash"]))).await;
    for _ in 0..3 {
        front.takeover().await.assert_committed();
        let answer = ask(&front.address(), Request::chat("hello")).await.expect("it is served");
        assert_eq!(answer.code, 200);
    }
    front.run(&["stop"]).await.assert_code(0);
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn a_front_and_its_workers_serve_on_when_the_disk_of_their_log_is_full() {
    serves_with_output(">/dev/full 2>/dev/full").await;
}

#[tokio::test]
async fn a_front_and_its_workers_serve_on_when_the_reader_of_their_log_is_gone() {
    serves_with_output("> >(exit 0) 2>&1").await;
}

#[tokio::test]
async fn a_front_whose_log_is_read_by_somebody_that_stands_still_takes_over_all_the_same() {
    // The pipe is full before the front is started; its workers write elsewhere.
    let script =
        "exec 9> >(exec sleep 1000); head -c 65536 /dev/zero >&9; exec \"$@\" >&9 2>&1 9>&-";
    let directory = tempfile::tempdir().unwrap();
    let mut front = Front::with(|s| {
        let s = good(s).flag("--log-file", directory.path().join("worker.log"));
        s.wrapped_in(&["bash", "-c", script, "bash"])
    })
    .await;
    for _ in 0..3 {
        front.takeover().await.assert_committed();
    }
    assert!(front.status().await.front.log_lines_lost > 0, "the pipe had room");
    front.run(&["stop"]).await.assert_code(0);
    assert_eq!(front.exit_code().await, 0);
}
