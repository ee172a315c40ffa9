//! Programs that know nothing of Holdfast outlive the front too: their adapters are its workers.

use holdfast_tests::rig::{Front, Program, Setup, Signal, Traffic, eventually};

use crate::quick;

use super::{assert_recovered, generation};

fn adapted(setup: Setup, kind: &str, words: &[&str]) -> Setup {
    let program = Program::new(env!("CARGO_BIN_EXE_fixture-server"));
    let program = words.iter().fold(program, |program, word| program.arg(word));
    quick(setup).flag("--adapter", kind).worker(program)
}

async fn outlives_its_front(kind: &str, words: &[&str]) {
    let mut front = Front::with(|s| adapted(s, kind, words)).await;
    let inodes = front.status().await.inodes();
    let traffic = Traffic::to(&front).with_new().with_new();
    traffic.flows(3).await;
    front.kill().await;
    traffic.flows(3).await;
    front.start_again(|s| adapted(s, kind, words)).await;
    assert_recovered(&front, &[1]).await;
    assert_eq!(front.status().await.inodes(), inodes);
    traffic.flows(3).await;
    front.takeover().await.assert_committed();
    traffic.flows(3).await;
    traffic.stop().await.assert_no_failures();
    // And once more, when the adapter is what dies.
    front.until("only the successor is left", |s| s.is_settled()).await;
    front.kill().await;
    front.start_again(|s| adapted(s, kind, words)).await;
    let adapter = front.serving().await.worker().unwrap();
    let below = adapter.descendants();
    assert!(!below.is_empty());
    adapter.signal(Signal::SIGKILL);
    front
        .until("another one serves", |s| s.serving().is_some_and(|g| g.generation == generation(3)))
        .await;
    eventually("its program went with it", async || {
        below.iter().all(|process| process.is_gone()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_activated_program_outlives_its_front() {
    outlives_its_front("activate", &["listen-fds", "ready"]).await;
}

#[tokio::test]
async fn a_relayed_program_outlives_its_front() {
    outlives_its_front("relay", &["port:PORT"]).await;
}
