//! Workers that die or stand still while connections move, and exactly what that costs. That each
//! connection is served by one of them or ends, whichever step they are at, `fault_points` shows.

use holdfast_tests::rig::moving::{Accounts, Clients};
use holdfast_tests::rig::{Front, Process, RunningTakeover, Setup, Signal, eventually};

use super::{all_with, drained, lively, websocket};
use crate::{fixture, generation};

/// How many connections go ahead of the others.
const CANARY: usize = 8;
/// How many clients there are: more than go in one wave.
const CLIENTS: usize = 100;

/// A soak that is long enough to do something in it.
fn watched(setup: Setup) -> Setup {
    lively(setup).flag("--soak", "2s")
}

/// A takeover in its soak, once the canary has moved; and the two workers.
async fn soaking(front: &Front) -> (RunningTakeover, Process, Process) {
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let (incumbent, successor) = front
        .status_with("the canary is with the successor", |status| {
            let [incumbent, successor] = &status.generations[..] else { return None };
            let moved = successor.connections?.total() == CANARY as u64;
            moved.then(|| Some((incumbent.worker()?, successor.worker()?)))?
        })
        .await;
    (takeover, incumbent, successor)
}

#[tokio::test]
async fn a_successor_killed_in_the_soak_costs_the_canary_and_nobody_else() {
    let front = Front::with(|s| lively(s).flag("--soak", "20s")).await;
    let callers = Clients::calling(&front, CLIENTS / 2).await;
    let posters = Clients::posting(&front, CLIENTS / 2).await;
    let (takeover, _, successor) = soaking(&front).await;
    successor.signal(Signal::SIGKILL);
    takeover.end().await.assert_rolled_back();
    callers.each_is_answered(2).await;
    posters.each_is_answered(2).await;
    assert_eq!(front.serving().await.generation, generation(1));
    let accounts = [callers.stop().await, posters.stop().await];
    for accounts in &accounts {
        accounts.assert_no_faults();
    }
    let lost: usize = accounts.iter().map(Accounts::lost).sum();
    assert_eq!(lost, CANARY, "other connections were lost than those that had moved");
}

#[tokio::test]
async fn a_takeover_rolled_back_by_a_program_that_moves_nothing_loses_nothing() {
    let front = Front::with(lively).await;
    let callers = Clients::calling(&front, CLIENTS).await;
    let posters = Clients::posting(&front, CLIENTS).await;
    for word in ["fail-in-soak", "die-in-soak", "exit:1"] {
        front.takeover_to(&fixture([word])).await.assert_rolled_back();
        callers.each_is_answered(1).await;
        posters.each_is_answered(1).await;
    }
    assert_eq!(front.serving().await.generation, generation(1));
    callers.stop().await.assert_nobody_noticed();
    posters.stop().await.assert_nobody_noticed();
}

#[tokio::test]
async fn an_incumbent_killed_in_the_soak_leaves_what_has_moved_to_the_successor() {
    let front = Front::with(|s| lively(s).flag("--soak", "20s")).await;
    let crowd = Clients::calling(&front, CLIENTS).await;
    let (takeover, incumbent, _) = soaking(&front).await;
    incumbent.signal(Signal::SIGKILL);
    all_with(&front, generation(2), websocket(CANARY as u64)).await;
    crowd.each_is_answered(2).await;
    let accounts = crowd.stop().await;
    accounts.assert_no_faults();
    assert_eq!(accounts.lost(), CLIENTS - CANARY);
    drop(takeover);
}

#[tokio::test]
async fn a_successor_killed_with_offers_under_way_costs_only_connections_that_were_its_own() {
    let front = Front::with(watched).await;
    let crowd = Clients::calling(&front, CLIENTS).await;
    let (mut takeover, _, successor) = soaking(&front).await;
    successor.stand_still().await;
    takeover.until("committed").await;
    successor.signal(Signal::SIGKILL);
    let takeover = takeover.end().await;
    crowd.each_is_answered(1).await;
    let accounts = crowd.stop().await;
    accounts.assert_no_faults();
    // What was offered came back, and there was nobody left to move to.
    let told = accounts.iter().filter(|account| account.told).count();
    assert_eq!((accounts.lost() - told, told), (CANARY, CLIENTS - CANARY));
    let restart = "closed with 1012 \"service restart\"";
    for account in accounts.iter().filter(|account| account.told) {
        assert_eq!(account.lost.as_deref(), Some(restart));
    }
    assert_eq!(drained(&takeover, "closed"), websocket(told as u64), "{takeover:?}");
}

