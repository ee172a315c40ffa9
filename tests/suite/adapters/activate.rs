//! `--adapter activate`: the program accepts from the shared sockets itself.

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Gate, Generation, Signal, State, Traffic, eventually};

use super::{activated, answering, get, given, held, loses_nobody, replaces_one_at_a_time, server};
use crate::generation;

#[tokio::test]
async fn ten_takeovers_of_an_activated_program_lose_no_new_connection() {
    let front = Front::with(|s| activated(s, ["listen-fds", "ready"])).await;
    let inodes = front.status().await.inodes();
    loses_nobody(&front, 10).await;
    assert_eq!(front.status().await.inodes(), inodes);
    assert_eq!(front.serving().await.generation, generation(11));
}

#[tokio::test]
async fn a_program_is_given_its_sockets_as_the_service_manager_would_and_nothing_else() {
    let front = Front::with(|s| {
        activated(s, ["listen-fds", "ready"])
            .listen("127.0.0.1:0")
            .listen("127.0.0.1:0")
            .flag("--fd-name", "http")
            .wrapped_in(&["sh", "-c", "ulimit -Sn 777; exec \"$0\" \"$@\""])
    })
    .await;
    let [first, second] = front.addresses() else { panic!("there are two") };
    let environment = given(&front, "environment ").await;
    let of = |name: &str| {
        environment.iter().find_map(|v| v.strip_prefix(&format!("{name}="))).map(str::to_owned)
    };
    let pid = answering(&front).await.pid().to_string();
    assert_eq!(of("LISTEN_PID"), Some(pid));
    assert_eq!(of("LISTEN_FDS").as_deref(), Some("2"));
    let port = second.to_string().rsplit(':').next().unwrap().to_owned();
    assert_eq!(of("LISTEN_FDNAMES"), Some(format!("http:port-{port}")));
    assert_eq!(of("HOLDFAST_GENERATION").as_deref(), Some("g1"));
    assert_eq!(of("HOLDFAST_LINK"), None);
    assert_eq!(given(&front, "limit ").await, ["777"]);
    for address in [first, second] {
        ask(address, Request::get("/")).await.unwrap();
    }
    let inodes = front.status().await.inodes();
    let held = answering(&front).await.descriptors();
    let sockets: Vec<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let shared: Vec<_> = held.iter().filter(|d| sockets.contains(&d.target)).collect();
    assert_eq!(shared.len(), 2, "{held:?}");
    assert_eq!(held.iter().find(|d| d.number == 0).unwrap().target, "/dev/null");
    // It is given no other socket: what else it has it opened itself.
    let adapter = front.serving().await.worker().unwrap().descriptors();
    let is_another = |target: &String| target.starts_with("socket:") && !sockets.contains(target);
    for socket in adapter.iter().filter(|d| is_another(&d.target)) {
        assert!(!held.iter().any(|d| d.number > 2 && d.target == socket.target), "{socket:?}");
    }
}

#[tokio::test]
async fn the_adapter_itself_keeps_one_copy_of_each_listening_socket_for_the_next_front() {
    let front = Front::with(|s| activated(s, ["listen-fds", "ready"])).await;
    let inodes = front.status().await.inodes();
    let adapter = front.serving().await.worker().unwrap().descriptors();
    for inode in inodes {
        let target = format!("socket:[{inode}]");
        let copies = adapter.iter().filter(|descriptor| descriptor.target == target).count();
        assert_eq!(copies, 1, "{adapter:?}");
    }
}

#[tokio::test]
async fn a_descriptor_can_be_named_in_the_arguments() {
    let front = Front::with(|s| activated(s, ["fd:{fd}", "ready"])).await;
    assert_eq!(given(&front, "argument 1 ").await, ["fd:3"]);
    loses_nobody(&front, 2).await;
}

#[tokio::test]
async fn a_socket_that_the_program_would_not_take_is_refused() {
    let front = Front::with(|s| {
        activated(s, ["fd:{fd}", "ready"]).listen("127.0.0.1:0").listen("127.0.0.1:0").not_serving()
    })
    .await;
    let says = |s: &holdfast_tests::rig::Status| s.failure().contains("1 of the 2");
    let status = front.until("that is refused", says).await;
    assert!(status.failure().contains("{fd} and {fd2}"), "{}", status.failure());
}

#[tokio::test]
async fn readiness_is_the_programs_own_and_not_what_the_incumbent_answers() {
    for flag in [("--ready-http", Some("/healthz")), ("--ready-tcp", None)] {
        let front = Front::with(|s| {
            let setup = activated(s, ["listen-fds"]).flag("--ready-timeout", "2s");
            match flag {
                (name, Some(value)) => setup.flag(name, value),
                (name, None) => setup.switch(name),
            }
        })
        .await;
        front.takeover().await.assert_committed();
        let traffic = Traffic::to(&front).with_new();
        traffic.flows(2).await;
        let takeover = front.takeover_to(&server(["listen-fds", "never-accept"])).await;
        takeover.assert_rolled_back();
        assert!(takeover.reason().contains("was not ready within 2s"), "{takeover:?}");
        assert!(takeover.reason().contains("accepts no connection"), "{takeover:?}");
        traffic.flows(2).await;
        traffic.stop().await.assert_no_failures();
        assert_eq!(front.serving().await.generation, generation(2));
    }
}

