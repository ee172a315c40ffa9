//! A front that dies in the midst of a takeover, or of a recovery.

use holdfast_tests::rig::moving::Clients;
use holdfast_tests::rig::{FAULT_VARIABLE, Front, Setup, Traffic, faulty_worker};

use crate::quick;

use super::{assert_recovered, generation};

const CLIENTS: usize = 10;

fn failing_at(setup: Setup, point: &str, turn: u32) -> Setup {
    quick(setup).flag("--soak", "200ms").environment(FAULT_VARIABLE, format!("{point}=kill@{turn}"))
}

/// The front dies at a point of a takeover; the next one goes on, and nobody has noticed.
async fn is_not_noticed_to_die_at(point: &str, turn: u32) {
    let mut front = Front::with(|s| failing_at(s, point, turn)).await;
    let inodes = front.status().await.inodes();
    let callers = Clients::calling(&front, CLIENTS).await;
    let posters = Clients::posting(&front, CLIENTS).await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(2).await;
    let takeover = front.begin_takeover();
    front.met(point).await;
    assert_eq!(front.exit_code().await, -1, "it was killed");
    assert_ne!(takeover.end().await.code, 0);
    traffic.flows(2).await;
    callers.each_is_answered(1).await;
    front.start_again(|s| quick(s).flag("--soak", "200ms")).await;
    let status = front.until("one generation serves", |s| s.is_settled()).await;
    assert!(!status.recovered().is_empty(), "{status:?}");
    assert!(status.serving().is_some_and(|g| g.lease), "{status:?}");
    assert_eq!(status.inodes(), inodes);
    traffic.flows(2).await;
    front.takeover().await.assert_committed();
    let last = front.until("the last one serves alone", |s| s.is_settled()).await;
    let number = |s: &holdfast_tests::rig::Status| s.serving().unwrap().generation;
    assert!(number(&last) > number(&status) && number(&last) > generation(2), "{last:?}");
    callers.each_is_answered(1).await;
    posters.each_is_answered(1).await;
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
    callers.stop().await.assert_nobody_noticed();
    posters.stop().await.assert_nobody_noticed();
}

/// The claim for each point of the front's: its name, and its turn in the first takeover.
macro_rules! at_each_of_the_fronts {
    ($($name:ident: $point:literal, $turn:literal;)+) => {
        $(mod $name {
            #[tokio::test]
            async fn nobody_notices_a_front_that_died_there_and_was_started_again() {
                super::is_not_noticed_to_die_at($point, $turn).await;
            }
        })+
    };
}

// The first generation's start has had the first turn of some.
at_each_of_the_fronts! {
    spawned: "front.spawned", 2;
    hello_sent: "front.hello-sent", 2;
    introduced: "front.introduced", 1;
    admit_sent: "front.admit-sent", 2;
    accepting_received: "front.accepting-received", 2;
    stop_sent: "front.stop-sent", 1;
    stopped_received: "front.stopped-received", 1;
    drain_sent: "front.drain-sent", 1;
    lease_sent: "front.lease-sent", 2;
    drained_received: "front.drained-received", 1;
}

#[tokio::test]
async fn a_front_that_dies_while_it_recovers_leaves_that_to_the_next_one() {
    let mut front = Front::with(quick).await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    for point in ["front.rescue-sent", "front.found"] {
        front.kill().await;
        front.start_again_in_vain(|s| failing_at(s, point, 1)).await;
        front.met(point).await;
        traffic.flows(2).await;
        front.start_again(quick).await;
        assert_recovered(&front, &[1]).await;
    }
    front.takeover().await.assert_committed();
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn a_worker_that_dies_when_it_is_found_is_made_good() {
    for point in ["worker.rescue-received", "worker.rescued-said"] {
        let worker = faulty_worker(&format!("{point}=kill"));
        let mut front = Front::with(|s| quick(s).worker(worker)).await;
        front.kill().await;
        front.start_again(quick).await;
        front.met(point).await;
        let next = front
            .until("another one serves", |s| {
                s.is_settled() && s.serving().is_some_and(|g| g.generation == generation(2))
            })
            .await;
        assert!(next.serving().is_some_and(|g| g.lease), "{next:?}");
    }
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_ended_and_said_to_be() {
    let mut front = Front::with(quick).await;
    let worker = front.serving().await.worker().unwrap();
    // One that stood still when its front dies would be hung up on by the kernel (setpgid(2), orphaned groups).
    front.kill().await;
    worker.stand_still().await;
    front.start_again(quick).await;
    assert!(worker.is_gone());
    assert_eq!(front.serving().await.generation, generation(2));
    assert_eq!(front.log().lines_with("a worker without a front is ended"), 1);
}
