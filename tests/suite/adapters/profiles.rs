//! `--profile openclaw`: what is known of OpenClaw's gateway, with a server in its place that does as it does.

use std::path::Path;

use holdfast_tests::rig::{Front, Program, Setup, Signal, Traffic};

use super::node::{server, with};
use super::{answering, get, given};
use crate::{generation, quick};

/// A front that runs the server as it would the gateway.
async fn gateway(words: &[&str]) -> Option<Front> {
    let profile =
        |s: Setup| s.flag("--profile", "openclaw").environment("OPENCLAW_NO_RESPAWN", "1");
    with(&[&["port"], words].concat(), profile).await
}

#[tokio::test]
async fn a_gateway_finds_what_it_needs_in_its_environment() {
    let Some(front) = gateway(&[]).await else { return };
    let environment = given(&front, "environment ").await;
    for expected in
        ["OPENCLAW_SYSTEMD_UNIT=holdfast", "OPENCLAW_NO_RESPAWN=", "OPENCLAW_ALLOW_MULTI_GATEWAY=1"]
    {
        assert!(environment.iter().any(|found| found == expected), "{expected}: {environment:?}");
    }
}

#[tokio::test]
async fn a_gateway_drains_by_the_signal_that_it_listens_for() {
    for (word, signal) in
        [("restart", "SIGUSR1"), ("restart-later", "SIGUSR2"), ("finish", "SIGTERM")]
    {
        let Some(front) = gateway(&[word]).await else { return };
        front.takeover().await.assert_committed();
        let said = format!("finishes by {signal}");
        front.until("it has finished", |_| front.log().lines_with(&said) == 1).await;
    }
}

#[tokio::test]
async fn a_gateway_that_would_restart_itself_is_replaced_and_serves_meanwhile() {
    let Some(front) = gateway(&["restart"]).await else { return };
    let traffic = Traffic::to(&front).with_new();
    traffic.flows(2).await;
    answering(&front).await.signal(Signal::SIGUSR1);
    let replaced = |s: &holdfast_tests::rig::Status| s.is_settled() && s.takeovers.committed == 1;
    let status = front.until("the next one serves", replaced).await;
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
    assert_eq!(status.crashes, 0);
    // It was asked once more, when its successor accepted.
    assert_eq!(front.log().lines_with("finishes by SIGUSR1"), 1);
}

#[tokio::test]
async fn a_gateway_that_exits_to_be_started_again_is_replaced_and_clients_wait() {
    let Some(front) = gateway(&["exit"]).await else { return };
    front.until("it has exited", |_| front.log().lines_with("has exited to be started") > 0).await;
    assert_eq!(get(&front, "/").await.generation(), generation(2));
    let replaced = |s: &holdfast_tests::rig::Status| s.is_settled() && s.takeovers.committed == 1;
    let status = front.until("the takeover is over", replaced).await;
    assert_eq!(status.crashes, 0);
}

#[tokio::test]
async fn a_gateway_that_exits_and_whose_successor_fails_is_started_once_more() {
    let Some(front) = gateway(&["exit-then-fail"]).await else { return };
    front.until("it is said", |s| s.takeovers.rolled_back == 1).await;
    assert_eq!(get(&front, "/").await.generation(), generation(3));
}

#[tokio::test]
async fn a_gateway_is_never_relayed_to_and_may_not_end_who_holds_its_port() {
    for adapter in ["relay", "activate"] {
        let outcome = Front::refused(|s| {
            quick(s)
                .flag("--profile", "openclaw")
                .flag("--adapter", adapter)
                .worker(server(&["port"]))
        })
        .await;
        outcome.assert_code(64).assert_says("--profile openclaw is for --adapter node");
    }
    let front = Front::with(|s| {
        let program = Program::new(Path::new("/bin/true")).arg("--force");
        quick(s).flag("--profile", "openclaw").worker(program).not_serving()
    })
    .await;
    front.until("that is refused", |s| s.failure().contains("leave it out")).await;
}
