//! The front under valgrind: nothing is read or written that should not be, and nothing is lost.

use holdfast_tests::rig::{Front, Traffic};

use crate::{fixture, skipped};

/// What valgrind exits with when it has found something.
const FOUND: &str = "--error-exitcode=99";

#[tokio::test]
#[ignore = "needs valgrind, and takes a minute: `just valgrind`"]
async fn a_front_that_takes_over_and_stops_touches_and_loses_nothing_it_should_not() {
    let version = std::process::Command::new("valgrind").arg("--version").output();
    if version.is_err() {
        return skipped("there is no valgrind here");
    }
    let words =
        ["valgrind", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect", FOUND];
    let mut front =
        Front::with(|s| s.worker(fixture(["serve"])).flag("--soak", "20ms").wrapped_in(&words))
            .await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    for _ in 0..5 {
        front.takeover().await.assert_committed();
    }
    front.takeover_to(&fixture(["exit:3"])).await.assert_rolled_back();
    front.takeover_to(&fixture(["garbage"])).await.assert_rolled_back();
    traffic.flows(3).await;
    traffic.stop().await.assert_no_failures();
    front.run(&["stop"]).await.assert_code(0);
    assert_eq!(front.exit_code().await, 0, "valgrind has found something");
    for line in front.log().text().lines().filter(|line| line.starts_with("==")) {
        shown(line);
    }
}

/// What valgrind said, for whoever asks.
#[expect(clippy::print_stderr, reason = "the test harness keeps it for whoever asks")]
fn shown(line: &str) {
    eprintln!("{line}");
}
