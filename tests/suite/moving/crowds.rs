//! Many connections and many takeovers, and nobody notices.

use holdfast_tests::rig::Front;
use holdfast_tests::rig::moving::Clients;

use super::{all_with, drained, http, lively, websocket};
use crate::{generation, quick};

/// How many takeovers the clients live through.
const TAKEOVERS: u64 = 20;

#[tokio::test]
async fn keep_alive_clients_live_through_twenty_takeovers_on_one_connection_each() {
    posting(200).await;
}

#[tokio::test]
#[ignore = "takes a minute in a debug build"]
async fn a_thousand_keep_alive_clients_live_through_twenty_takeovers_on_one_connection_each() {
    posting(1000).await;
}

async fn posting(clients: usize) {
    let front = Front::with(quick).await;
    let crowd = Clients::posting(&front, clients).await;
    for _ in 0..TAKEOVERS {
        let takeover = front.takeover().await;
        takeover.assert_committed();
        assert_eq!(drained(&takeover, "moved"), http(clients as u64), "{takeover:?}");
    }
    let accounts = crowd.stop().await;
    accounts.assert_nobody_noticed();
    let last = generation(TAKEOVERS + 1);
    for account in accounts.iter() {
        assert_eq!(account.generations.last(), Some(&last), "answered by {account:?}");
    }
}

#[tokio::test]
async fn websockets_with_calls_in_flight_live_through_twenty_takeovers() {
    calling(200, 1_000).await;
}

#[tokio::test]
#[ignore = "takes a minute in a debug build"]
async fn a_thousand_websockets_with_calls_in_flight_live_through_twenty_takeovers() {
    calling(1000, 5_000).await;
}

async fn calling(clients: usize, longest_run_ms: u64) {
    let front = Front::with(lively).await;
    let crowd = Clients::calling_for_long(&front, clients, longest_run_ms).await;
    for _ in 0..TAKEOVERS {
        let takeover = front.takeover().await;
        takeover.assert_committed();
        assert_eq!(drained(&takeover, "moved"), websocket(clients as u64), "{takeover:?}");
    }
    all_with(&front, generation(TAKEOVERS + 1), websocket(clients as u64)).await;
    crowd.each_is_answered(1).await;
    let accounts = crowd.stop().await;
    accounts.assert_nobody_noticed();
}
