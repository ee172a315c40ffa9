//! `holdfast-worker call` while workers are replaced: what once failed when it met a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_tests::rig::Front;
use serde_json::{Value, json};

use crate::{called, quick};

/// How many calls are made in all.
const CALLS: u64 = 50;
/// How many of them are under way at a time.
const ABREAST: usize = 3;

#[tokio::test]
async fn each_of_fifty_calls_during_takeovers_is_answered() {
    let front = Arc::new(Front::with(|setup| quick(setup).flag("--soak", "1ms")).await);
    let next = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..ABREAST)
        .map(|_| {
            let (front, next) = (Arc::clone(&front), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= CALLS {
                        return;
                    }
                    let job = json!({
                        "name": format!("job {number}"), "enabled": false,
                        "schedule": {"kind": "every", "everyMs": 3_600_000},
                        "sessionTarget": "isolated", "wakeMode": "now",
                        "payload": {"kind": "agentTurn", "message": "hello"},
                    });
                    let job = job.to_string();
                    let arguments: &[&str] = match number % 3 {
                        0 => &["health"],
                        1 => &["cron.list"],
                        _ => &["cron.add", "--params", &job],
                    };
                    let outcome = called(&front, arguments).await;
                    assert_eq!(outcome.errors, "", "call {number}");
                    outcome.assert_code(0);
                }
            })
        })
        .collect();
    let mut committed = 0;
    while next.load(Ordering::Relaxed) < CALLS || committed < 3 {
        front.takeover().await.assert_committed();
        committed += 1;
    }
    for caller in callers {
        caller.await.expect("each call is answered");
    }
    let listed = called(&front, &["cron.list", "--params", r#"{"includeDisabled":true}"#]).await;
    let listed: Value = serde_json::from_str(&listed.output).expect("an answer is JSON");
    assert_eq!(listed["total"], json!((0..CALLS).filter(|n| n % 3 == 2).count()), "each once");
}
