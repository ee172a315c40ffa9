//! One image after the other: each worker is in namespaces of its own, as containers are.

use holdfast_tests::rig::moving::Clients;
use holdfast_tests::rig::{Attached, ELSEWHERE, Front, Traffic, elsewhere_is_there};

use super::{attachable, until_serves};
use crate::{called, skipped};

/// Whether namespaces can be had here; says that it was skipped otherwise.
pub(super) async fn namespaces_are_there() -> bool {
    let there = elsewhere_is_there().await;
    if !there {
        skipped("no namespaces of its own can be had here");
    }
    there
}

#[tokio::test]
async fn ten_images_one_after_the_other_refuse_close_and_lose_nothing() {
    if !namespaces_are_there().await {
        return;
    }
    let front = Front::with(attachable).await;
    let mut worker = front.attach(&ELSEWHERE, &[]);
    let inodes = until_serves(&front, 1).await.inodes();
    let traffic = Traffic::to(&front).with_new();
    let posters = Clients::posting(&front, 10).await;
    let callers = Clients::calling(&front, 10).await;
    for number in 2..=11 {
        let next: Attached = front.attach(&ELSEWHERE, &[]);
        let status = until_serves(&front, number).await;
        assert_eq!(status.inodes(), inodes, "the socket is another one");
        assert_eq!(worker.exit_code().await, 0, "the one before did not leave in good order");
        worker = next;
    }
    traffic.stop().await.assert_no_failures();
    posters.stop().await.assert_nobody_noticed();
    callers.stop().await.assert_nobody_noticed();
    let status = front.status().await;
    assert_eq!(
        (status.takeovers.committed, status.takeovers.rolled_back, status.crashes),
        (10, 0, 0)
    );
}

#[tokio::test]
async fn workers_elsewhere_share_the_database_the_locked_files_and_one_lease() {
    if !namespaces_are_there().await {
        return;
    }
    let front = Front::with(attachable).await;
    let mut worker = front.attach(&ELSEWHERE, &[]);
    until_serves(&front, 1).await;
    for number in 1..=4 {
        // The one is a row of the database, the other a change of a file under its lock.
        let session = format!(r#"{{"key":"agent:main:by-{number}"}}"#);
        called(&front, &["sessions.create", "--params", &session]).await.assert_code(0);
        let agent = format!(r#"{{"name":"by-{number}","workspace":"space-{number}"}}"#);
        called(&front, &["agents.create", "--params", &agent]).await.assert_code(0);
        let next = front.attach(&ELSEWHERE, &[]);
        let status = until_serves(&front, number + 1).await;
        let holders = status.generations.iter().filter(|generation| generation.lease);
        assert_eq!(holders.count(), 1, "{status:?}");
        assert_eq!(worker.exit_code().await, 0);
        worker = next;
        let sessions = called(&front, &["sessions.list"]).await.output;
        let agents = called(&front, &["agents.list"]).await.output;
        for before in 1..=number {
            let name = format!("by-{before}");
            assert!(sessions.contains(&name) && agents.contains(&name), "{sessions} {agents}");
        }
    }
}

#[tokio::test]
async fn two_successors_at_once_take_over_one_after_the_other() {
    let (front, mut first) = super::served().await;
    // Whoever of the two comes first is the second one.
    let _second = front.attach(&[], &[]);
    let _third = front.attach(&[], &[]);
    let status = until_serves(&front, 3).await;
    assert_eq!((status.takeovers.committed, status.takeovers.rolled_back), (2, 0));
    assert_eq!(first.exit_code().await, 0);
}

#[tokio::test]
async fn the_fronts_own_program_and_one_that_attaches_succeed_each_other() {
    let front = Front::with(|s| {
        crate::quick(s).flag("--attach", "attach.sock").worker(crate::fixture(["serve"]))
    })
    .await;
    let mut worker = front.attach(&[], &[]);
    until_serves(&front, 2).await;
    front.takeover().await.assert_committed();
    until_serves(&front, 3).await;
    assert_eq!(worker.exit_code().await, 0);
    let next = front.attach(&[], &[]);
    until_serves(&front, 4).await;
    next.signal(holdfast_tests::rig::Signal::SIGKILL).await;
    let status = until_serves(&front, 5).await;
    assert!(
        status.serving().is_some_and(|own| own.pid > 0),
        "it is not the front's own: {status:?}"
    );
}
