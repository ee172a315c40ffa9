//! Migration links that break, moves that are called off, and successors that may open nothing more.

use holdfast_tests::rig::{Process, eventually, faulty_worker, sound_worker};

use super::scene::{CANARY, Scene, programs, while_it_stands};
use crate::moving::drained;

/// The link breaks at this point, in this way, when it is reached for the nth time.
async fn breaks(point: &str, act: &str, turn: u32) {
    let (incumbent, successor) = programs(point, &format!("{act}@{turn}"));
    let scene = Scene::begin(incumbent, &successor).await;
    scene.front.met(point).await;
    scene.not_everybody_has_moved().await;
}

/// The claims for each point: its name, its turn among the canary's, and among the others'.
macro_rules! at_each {
    ($($name:ident: $point:literal, $early:literal, $late:literal;)+) => {
        $(mod $name {
            use super::breaks;

            #[tokio::test]
            async fn a_link_that_breaks_leaves_each_connection_served_told_or_counted() {
                // Side by side, since most of each is waiting.
                tokio::join!(
                    breaks($point, "drop-link", $early),
                    breaks($point, "drop-link", $late),
                    breaks($point, "garbage", $late),
                );
            }
        })+
    };
}

at_each! {
    asked: "source.asked", 1, 2;
    offer_sent: "source.offer-sent", 1, 2;
    prepared_received: "source.prepared-received", 1, 2;
    commit_sent: "source.commit-sent", 1, 2;
    offer_received: "target.offer-received", 1, 2;
    prepared_sent: "target.prepared-sent", 1, 2;
    commit_received: "target.commit-received", 1, 2;
    resumed: "target.resumed", 1, 2;
}

/// A successor that stands still with an offer until the drain's last quarter, when the incumbent takes
/// back what it had offered, with this fault.
async fn called_off(act: &str) -> (Scene, Process) {
    let incumbent = faulty_worker(&format!("source.revoked={act}"));
    let successor = faulty_worker("target.offer-received=stop@2");
    let scene = Scene::begin_with(|s| s.flag("--drain-timeout", "4s"), incumbent, &successor).await;
    let successor = scene.front.stopped_at("target.offer-received").await;
    scene.front.met("source.revoked").await;
    (scene, successor)
}

#[tokio::test]
async fn an_incumbent_that_stands_still_as_it_calls_a_move_off_tells_everybody_to_come_back() {
    let (scene, successor) = called_off("stop").await;
    while_it_stands(scene.front.stopped_at("source.revoked").await).await;
    eventually("the incumbent is gone", async || scene.incumbent.is_gone().then_some(())).await;
    successor.go_on();
    let (takeover, _) = scene.not_everybody_has_moved().await;
    let moved = drained(&takeover, "moved").total();
    assert!((1..=CANARY as u64).contains(&moved), "{takeover:?}");
}

#[tokio::test]
async fn an_incumbent_that_dies_as_it_calls_a_move_off_leaves_the_canary_to_the_successor() {
    let (scene, successor) = called_off("kill").await;
    successor.go_on();
    let told = scene.the_incumbent_is_lost().await;
    // Offers that it had not come to take back are the successor's.
    assert!((1..=40 - CANARY).contains(&told.lost()), "{} were lost", told.lost());
}

#[tokio::test]
async fn a_drain_cut_short_while_a_successor_stands_still_loses_nobody_without_a_word() {
    let (incumbent, successor) = programs("target.offer-received", "stop@2");
    let scene = Scene::begin(incumbent, &successor).await;
    let stopped = scene.front.stopped_at("target.offer-received").await;
    scene.front.run(&["drain", "--now", "g1"]).await.assert_code(0);
    eventually("the incumbent is gone", async || scene.incumbent.is_gone().then_some(())).await;
    stopped.go_on();
    let (takeover, told) = scene.not_everybody_has_moved().await;
    assert_eq!(told.lost_in_silence(), 0, "{takeover:?}");
}

#[tokio::test]
async fn connections_wait_for_a_successor_that_may_open_no_more_descriptors_for_a_while() {
    let (incumbent, successor) = programs("target.offer-received", "emfile");
    let scene = Scene::begin(incumbent, &successor).await;
    let pid = scene.front.met("target.offer-received").await;
    let refusal = "the successor may open no more descriptors";
    eventually("it has refused some", async || {
        (scene.front.log().lines_with(refusal) > 0).then_some(())
    })
    .await;
    Process::find(pid).expect("it lives").lift_descriptor_limit();
    scene.nobody_notices().await;
}

#[tokio::test]
async fn an_incumbent_that_may_open_no_more_descriptors_loses_nobody_without_a_word() {
    let (incumbent, successor) = programs("source.asked", "emfile@2");
    let scene = Scene::begin(incumbent, &successor).await;
    scene.front.met("source.asked").await;
    let (takeover, told) = scene.not_everybody_has_moved().await;
    assert_eq!(told.lost_in_silence(), 0, "{takeover:?}");
}

#[tokio::test]
async fn a_successor_that_takes_its_time_over_a_commit_is_not_noticed() {
    let (incumbent, successor) = programs("target.commit-received", "delay:300");
    let scene = Scene::begin(incumbent, &successor).await;
    scene.front.met("target.commit-received").await;
    scene.nobody_notices().await;
}

#[tokio::test]
async fn a_takeover_requested_while_a_successor_stands_still_moves_everything_once_more() {
    let (incumbent, successor) = programs("target.resumed", "stop@2");
    let scene = Scene::begin(incumbent, &successor).await;
    let stopped = scene.front.stopped_at("target.resumed").await;
    let second = scene.front.begin_takeover_to(&sound_worker());
    while_it_stands(stopped).await;
    scene.nobody_notices_either(second).await;
}
