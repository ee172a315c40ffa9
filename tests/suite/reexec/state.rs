//! Which states a binary goes on with.

use std::process::Stdio;

use holdfast_tests::rig::binaries;
use serde_json::Value;
use tokio::process::Command;

/// A state as the first version of it was written, by a front with a worker that drains and one that serves.
const FIRST: &str = include_str!("../../fixtures/reexec/state-1.json");

/// What this binary says of a state, and whether it would go on with it.
async fn check(state: &Value) -> (bool, Value) {
    let mut file = tempfile::tempfile().expect("a file can be made");
    std::io::Write::write_all(&mut file, state.to_string().as_bytes()).expect("it can be written");
    std::io::Seek::rewind(&mut file).expect("it has a beginning");
    let output = Command::new(binaries::holdfast())
        .arg("reexec-check")
        .stdin(file)
        .stderr(Stdio::null())
        .output()
        .await
        .expect("holdfast can be run");
    let said = serde_json::from_slice(&output.stdout).expect("it answers in JSON");
    (output.status.success(), said)
}

fn first() -> Value {
    serde_json::from_str(FIRST).expect("the fixture is JSON")
}

#[tokio::test]
async fn a_state_of_the_first_version_is_gone_on_with() {
    let (fine, said) = check(&first()).await;
    assert!(fine && said["holdfast"].is_string(), "{said}");
}

#[tokio::test]
async fn a_state_of_the_next_version_is_gone_on_with_when_it_says_that_it_can_be() {
    let mut next = first();
    let version = next["version"].as_u64().expect("it has a version");
    next["version"] = (version + 1).into();
    next["readable_from"] = version.into();
    next["colour"] = "green".into();
    next["workers"][0]["worker"]["colour"] = "green".into();
    assert!(check(&next).await.0);
    next["readable_from"] = (version + 1).into();
    let (fine, said) = check(&next).await;
    let refused = said["refused"].as_str().unwrap_or_default();
    assert!(!fine && refused.contains(&format!("version {}", version + 1)), "{said}");
}

#[tokio::test]
async fn a_state_of_the_version_before_is_gone_on_with_and_its_missing_fields_have_defaults() {
    let mut before = first();
    let version = before["version"].as_u64().expect("it has a version");
    before["version"] = (version - 1).into();
    let fields = before.as_object_mut().expect("it is an object");
    for field in ["readable_from", "renewed_binary", "caller", "executed_at_ns"] {
        assert!(fields.remove(field).is_some(), "{field}");
    }
    assert!(check(&before).await.0);
}

#[tokio::test]
async fn what_is_no_state_is_refused_by_name() {
    let mut spoiled = first();
    spoiled["generations"] = Value::Null;
    for (state, words) in [
        (Value::Null, "not understood"),
        (serde_json::json!({}), "version"),
        (spoiled, "Generations"),
    ] {
        let (fine, said) = check(&state).await;
        let refused = said["refused"].as_str().unwrap_or_default();
        assert!(!fine && refused.contains(words), "{said}");
    }
}
