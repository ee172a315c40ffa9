//! Faults are for tests alone, and one that is misspelt proves nothing.

use std::process::Command;

use holdfast_tests::rig::{FAULT_VARIABLE, Front, faulty_worker};

#[tokio::test]
async fn a_front_with_a_misspelt_fault_does_not_start() {
    let fault = "front.stop-snet=kill";
    let refused = Front::refused(|s| s.environment(FAULT_VARIABLE, fault)).await;
    refused.assert_code(101).assert_says(r#"there is no point "front.stop-snet""#);
}

#[tokio::test]
async fn a_worker_with_a_misspelt_fault_does_not_start() {
    let front = Front::start().await;
    front.takeover_to(&faulty_worker("source.asked=kil")).await.assert_rolled_back();
    assert_eq!(front.log().lines_with(r#"there is no act "kil""#), 1);
}

#[test]
fn a_build_that_is_no_test_has_no_faults() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["tree", "--workspace", "--edges", "normal,build,features"]);
    command.args(["--invert", "handoff", "--locked", "--offline"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("cargo can be started");
    let tree = String::from_utf8_lossy(&output.stdout);
    // What is looked for would be seen: other features of it are.
    assert!(tree.contains(r#"handoff feature "websocket""#), "{tree}");
    assert!(!tree.contains("fault-points"), "{tree}");
}
