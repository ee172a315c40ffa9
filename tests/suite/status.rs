//! What `holdfast status` tells: people, programs, and scripts that wait.

use holdfast_tests::rig::Front;
use serde_json::Value;

use crate::{fixture, good};

/// The whole document.
async fn document(front: &Front) -> Value {
    let outcome = front.run(&["status", "--json"]).await;
    outcome.assert_code(0);
    serde_json::from_str(&outcome.output).expect("status prints JSON")
}

fn kinds(document: &Value) -> Vec<&str> {
    let events = document["events"].as_array().expect("there are events");
    events.iter().map(|event| event["kind"].as_str().expect("each has a kind")).collect()
}

#[tokio::test]
async fn status_remembers_what_happened_and_so_does_the_next_image_of_the_front() {
    let front = Front::with(good).await;
    front.takeover().await.assert_committed();
    let broken = fixture(["exit:3"]);
    front.takeover_to(&broken).await.assert_rolled_back();
    front.run(&["reexec"]).await.assert_code(0);
    let document = document(&front).await;
    let told = kinds(&document);
    for kind in ["started", "serving", "takeover-began", "committed", "drained", "rolled-back"] {
        assert!(told.contains(&kind), "no {kind}: {told:?}");
    }
    assert_eq!(told.last(), Some(&"renewed"));
    let ages = document["events"].as_array().expect("there are events").iter();
    let ages: Vec<_> = ages.map(|event| event["age_ms"].as_u64()).collect();
    assert!(ages.is_sorted_by(|earlier, later| earlier >= later), "{ages:?}");
    let takeovers = document["recent_takeovers"].as_array().expect("there are takeovers");
    let outcomes: Vec<_> = takeovers.iter().map(|t| (&t["number"], &t["outcome"])).collect();
    assert_eq!(outcomes, [(&1.into(), &"committed".into()), (&2.into(), &"rolled-back".into())]);
    assert_eq!(takeovers[1], document["last_takeover"]);
}
