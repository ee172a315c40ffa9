//! The page's process: no worker, and the front's own for as long as that lives.

use std::net::TcpListener;

use holdfast_tests::rig::{Front, Process, Signal, Traffic, eventually};

use super::{Page, process_of, with_page};
use crate::adapters::relayed;
use crate::{good, quick};

async fn another_than(front: &Front, before: Process) -> Process {
    eventually("another process has the page", async || {
        process_of(front).filter(|process| process.pid() != before.pid())
    })
    .await
}

#[tokio::test]
async fn without_the_flag_there_is_no_page() {
    let front = Front::with(good).await;
    assert!(process_of(&front).is_none());
    assert!(!front.log().text().contains("status page"));
}

#[tokio::test]
async fn a_page_that_is_killed_is_started_again_and_nobody_is_refused_meanwhile() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    let before = process_of(&front).expect("there is one");
    before.signal(Signal::SIGKILL);
    assert_eq!(page.get("/readyz").await.code, 200);
    let second = another_than(&front, before).await;
    second.signal(Signal::SIGTERM);
    another_than(&front, second).await;
    eventually("both are counted", async || {
        page.get("/metrics")
            .await
            .text()
            .contains("\nholdfast_admin_restarts_total 2\n")
            .then_some(())
    })
    .await;
    let status = front.status().await;
    assert_eq!((status.crashes, status.is_settled()), (0, true), "{status:?}");
    assert_eq!(status.serving().map(|g| g.generation), Some(crate::generation(1)));
}

#[tokio::test]
async fn with_an_adapter_the_page_is_nobodys_stray() {
    let choose = |s| relayed(with_page(s), ["port:PORT"]);
    let front = Front::with(choose).await;
    let before = process_of(&front).expect("there is one");
    front.takeover().await.assert_committed();
    front.workers().await[0].signal(Signal::SIGKILL);
    front.until("the next one serves", |s| s.crashes == 1 && s.serving().is_some()).await;
    assert_eq!(process_of(&front).map(Process::pid), Some(before.pid()));
}

#[tokio::test]
async fn it_ends_with_a_front_that_stops_and_with_one_that_is_killed() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut front = Front::with(with_page).await;
        let page = Page::of(&front).await;
        let process = process_of(&front).expect("there is one");
        front.signal(signal);
        front.exit_code().await;
        eventually("the page is gone", async || process.is_gone().then_some(())).await;
        TcpListener::bind(page.address).expect("nobody listens there any more");
        if signal == Signal::SIGKILL {
            let again = page.address.to_string();
            front.start_again(|s| good(s).flag("--admin", &again)).await;
            page.until("/readyz", 200).await;
        }
    }
}

#[tokio::test]
async fn a_renewed_front_has_its_own_page_on_the_same_port_and_counts_on() {
    let front = Front::with(|s| quick(s).flag("--admin", "127.0.0.1:0")).await;
    let page = Page::of(&front).await;
    let traffic = Traffic::of_every_kind(&front);
    traffic.flows(1).await;
    front.takeover().await.assert_committed();
    let descriptors = front.process().descriptors().len();
    for renewed in 1..=3 {
        let before = process_of(&front).expect("there is one");
        front.run(&["reexec"]).await.assert_code(0);
        another_than(&front, before).await;
        let done = format!("\nholdfast_reexecs_total{{outcome=\"done\"}} {renewed}\n");
        eventually("the page tells of it", async || {
            let text = page.get("/metrics").await.text();
            let counts =
                text.contains("\nholdfast_takeover_phase_seconds_count{phase=\"soaking\"} 1\n");
            (counts && text.contains(&done)).then_some(())
        })
        .await;
    }
    assert!(page.get("/metrics").await.text().contains("\nholdfast_admin_restarts_total 0\n"));
    traffic.stop().await.assert_no_failures();
    let children = front.process().descendants();
    assert_eq!(children.len(), 2, "the worker and the page: {children:?}");
    eventually("the front holds no more descriptors than before", async || {
        (front.process().descriptors().len() <= descriptors).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_page_that_nobody_looks_at_asks_the_front_nothing() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    page.until("/readyz", 200).await;
    let process = process_of(&front).expect("there is one");
    let woken = process.switches();
    // As long as three looks of a viewer would take, told by the front's own clock.
    let uptime = front.status().await.front.uptime_ms;
    front.until("three seconds have passed", |s| s.front.uptime_ms > uptime + 3000).await;
    let times = process.switches() - woken;
    assert!(times < 3, "it was woken {times} times");
}
