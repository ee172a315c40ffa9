//! Workers that die, fronts that die or renew themselves, and links that break.

use holdfast_tests::rig::moving::Clients;
use holdfast_tests::rig::{ELSEWHERE, Process, Signal, Traffic};
use rustix::net::sockopt::socket_type;
use rustix::net::{Shutdown, SocketType, shutdown};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::updates::namespaces_are_there;
use super::{attachable, served, until_serves};
use crate::skipped;

#[tokio::test]
async fn when_the_only_worker_dies_newcomers_wait_for_the_next_one_that_attaches() {
    let (front, worker) = served().await;
    worker.signal(Signal::SIGKILL).await;
    let waits = |status: &holdfast_tests::rig::Status| {
        status.attach.as_ref().is_some_and(|attach| attach.awaits_worker)
    };
    let status = front.until("the front waits for a worker", waits).await;
    assert_eq!(status.crashes, 1);
    front.run(&["status"]).await.assert_code(0);
    let traffic = Traffic::to(&front).with_new();
    let _next = front.attach(&[], &[]);
    until_serves(&front, 2).await;
    traffic.flows(5).await;
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn a_takeover_that_nobody_attaches_for_is_refused_with_what_to_do_instead() {
    let (front, _worker) = served().await;
    let refused = front.run(&["takeover"]).await;
    refused.assert_code(1).assert_says("--attach");
    until_serves(&front, 1).await;
}

#[tokio::test]
async fn an_attached_worker_keeps_its_link_while_the_front_renews_itself() {
    let (front, mut worker) = served().await;
    let callers = Clients::calling(&front, 5).await;
    let _second = front.attach(&[], &[]);
    until_serves(&front, 2).await;
    for _ in 0..3 {
        front.run(&["reexec"]).await.assert_code(0);
    }
    assert_eq!(worker.exit_code().await, 0);
    let _next = front.attach(&[], &[]);
    until_serves(&front, 3).await;
    callers.stop().await.assert_nobody_noticed();
}

#[tokio::test]
async fn the_next_front_goes_on_with_workers_that_had_attached_and_their_sockets() {
    let elsewhere = namespaces_are_there().await;
    let wrapper = if elsewhere { &ELSEWHERE[..] } else { &[] };
    let mut front = holdfast_tests::rig::Front::with(attachable).await;
    let _worker = front.attach(wrapper, &[]);
    let inodes = until_serves(&front, 1).await.inodes();
    let address = front.address().to_string();
    let callers = Clients::calling(&front, 5).await;
    // A front that was itself a next one has a next one, too.
    for _ in 0..2 {
        front.kill().await;
        front.start_again(|s| attachable(s).listen(address.clone())).await;
        let status = until_serves(&front, 1).await;
        assert_eq!(status.inodes(), inodes, "the socket is another one");
        assert_eq!(status.recovered().len(), 1);
    }
    let _next = front.attach(wrapper, &[]);
    until_serves(&front, 2).await;
    callers.stop().await.assert_nobody_noticed();
}

/// Breaks the link of a worker, from outside: both of its ends hear that the other is gone.
pub(super) fn cut(worker: Process) -> bool {
    let pid = rustix::process::Pid::from_raw(worker.pid()).expect("it has a pid");
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let mut cut = false;
    for descriptor in worker.descriptors() {
        let number = descriptor.number.cast_signed();
        let Ok(copy) = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) else { continue };
        if socket_type(&copy) == Ok(SocketType::SEQPACKET) {
            cut |= shutdown(&copy, Shutdown::Both).is_ok();
        }
    }
    cut
}

#[tokio::test]
async fn a_worker_whose_link_breaks_serves_on_and_is_the_same_generation_afterwards() {
    let (front, worker) = served().await;
    let callers = Clients::calling(&front, 5).await;
    let traffic = Traffic::to(&front).with_new();
    if !cut(worker.process().await) {
        return skipped("the link of another process cannot be had here");
    }
    front.until("the end of the link is noticed", |status| status.crashes == 1).await;
    let status = until_serves(&front, 1).await;
    assert!(status.serving().is_some_and(|serving| serving.lease), "{status:?}");
    let _next = front.attach(&[], &[]);
    until_serves(&front, 2).await;
    traffic.stop().await.assert_no_failures();
    callers.stop().await.assert_nobody_noticed();
}
