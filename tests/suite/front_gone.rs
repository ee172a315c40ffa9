//! What workers do when their front is killed.

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Gate, Signal, Traffic, eventually, listening_inodes};

use crate::{fixture, generation, good, quick};

#[tokio::test]
async fn an_admitted_worker_goes_on_accepting_and_serving() {
    let mut front = Front::with(quick).await;
    let inodes = listening_inodes(front.tcp());
    let worker = front.serving().await.worker().unwrap();
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(3).await;
    front.signal(Signal::SIGKILL);
    assert_eq!(front.exit_code().await, -1);
    traffic.flows(10).await;
    traffic.stop().await.assert_no_failures();
    let answer = ask(&front.address(), Request::get("/healthz")).await.unwrap();
    assert_eq!(answer.generation(), generation(1));
    assert_eq!(listening_inodes(front.tcp()), inodes);
    // By itself it still leaves in good order.
    worker.signal(Signal::SIGTERM);
    eventually("the worker leaves", async || worker.is_gone().then_some(())).await;
}

#[tokio::test]
async fn a_worker_that_was_never_admitted_leaves() {
    let gate = Gate::closed();
    let mut front = Front::with(good).await;
    let takeover = front.begin_takeover_to(&fixture([gate.word("library")]));
    let successor =
        front.status_with("the successor starts", |s| s.generation(generation(2))?.worker()).await;
    front.signal(Signal::SIGKILL);
    front.exit_code().await;
    eventually("the successor leaves", async || successor.is_gone().then_some(())).await;
    ask(&front.address(), Request::get("/")).await.expect("the incumbent serves on");
    assert_ne!(takeover.end().await.code, 0);
}

#[tokio::test]
async fn a_command_names_the_front_it_does_not_find() {
    let mut front = Front::with(good).await;
    front.signal(Signal::SIGKILL);
    front.exit_code().await;
    for words in
        [&["status"][..], &["takeover"], &["stop"], &["healthcheck"], &["drain", "--now", "g1"]]
    {
        let outcome = front.run(words).await;
        outcome.assert_code(1).assert_says(front.control().to_str().unwrap());
    }
}

#[tokio::test]
async fn a_new_front_takes_the_control_socket_of_a_killed_one() {
    let mut first = Front::with(good).await;
    first.signal(Signal::SIGKILL);
    first.exit_code().await;
    assert!(first.control().exists(), "a killed front leaves its socket behind");
    let second = Front::with(|s| good(s).control(first.control())).await;
    second.takeover().await.assert_committed();
}
