//! `--adapter relay`: the program listens on a private port of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use holdfast_tests::rig::http::Request;
use holdfast_tests::rig::{Front, Gate, Setup, eventually};

use super::{
    answering, get, given, held, is_paused_and_loses_nobody, loses_nobody, relayed,
    replaces_one_at_a_time,
};
use crate::generation;

#[tokio::test]
async fn ten_takeovers_of_a_relayed_program_lose_no_new_connection() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    let inodes = front.status().await.inodes();
    loses_nobody(&front, 10).await;
    assert_eq!(front.status().await.inodes(), inodes);
    assert_eq!(front.serving().await.generation, generation(11));
}

#[tokio::test]
async fn a_relayed_program_is_paused_without_noticing() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    is_paused_and_loses_nobody(&front).await;
}

#[tokio::test]
async fn a_program_is_told_its_port_in_each_of_the_ways() {
    let front = Front::with(|s| relayed(s, ["port:PORT", "status:{port}"])).await;
    let environment = given(&front, "environment ").await;
    let of = |name: &str| environment.iter().find_map(|v| v.strip_prefix(name)).map(str::to_owned);
    let port = of("PORT=").unwrap();
    assert_eq!(of("HOST=").as_deref(), Some("127.0.0.1"));
    assert_eq!(given(&front, "argument 2 ").await, [format!("status:{port}")]);
    let other = |s| relayed(s, ["port:HTTP_PORT"]).flag("--port-env", "HTTP_PORT");
    let front = Front::with(other).await;
    let environment = given(&front, "environment ").await;
    assert!(!environment.iter().any(|variable| variable.starts_with("PORT=")), "{environment:?}");
}

#[tokio::test]
async fn a_program_may_listen_on_a_socket_that_only_this_user_reaches() {
    let unix = |s| relayed(s, ["port:PORT"]).flag("--private", "unix").flag("--ready-http", "/");
    let front = Front::with(unix).await;
    loses_nobody(&front, 3).await;
    let path = given(&front, "environment PORT=").await.join("");
    let directory = std::path::Path::new(&path).parent().unwrap().to_owned();
    assert!(directory.exists());
    front.takeover().await.assert_committed();
    assert!(!directory.exists(), "a directory stayed behind");
}

#[tokio::test]
async fn a_program_under_relay_holds_none_of_the_fronts_sockets() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    let inodes = front.status().await.inodes();
    let held = answering(&front).await.descriptors();
    for inode in inodes {
        let target = format!("socket:[{inode}]");
        assert!(!held.iter().any(|descriptor| descriptor.target == target), "{held:?}");
    }
}

#[tokio::test]
async fn an_old_connection_stays_with_the_old_program_until_it_is_done() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    let gate = Gate::closed();
    let mut held = held(&front, &gate.hold()).await;
    let incumbent = answering(&front).await;
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    assert_eq!(get(&front, "/").await.generation(), generation(2));
    gate.open();
    assert_eq!(held.receive().await.unwrap().generation(), generation(1));
    // It is a connection until the client has done with it.
    assert_eq!(held.exchange(&Request::get("/")).await.unwrap().generation(), generation(1));
    assert!(!incumbent.is_gone());
    drop(held);
    takeover.end().await.assert_committed();
    assert!(incumbent.is_gone());
}

#[tokio::test]
async fn a_new_front_is_looked_at_in_peace_while_an_adapter_ends() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    let gate = Gate::closed();
    let mut held = held(&front, &gate.hold()).await;
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    let looked = Gate::closed();
    let script =
        format!("#!/bin/sh\nuntil [ -e {} ]; do sleep 0.01; done\n", looked.file().display());
    let slow = front.directory().join("slow");
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, Permissions::from_mode(0o755)).unwrap();
    let words = ["reexec", "--binary", slow.to_str().unwrap()];
    let reexec = front.run(&words);
    let ends = async {
        let is_looked_at = || front.log().lines_with("a new front is being checked") > 0;
        eventually("it is looked at", async || is_looked_at().then_some(())).await;
        gate.open();
        held.receive().await.unwrap();
        drop(held);
        takeover.end().await.assert_committed();
        looked.open();
    };
    let (outcome, ()) = tokio::join!(reexec, ends);
    // What it does not say in time is another matter.
    outcome.assert_code(1);
    assert!(!outcome.errors.contains("SIGKILL"), "{outcome:?}");
}

#[tokio::test]
async fn what_stays_open_is_asked_to_end_before_the_deadline() {
    let front = Front::with(|s| relayed(s, ["port:PORT"]).flag("--drain-timeout", "4s")).await;
    let mut kept = held(&front, "/").await;
    kept.receive().await.unwrap();
    // The program closes idle connections when it is asked to stop: in the last quarter.
    front.takeover().await.assert_committed();
    assert!(kept.closed().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_program_is_told_who_the_client_is() {
    for (version, expected) in [
        ("v1", "PROXY TCP4 127.0.0.1 127.0.0.1 "),
        ("v2", "\\r\\n\\r\\n\\x00\\r\\nQUIT\\n!\\x11\\x00\\x0c"),
    ] {
        let proxied = |s: Setup| {
            relayed(s, ["port:PORT", "proxied"])
                .flag("--proxy-protocol", version)
                .flag("--ready-http", "/")
        };
        let front = Front::with(proxied).await;
        let header = given(&front, "proxy ").await.join("");
        assert!(header.starts_with(expected), "{header:?}");
        if version == "v1" {
            assert!(header.ends_with(&format!(" {}\\r\\n", front.tcp().port())), "{header:?}");
        }
        loses_nobody(&front, 2).await;
    }
}

#[tokio::test]
async fn stop_first_lets_one_relayed_program_go_before_the_next_one_starts() {
    let front =
        Front::with(|s| relayed(s, ["port:PORT"]).flag("--takeover-order", "stop-first")).await;
    replaces_one_at_a_time(&front).await;
}
