//! `--adapter node`: a Node program that calls `listen(port)` accepts from the shared sockets.

use std::path::Path;

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Gate, Program, Setup, Signal, Traffic};

use super::{get, given, held, is_paused_and_loses_nobody, loses_nobody};
use crate::{generation, quick, skipped};

/// A front that runs the server under `node`; `None` on a machine without Node, which is said.
pub(super) async fn with(words: &[&str], choose: impl FnOnce(Setup) -> Setup) -> Option<Front> {
    let found = tokio::process::Command::new("node").arg("--version").output().await;
    if found.is_err() {
        skipped("node is not installed");
        return None;
    }
    let adapted = |s| quick(s).flag("--adapter", "node").worker(server(words));
    Some(Front::with(|s| choose(adapted(s))).await)
}

/// The server of `server.cjs`, which says what its words mean.
pub(super) fn server(words: &[&str]) -> Program {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("suite/adapters/server.cjs");
    words.iter().fold(Program::new("node").arg(script), |program, word| program.arg(*word))
}

#[tokio::test]
async fn ten_takeovers_of_a_node_server_lose_no_new_connection() {
    let Some(front) = with(&["port", "finish"], |s| s).await else { return };
    let inodes = front.status().await.inodes();
    loses_nobody(&front, 10).await;
    assert_eq!(front.status().await.inodes(), inodes);
    assert_eq!(front.serving().await.generation, generation(11));
    assert_eq!(front.log().lines_with("did not confirm"), 0);
}

#[tokio::test]
async fn a_node_server_is_paused_without_noticing() {
    let Some(front) = with(&["port", "finish"], |s| s).await else { return };
    is_paused_and_loses_nobody(&front).await;
}