#[tokio::test]
async fn the_incumbent_is_asked_to_stop_only_when_nothing_is_rolled_back_any_more() {
    let front = Front::with(|s| activated(s, ["listen-fds", "ready"]).flag("--soak", "20s")).await;
    let incumbent = answering(&front).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    // Both serve now; the successor's program is the one that is not the incumbent's.
    let successor = eventually("the successor answers", async || {
        let found = answering(&front).await;
        (found != incumbent).then_some(found)
    })
    .await;
    successor.signal(Signal::SIGKILL);
    let takeover = takeover.end().await;
    takeover.assert_rolled_back();
    assert!(takeover.reason().contains("the program was ended by SIGKILL"), "{takeover:?}");
    assert_eq!(answering(&front).await, incumbent);
    assert_eq!(front.log().lines_with("finishes"), 0, "the incumbent was asked to stop");
}

#[tokio::test]
async fn a_request_is_finished_by_the_program_that_has_it() {
    let front = Front::with(|s| activated(s, ["listen-fds", "ready"])).await;
    let gate = Gate::closed();
    let mut held = held(&front, &gate.hold()).await;
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    eventually("the incumbent accepts no more", async || {
        (front.log().lines_with("finishes") == 1).then_some(())
    })
    .await;
    assert_eq!(get(&front, "/").await.generation(), generation(2));
    gate.open();
    assert_eq!(held.receive().await.unwrap().generation(), generation(1));
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn a_program_that_says_it_is_stopping_is_replaced_before_it_is_gone() {
    let front = Front::with(|s| activated(s, ["listen-fds", "ready"])).await;
    get(&front, "/notify?STOPPING=1").await;
    front.until("the next one serves", |s| s.is_settled() && s.takeovers.committed == 1).await;
    assert_eq!(front.status().await.crashes, 0);
}

#[tokio::test]
async fn a_program_that_asks_for_more_time_to_get_ready_is_given_it() {
    let front =
        Front::with(|s| activated(s, ["listen-fds", "ready"]).flag("--ready-timeout", "3s")).await;
    let gate = Gate::closed();
    let slow = server(["listen-fds", "extend:600", &gate.word("ready-at")]);
    let takeover = front.begin_takeover_to(&slow);
    let is_late = |g: &Generation| g.state == State::Starting && g.age_ms > 4000;
    front.until("it takes longer", |s| s.generations.iter().any(is_late)).await;
    gate.open();
    takeover.end().await.assert_committed();
    assert_eq!(get(&front, "/").await.generation(), generation(2));
}

#[tokio::test]
async fn a_program_that_asks_for_more_time_to_stop_is_given_it_until_its_drain_is_cut_short() {
    let words = ["listen-fds", "ready", "extend:600"];
    for cut in [false, true] {
        let front = Front::with(|s| activated(s, words).flag("--drain-timeout", "1s")).await;
        let gate = Gate::closed();
        let mut held = held(&front, &gate.hold()).await;
        let mut takeover = front.begin_takeover();
        takeover.until("committed").await;
        // Beyond the drain timeout and the front's grace.
        let is_late = |g: &Generation| g.state == State::Draining && g.age_ms > 10_000;
        front.until("it takes longer", |s| s.generations.iter().any(is_late)).await;
        if cut {
            front.run(&["drain", "--now", "g1"]).await.assert_code(0);
            takeover.end().await.assert_cut(1);
        } else {
            gate.open();
            assert_eq!(held.receive().await.unwrap().generation(), generation(1));
            takeover.end().await.assert_committed();
        }
    }
}

#[tokio::test]
async fn stop_first_lets_one_program_go_before_the_next_one_starts() {
    let front = Front::with(|s| {
        activated(s, ["listen-fds", "ready"]).flag("--takeover-order", "stop-first")
    })
    .await;
    replaces_one_at_a_time(&front).await;
}

#[tokio::test]
async fn how_many_connections_a_program_has_is_known_without_asking_it() {
    let front = Front::with(|s| activated(s, ["listen-fds", "ready"])).await;
    let gate = Gate::closed();
    let held = held(&front, &gate.hold()).await;
    front
        .until("it is counted", |s| {
            s.serving().and_then(|g| g.connections).is_some_and(|c| c.http == 1)
        })
        .await;
    drop(held);
}

#[tokio::test]
async fn a_front_that_stops_has_its_program_finish() {
    let mut front = Front::with(|s| activated(s, ["listen-fds", "ready"])).await;
    let program = answering(&front).await;
    front.run(&["stop"]).await.assert_code(0);
    assert_eq!(front.exit_code().await, 0);
    assert!(program.is_gone());
    assert_eq!(front.log().lines_with("finishes"), 1);
}
