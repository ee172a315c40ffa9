//! Each step of a takeover, and the front or a worker dying or standing still at it.

use holdfast_tests::rig::{FAULT_VARIABLE, sound_worker};

use super::scene::{Scene, programs, while_it_stands};

/// A scene whose front stands still at this point, when it is reached for the nth time.
async fn with_front_stopped_at(point: &str, turn: u32) -> Scene {
    let fault = format!("{point}=stop@{turn}");
    let choose = |setup: holdfast_tests::rig::Setup| setup.environment(FAULT_VARIABLE, &fault);
    let scene = Scene::begin_with(choose, sound_worker(), &sound_worker()).await;
    scene.front.stopped_at(point).await;
    scene
}

async fn dies_at(point: &str, turn: u32) {
    with_front_stopped_at(point, turn).await.the_front_is_lost().await;
}

async fn stands_still_at(point: &str, turn: u32) {
    let scene = with_front_stopped_at(point, turn).await;
    while_it_stands(scene.front.process()).await;
    scene.nobody_notices().await;
}

/// The claims for each point of the front's: its name, and its turn in the first takeover.
macro_rules! at_each_of_the_fronts {
    ($($name:ident: $point:literal, $turn:literal;)+) => {
        $(mod $name {
            use super::{dies_at, stands_still_at};

            #[tokio::test]
            async fn a_front_that_dies_or_stands_still_is_not_noticed_by_a_client() {
                // Side by side, since most of each is waiting.
                tokio::join!(dies_at($point, $turn), stands_still_at($point, $turn));
            }
        })+
    };
}

// The first generation's start has had the first turn of some.
at_each_of_the_fronts! {
    spawned: "front.spawned", 2;
    hello_sent: "front.hello-sent", 2;
    admit_sent: "front.admit-sent", 2;
    accepting_received: "front.accepting-received", 2;
    stop_sent: "front.stop-sent", 1;
    stopped_received: "front.stopped-received", 1;
    introduced: "front.introduced", 1;
    drain_sent: "front.drain-sent", 1;
    lease_sent: "front.lease-sent", 2;
    drained_received: "front.drained-received", 1;
}

/// A worker meets a fault at a step of the takeover's.
async fn with_worker_fault(point: &str, act: &str) -> Scene {
    let (incumbent, successor) = programs(point, act);
    let scene = Scene::begin(incumbent, &successor).await;
    scene.front.met(point).await;
    scene
}

/// A worker stands still for a while at a step of the takeover's.
async fn is_not_noticed_standing_still_at(point: &str) {
    let scene = with_worker_fault(point, "stop").await;
    while_it_stands(scene.front.stopped_at(point).await).await;
    scene.nobody_notices().await;
}

#[tokio::test]
async fn a_successor_that_dies_at_the_hello_is_not_noticed() {
    with_worker_fault("worker.hello-received", "kill").await.nothing_has_begun().await;
}

#[tokio::test]
async fn a_successor_that_stands_still_at_the_hello_is_not_noticed() {
    is_not_noticed_standing_still_at("worker.hello-received").await;
}

#[tokio::test]
async fn a_successor_that_dies_when_it_is_ready_is_not_noticed() {
    with_worker_fault("worker.ready-said", "kill").await.nothing_has_begun().await;
}

#[tokio::test]
async fn a_successor_that_stands_still_when_it_is_ready_is_not_noticed() {
    is_not_noticed_standing_still_at("worker.ready-said").await;
}

#[tokio::test]
async fn a_successor_that_dies_when_it_is_admitted_costs_what_it_had_accepted() {
    let scene = with_worker_fault("worker.admitted", "kill").await;
    let told = scene.the_successor_is_lost().await;
    assert_eq!(told.lost(), 0, "it had none of these");
}

#[tokio::test]
async fn a_successor_that_stands_still_when_it_is_admitted_is_not_noticed() {
    is_not_noticed_standing_still_at("worker.admitted").await;
}

#[tokio::test]
async fn an_incumbent_that_dies_when_it_is_to_stop_leaves_the_port_to_the_successor() {
    with_worker_fault("worker.stop-received", "kill").await.the_incumbent_is_lost().await;
}

#[tokio::test]
async fn an_incumbent_that_stands_still_when_it_is_to_stop_is_not_noticed() {
    is_not_noticed_standing_still_at("worker.stop-received").await;
}

#[tokio::test]
async fn an_incumbent_that_dies_when_it_is_to_drain_leaves_the_canary_to_the_successor() {
    let scene = with_worker_fault("worker.drain-received", "kill").await;
    scene.the_incumbent_is_lost().await;
}

#[tokio::test]
async fn an_incumbent_that_stands_still_when_it_is_to_drain_is_not_noticed() {
    is_not_noticed_standing_still_at("worker.drain-received").await;
}

#[tokio::test]
async fn an_incumbent_that_dies_when_everything_has_moved_is_not_noticed_by_a_client() {
    let scene = with_worker_fault("worker.leaving", "kill").await;
    let told = scene.the_incumbent_is_lost().await;
    assert_eq!(told.lost(), 0, "they had moved");
}

#[tokio::test]
async fn an_incumbent_that_stands_still_when_everything_has_moved_is_not_noticed() {
    is_not_noticed_standing_still_at("worker.leaving").await;
}
