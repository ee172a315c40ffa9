//! Each step of a move, and either worker dying or standing still at it.

use super::scene::{Scene, programs, while_it_stands};
use holdfast_tests::rig::{Signal, eventually};

/// Who of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Incumbent,
    Successor,
}

/// The worker that reaches this point.
fn side_of(point: &str) -> Side {
    if point.starts_with("source.") { Side::Incumbent } else { Side::Successor }
}

/// One worker dies when a certain point is reached for the nth time.
async fn dies(victim: Side, point: &str, turn: u32) {
    let itself = victim == side_of(point);
    let act = if itself { "kill" } else { "stop" };
    let (incumbent, successor) = programs(point, &format!("{act}@{turn}"));
    let scene = Scene::begin(incumbent, &successor).await;
    if itself {
        scene.front.met(point).await;
    } else {
        // The one at the point stands still until the other is dead.
        let witness = scene.front.stopped_at(point).await;
        let victim = match victim {
            Side::Incumbent => scene.incumbent,
            Side::Successor => scene.successor().await,
        };
        victim.signal(Signal::SIGKILL);
        eventually("it is gone", async || victim.is_gone().then_some(())).await;
        witness.go_on();
    }
    match victim {
        Side::Incumbent => scene.the_incumbent_is_lost().await,
        Side::Successor => scene.the_successor_is_lost().await,
    };
}

/// One worker stands still from the moment on at which a certain point is reached for the nth time.
async fn stands_still(sluggard: Side, point: &str, turn: u32) {
    let (incumbent, successor) = programs(point, &format!("stop@{turn}"));
    let scene = Scene::begin(incumbent, &successor).await;
    let stopped = scene.front.stopped_at(point).await;
    if sluggard == side_of(point) {
        while_it_stands(stopped).await;
    } else {
        let other = match sluggard {
            Side::Incumbent => scene.incumbent,
            Side::Successor => scene.successor().await,
        };
        other.stand_still().await;
        stopped.go_on();
        while_it_stands(other).await;
    }
    scene.nobody_notices().await;
}

/// The claims for each point: its name, its turn among the canary's, and among the others'.
macro_rules! at_each {
    ($($name:ident: $point:literal, $early:literal, $late:literal;)+) => {
        $(mod $name {
            use super::{Side, dies, stands_still};

            #[tokio::test]
            async fn a_worker_that_dies_leaves_each_connection_served_or_ended() {
                // Side by side, since most of each is waiting.
                tokio::join!(
                    dies(Side::Incumbent, $point, $late),
                    dies(Side::Successor, $point, $late),
                    dies(Side::Successor, $point, $early),
                );
            }

            #[tokio::test]
            async fn a_worker_that_stands_still_is_not_noticed() {
                tokio::join!(
                    stands_still(Side::Incumbent, $point, $late),
                    stands_still(Side::Successor, $point, $early),
                );
            }
        })+
    };
}

at_each! {
    asked: "source.asked", 1, 2;
    frozen: "source.frozen", 1, 20;
    offer_sent: "source.offer-sent", 1, 2;
    prepared_received: "source.prepared-received", 1, 2;
    commit_sent: "source.commit-sent", 1, 2;
    started_received: "source.started-received", 1, 2;
    offer_received: "target.offer-received", 1, 2;
    prepared_sent: "target.prepared-sent", 1, 2;
    commit_received: "target.commit-received", 1, 2;
    resumed: "target.resumed", 1, 2;
    started_sent: "target.started-sent", 1, 2;
}

#[tokio::test]
async fn a_successor_that_dies_before_the_commit_is_sent_costs_nobody() {
    let point = "source.prepared-received";
    let (incumbent, successor) = programs(point, "stop");
    // It ends with the successor.
    let scene = Scene::begin_with(|s| s.flag("--soak", "20s"), incumbent, &successor).await;
    let witness = scene.front.stopped_at(point).await;
    let successor = scene.successor().await;
    successor.signal(Signal::SIGKILL);
    // Of a zombie, other threads may still be there, and hold its end of the link.
    let is_reaped = || successor.is_gone() && !successor.is_zombie();
    eventually("it is reaped", async || is_reaped().then_some(())).await;
    witness.go_on();
    let told = scene.the_successor_is_lost().await;
    assert_eq!(told.lost(), 0, "nothing was its own");
}
