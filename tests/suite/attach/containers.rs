//! Programs under adapters in containers of their own: another network than the front's, and other processes.

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{CONTAINER, Front, Status, binaries, starts_programs};

use super::adapters::{ACTIVATE, all, succeed_each_other};
use super::{attachable, until_serves};
use crate::skipped;

/// Whether programs can be started as in containers; says that it was skipped otherwise.
async fn containers_are_there() -> bool {
    let there = starts_programs(&CONTAINER).await;
    if !there {
        skipped("no namespaces of its own with a loopback device can be had here");
    }
    there
}

#[tokio::test]
async fn programs_in_containers_of_their_own_succeed_each_other_and_lose_nobody() {
    if containers_are_there().await {
        for adapted in all().await {
            succeed_each_other(adapted, &CONTAINER).await;
        }
    }
}

#[tokio::test]
async fn a_program_that_could_only_be_asked_in_the_fronts_network_is_refused_elsewhere() {
    if !containers_are_there().await {
        return;
    }
    let front = Front::with(attachable).await;
    let words = ["adapter", "activate", "--attach", "attach.sock", "--ready-http", "/", "--"];
    let words = [&words, ACTIVATE.good].concat();
    let mut here = front.attach_by(&[], &binaries::holdfast(), &words);
    until_serves(&front, 1).await;
    let mut elsewhere = front.attach_by(&CONTAINER, &binaries::holdfast(), &words);
    assert_eq!(elsewhere.exit_code().await, 1);
    let told = |status: &Status| status.failure().contains("--ready-http connects");
    front.until("the reason is told", told).await;
    until_serves(&front, 1).await;
    let _ready_by_its_word = ACTIVATE.attach_with(&front, &CONTAINER, ACTIVATE.good);
    until_serves(&front, 3).await;
    assert_eq!(here.exit_code().await, 0);
}

#[tokio::test]
async fn the_connections_of_a_program_elsewhere_are_counted() {
    if !containers_are_there().await {
        return;
    }
    for adapted in all().await {
        let front = Front::with(attachable).await;
        let _first = adapted.attach_with(&front, &CONTAINER, adapted.good);
        until_serves(&front, 1).await;
        let mut kept = Vec::new();
        for open in 0..3 {
            let counted = |status: &Status| {
                let connections = status.serving().and_then(|serving| serving.connections);
                connections.is_some_and(|connections| connections.http == open)
            };
            front.until("as many are counted as are open", counted).await;
            let connection = HttpConnection::open(&front.address()).await;
            let mut connection = connection.expect("it is accepted");
            connection.exchange(&Request::get("/")).await.expect("it is served");
            kept.push(connection);
        }
    }
}
