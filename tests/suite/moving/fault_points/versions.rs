//! Incumbents whose snapshots a successor does not know, because one of them is older than the other.

use holdfast_tests::rig::{faulty_worker, sound_worker};

use super::scene::Scene;
use crate::moving::drained;

/// A takeover from a worker that writes these versions into the snapshots with these numbers, counted
/// from 1 in the order they freeze.
async fn with_versions(versions: impl IntoIterator<Item = (u32, u32)>) -> Scene {
    let fault = |(number, version)| format!("source.frozen=version:{version}@{number}");
    let faults: Vec<String> = versions.into_iter().map(fault).collect();
    let incumbent = faulty_worker(&faults.join(","));
    Scene::begin_with(|s| s.flag("--drain-timeout", "2s"), incumbent, &sound_worker()).await
}

#[tokio::test]
async fn snapshots_of_a_later_and_an_earlier_version_stay_and_the_others_move() {
    // Of the canary, of the others, and neighbours.
    let scene = with_versions([(2, 2), (9, 0), (20, 7), (21, 2)]).await;
    let (takeover, told) = scene.not_everybody_has_moved().await;
    // The newcomer may be one of them.
    assert!((3..=4).contains(&told.lost()), "{} stayed: {takeover:?}", told.lost());
    assert_eq!(told.lost_in_silence(), 0, "{takeover:?}");
    let moved = drained(&takeover, "moved").total();
    assert!((36..=37).contains(&moved), "{takeover:?}");
    assert_eq!(drained(&takeover, "cut").total(), 0, "{takeover:?}");
}

#[tokio::test]
async fn a_successor_that_knows_no_snapshot_of_the_incumbents_has_everybody_come_back() {
    let scene = with_versions((1..=50).map(|number| (number, 2))).await;
    let (takeover, told) = scene.not_everybody_has_moved().await;
    assert_eq!((told.lost(), told.lost_in_silence()), (40, 0), "{takeover:?}");
    assert_eq!(drained(&takeover, "moved").total(), 0, "{takeover:?}");
    assert_eq!(drained(&takeover, "cut").total(), 0, "{takeover:?}");
}