#[tokio::test]
async fn every_way_to_listen_on_a_port_is_understood() {
    let Some(front) = with(&["port"], |s| s).await else { return };
    let port = format!(r#""port":{}"#, front.tcp().port());
    for (way, host) in [
        ("port-text", "::"),
        ("port-callback", "::"),
        ("port-host", "127.0.0.1"),
        ("port-host-callback", "127.0.0.1"),
        ("port-backlog", "::"),
        ("port-host-backlog-callback", "127.0.0.1"),
        ("options", "::"),
        ("options-host-callback", "127.0.0.1"),
        ("options-name", "127.0.0.1"),
        ("anywhere", "0.0.0.0"),
        ("six", "::1"),
        ("twice", "::"),
    ] {
        front.takeover_to(&server(&[way])).await.assert_committed();
        // What the program is told of its own address is what it asked for.
        let address = given(&front, "address ").await.join("");
        let host = format!(r#""address":"{host}""#);
        assert!(address.contains(&port) && address.contains(&host), "{way}: {address}");
    }
}

#[tokio::test]
async fn listeners_of_both_families_have_the_clients_of_theirs() {
    let Some(front) = with(&["both", "finish"], |s| s).await else { return };
    // One port for both, as the gateway has it: the second address is of the first one's port.
    let port = front.tcp().port();
    assert!(given(&front, "from ").await[0].starts_with("first 127.0.0.1"));
    drop(front);
    let six = format!("[::1]:{port}");
    if std::net::TcpListener::bind(&six).is_err() {
        return skipped("there is no IPv6 here, or its port is taken");
    }
    let listen = |s: Setup| s.listen(format!("127.0.0.1:{port}")).listen(&six);
    let Some(front) = with(&["both", "finish"], listen).await else { return };
    let [four, six] = front.addresses() else { panic!("there are two") };
    for (address, from) in [(four, "from first 127.0.0.1"), (six, "from six ::1")] {
        let answer = ask(address, Request::get("/given")).await.unwrap().text();
        assert!(answer.contains(from), "{answer}");
    }
    front.takeover_to(&server(&["port"])).await.assert_committed();
    for address in front.addresses() {
        assert!(ask(address, Request::get("/given")).await.unwrap().text().contains("from first"));
    }
}

#[tokio::test]
async fn what_is_not_the_fronts_port_is_listened_on_as_ever() {
    let Some(front) = with(&["port-host", "others"], |s| s).await else { return };
    let others = given(&front, "other ").await.join(" ");
    assert!(others.contains("/socket") && others.contains("/other"), "{others}");
    let public = format!(r#""port":{}"#, front.tcp().port());
    assert!(others.contains(r#""port":"#) && !others.contains(&public), "{others}");
}

#[tokio::test]
async fn what_a_program_starts_inherits_none_of_it() {
    let options = "--title=mine --no-deprecation";
    let Some(front) = with(&["port", "thread"], |s| s.environment("NODE_OPTIONS", options)).await
    else {
        return;
    };
    let inodes = front.status().await.inodes();
    for path in ["/given", "/child"] {
        let text = get(&front, path).await.text();
        assert!(text.contains(&format!("environment NODE_OPTIONS={options}")), "{path}: {text}");
        assert!(!text.contains("HOLDFAST_NODE") && !text.contains("LISTEN_PID"), "{path}: {text}");
        let shared = inodes.iter().any(|inode| text.contains(&format!("socket:[{inode}]")));
        assert!(!shared, "{path}: {text}");
    }
    assert_eq!(front.log().lines_with("thread "), 0);
}

#[tokio::test]
async fn the_shared_sockets_backlog_is_not_nodes_own() {
    let Some(front) = with(&["port-backlog"], |s| s).await else { return };
    let port = front.tcp().port().to_string();
    let words = ["-tlnH", "sport", "=", &port];
    let Ok(found) = tokio::process::Command::new("ss").args(words).output().await else {
        return skipped("ss is not installed");
    };
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let backlog: u32 = found.split_whitespace().nth(2).unwrap().parse().unwrap();
    let most: u32 =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    assert_eq!(backlog, most.min(4096), "{found}");
}

#[tokio::test]
async fn a_request_is_finished_by_the_server_that_has_it_whether_it_knows_how_to_or_not() {
    for words in [&["port", "finish"][..], &["port"]] {
        let Some(front) = with(words, |s| s).await else { return };
        let gate = Gate::closed();
        let mut held = held(&front, &gate.hold()).await;
        let mut takeover = front.begin_takeover();
        takeover.until("committed").await;
        assert_eq!(get(&front, "/").await.generation(), generation(2));
        gate.open();
        assert_eq!(held.receive().await.unwrap().generation(), generation(1));
        takeover.end().await.assert_committed();
    }
}

#[tokio::test]
async fn a_rolled_back_incumbent_accepts_again_as_often_as_it_has_to() {
    let Some(front) = with(&["port"], |s| s.flag("--soak", "20s")).await else { return };
    let traffic = Traffic::to(&front).with_new();
    // More often than a program can stop for a while, which costs a descriptor each time.
    for round in 1..=6 {
        let mut takeover = front.begin_takeover();
        takeover.until("switched").await;
        front.workers().await.last().expect("there is a successor").signal(Signal::SIGKILL);
        takeover.end().await.assert_rolled_back();
        assert_eq!(get(&front, "/").await.generation(), generation(1), "round {round}");
        traffic.flows(2).await;
    }
    drop(traffic);
}

#[tokio::test]
async fn a_server_that_is_closed_by_its_program_is_replaced_and_clients_wait() {
    let Some(front) = with(&["port", "linger"], |s| s).await else { return };
    get(&front, "/close").await;
    // Nobody accepts until the next one does.
    assert_eq!(get(&front, "/").await.generation(), generation(2));
    front.until("the takeover is over", |s| s.is_settled() && s.takeovers.committed == 1).await;
    assert_eq!(front.status().await.crashes, 0);
}

#[tokio::test]
async fn a_program_that_is_busy_with_its_start_is_not_given_clients() {
    let Some(front) = with(&["port"], |s| s).await else { return };
    let takeover = front.takeover_to(&server(&["port", "busy"])).await;
    takeover.assert_committed();
    let ready_after = takeover.event("ready").unwrap()["elapsed_ms"].as_u64().unwrap();
    assert!(ready_after >= 2000, "{takeover:?}");
}

#[tokio::test]
async fn a_program_that_does_not_listen_where_it_should_is_told_of() {
    let Some(front) = with(&["port"], |s| s.flag("--ready-timeout", "3s")).await else { return };
    let port = front.tcp().port();
    for (way, reasons) in [
        (
            "elsewhere",
            vec![format!("has not called listen({port})"), "listens on 127.0.0.1:".into()],
        ),
        ("cluster", vec!["cluster workers".into()]),
        ("nonsense", vec!["exited with code 1 before it was ready".into()]),
    ] {
        let takeover = front.takeover_to(&server(&[way])).await;
        takeover.assert_rolled_back();
        for reason in reasons {
            assert!(takeover.reason().contains(&reason), "{way}: no {reason:?}: {takeover:?}");
        }
        assert_eq!(get(&front, "/").await.generation(), generation(1));
    }
}

#[tokio::test]
async fn an_address_that_is_no_port_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", place.path().join("socket").display());
    let front = Front::with(|s| {
        quick(s).flag("--adapter", "node").worker(server(&["port"])).listen(listen).not_serving()
    })
    .await;
    front.until("that is refused", |s| s.failure().contains("is no port")).await;
}

#[tokio::test]
async fn stop_first_lets_one_server_go_before_the_next_one_starts() {
    let order = |s: Setup| s.flag("--takeover-order", "stop-first");
    let Some(front) = with(&["port", "finish"], order).await else { return };
    let traffic = Traffic::to(&front).with_new();
    for _ in 0..2 {
        traffic.flows(5).await;
        front.takeover().await.assert_committed();
    }
    traffic.flows(5).await;
    traffic.stop().await.assert_no_failures();
}