#[tokio::test]
async fn whatever_a_successor_that_stands_still_was_offered_is_counted_at_the_deadline() {
    let front =
        Front::with(|s| lively(s).flag("--soak", "500ms").flag("--drain-timeout", "1s")).await;
    let crowd = Clients::calling(&front, CLIENTS).await;
    let (mut takeover, incumbent, successor) = soaking(&front).await;
    successor.stand_still().await;
    takeover.until("committed").await;
    eventually("the incumbent is gone", async || incumbent.is_gone().then_some(())).await;
    successor.go_on();
    let takeover = takeover.end().await;
    crowd.each_is_answered(1).await;
    let accounts = crowd.stop().await;
    accounts.assert_no_faults();
    let ways = ["moved", "finished", "closed", "cut"];
    let counted: u64 = ways.iter().map(|way| drained(&takeover, way).total()).sum();
    let lost = accounts.lost();
    assert_eq!(counted, CLIENTS as u64, "{lost} of {CLIENTS} were lost: {takeover:?}");
}

#[tokio::test]
async fn a_takeover_requested_during_a_takeover_loses_nothing() {
    let front = Front::with(lively).await;
    let callers = Clients::calling(&front, CLIENTS).await;
    let posters = Clients::posting(&front, CLIENTS).await;
    let mut first = front.begin_takeover();
    first.until("switched").await;
    let second = front.begin_takeover();
    first.end().await.assert_committed();
    second.end().await.assert_committed();
    let both = handoff::Connections { http: CLIENTS as u64, websocket: CLIENTS as u64 };
    all_with(&front, generation(3), both).await;
    callers.stop().await.assert_nobody_noticed();
    posters.stop().await.assert_nobody_noticed();
}

#[tokio::test]
async fn connections_that_end_while_the_others_move_hold_nobody_up() {
    /// Connections that say nothing, opened before those that stay, and so asked before them.
    const LEAVING: usize = 500;
    const STAYING: usize = 10;
    const TAKEOVERS: u64 = 10;
    let front = Front::with(|s| lively(s).flag("--drain-timeout", "4s")).await;
    for number in 0..TAKEOVERS {
        let mut leaving = Vec::new();
        for _ in 0..LEAVING {
            leaving.push(std::net::TcpStream::connect(front.tcp()).unwrap());
        }
        let crowd = Clients::calling(&front, STAYING).await;
        let mut takeover = front.begin_takeover();
        takeover.until("switched").await;
        // They end all at once, on a thread of their own, while they are being asked.
        let left = std::thread::spawn(move || drop(leaving));
        let takeover = takeover.end().await;
        left.join().unwrap();
        takeover.assert_committed();
        assert_eq!(drained(&takeover, "closed"), websocket(0), "takeover {number}: {takeover:?}");
        assert_eq!(drained(&takeover, "moved").websocket, STAYING as u64, "{takeover:?}");
        crowd.each_is_answered(1).await;
        crowd.stop().await.assert_nobody_noticed();
        front
            .until("nobody is left", |s| {
                s.serving().and_then(|g| g.connections).is_some_and(|open| open.total() == 0)
            })
            .await;
    }
}

#[tokio::test]
async fn a_successor_without_a_descriptor_to_spare_leaves_connections_where_they_are() {
    short_of_descriptors(0).await;
}

#[tokio::test]
async fn a_successor_with_room_for_one_wave_only_takes_that_and_hangs_nobody() {
    short_of_descriptors(100).await;
}

/// Everything but the canary moves to a successor that has only so many descriptors to spare.
async fn short_of_descriptors(spare: usize) {
    /// Enough to begin with: the front looks at it before.
    const LIMIT: usize = 600;
    const CALLERS: usize = 200;
    let limited = format!("ulimit -n {LIMIT}; exec \"$@\"");
    let front = Front::with(|s| {
        watched(s).wrapped_in(&["sh", "-c", &limited, "sh"]).flag("--drain-timeout", "5m")
    })
    .await;
    let crowd = Clients::calling(&front, CALLERS).await;
    let (mut takeover, _, successor) = soaking(&front).await;
    let held = successor.descriptors().len();
    // Where there is no room for all of them, the rest waits in the queue.
    let newcomers: Vec<_> = (0..LIMIT - held - spare)
        .map(|_| std::net::TcpStream::connect(front.tcp()).unwrap())
        .collect();
    eventually("it has no more than that left", async || {
        (successor.descriptors().len() >= LIMIT - spare - 1).then_some(())
    })
    .await;
    takeover.until("committed").await;
    crowd.each_is_answered(3).await;
    drop(newcomers);
    let takeover = takeover.end().await;
    let accounts = crowd.stop().await;
    accounts.assert_no_faults();
    let told = accounts.iter().filter(|account| account.told).count();
    assert_eq!(accounts.lost(), told, "connections ended without a word: {takeover:?}");
    assert_eq!(drained(&takeover, "closed"), websocket(told as u64), "{takeover:?}");
    assert_eq!(drained(&takeover, "moved"), websocket((CALLERS - told) as u64), "{takeover:?}");
}
