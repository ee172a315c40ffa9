//! A takeover that goes well.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use handoff::Address;
use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::{
    Front, Gate, Program, Signal, State, Traffic, eventually, listening_inodes, soon,
};

use crate::{fixture, generation, good, held_request, quick};

#[tokio::test]
async fn a_takeover_under_traffic_loses_nothing() {
    let front = Front::start().await;
    let mut traffic = Traffic::of_every_kind(&front);
    traffic.flows(3).await;
    traffic.send_slow();
    front.takeover().await.assert_committed();
    traffic.flows(3).await;
    let tally = traffic.stop().await;
    tally.assert_no_failures();
    assert!(tally.generations().iter().copied().eq([generation(1), generation(2)]), "{tally}");
}

#[tokio::test]
async fn takeovers_of_the_bundled_worker_keep_the_front_and_change_the_worker() {
    let front = Front::with(quick).await;
    let before = front.status().await;
    front.takeover().await.assert_committed();
    let after = front.until("the incumbent is gone", |status| status.is_settled()).await;
    assert_eq!(before.front.pid, after.front.pid);
    assert_eq!(after.front.version, before.front.version);
    assert_eq!(after.serving().map(|g| g.generation), Some(generation(2)));
    assert_ne!(before.generations[0].pid, after.generations[0].pid);
    assert!(before.generations[0].worker().is_none(), "the incumbent was not reaped");
    assert_eq!((after.takeovers.committed, after.takeovers.rolled_back, after.crashes), (1, 0, 0));
}

#[tokio::test]
async fn a_serving_worker_that_wants_it_is_replaced_once_it_is_five_seconds_old() {
    let front =
        Front::with(|s| quick(s.worker(fixture(["wants-takeover:its port changed"])))).await;
    let begun_at = std::time::Instant::now();
    front
        .until("the successor serves", |s| {
            s.is_settled() && s.serving().is_some_and(|g| g.generation == generation(2))
        })
        .await;
    assert!(begun_at.elapsed() >= Duration::from_secs(4), "a worker that asks at its start spins");
    assert!(front.log().lines_with("its port changed") > 0);
    assert_eq!(front.status().await.takeovers.committed, 1);
}

#[tokio::test]
async fn a_worker_whose_wish_to_be_replaced_was_rolled_back_is_replaced_later() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    let turn_to = |target: &Path| {
        let next = directory.path().join("next");
        symlink(target, &next).unwrap();
        std::fs::rename(next, &program).unwrap();
    };
    let fixture = Path::new(env!("CARGO_BIN_EXE_fixture-worker"));
    turn_to(fixture);
    let worker = Program::new(&program).arg("wants-takeover:its port changed");
    let front = Front::with(|s| quick(s.worker(worker))).await;
    turn_to(Path::new("/bin/false"));
    let status = front.until("its successor has failed", |s| s.takeovers.rolled_back == 1).await;
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(1)));
    turn_to(fixture);
    let status = front.until("it is replaced", |s| s.takeovers.committed == 1).await;
    assert_eq!((status.takeovers.rolled_back, status.crashes), (1, 0), "{status:?}");
    assert_eq!(front.log().lines_with("still wants to be replaced"), 1);
}

#[tokio::test]
async fn the_listening_socket_stays_the_same_one() {
    let front = Front::with(good).await;
    let before = front.status().await.inodes();
    assert_eq!(before, listening_inodes(front.tcp()));
    for _ in 0..3 {
        front.takeover().await.assert_committed();
        assert_eq!(front.status().await.inodes(), before);
        assert_eq!(listening_inodes(front.tcp()), before);
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_by_the_generation_that_began_it() {
    let front = Front::with(good).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    let newcomer = ask(&front.address(), Request::get("/")).await.unwrap();
    assert_eq!(newcomer.generation(), generation(2));
    eventually("the incumbent has heard of its drain", async || {
        (front.log().lines_with("fixture g1 drains") == 1).then_some(())
    })
    .await;
    gate.open();
    let answer = held.receive().await.unwrap();
    assert_eq!(answer.generation(), generation(1));
    assert!(answer.closes(), "the connection of a draining worker was left open");
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn a_body_that_is_under_way_is_received_whole() {
    let front = Front::with(quick).await;
    let request = Request::chat(&"word ".repeat(2000));
    let (head, body) = request.parts();
    let (first, rest) = body.split_at(body.len() / 2);
    let mut upload = HttpConnection::open(&front.address()).await.unwrap();
    upload.send(&[&head, first].concat()).await.unwrap();
    front
        .until("the connection is accepted", |status| {
            let http = |g: &holdfast_tests::rig::Generation| Some(g.connections?.http);
            status.serving().and_then(http) == Some(1)
        })
        .await;
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    upload.send(rest).await.unwrap();
    let answer = upload.receive().await.unwrap();
    assert_eq!((answer.code, answer.generation()), (200, generation(1)));
    assert_eq!(answer.text().matches("word").count(), 2000);
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn its_steps_are_told_in_order() {
    let front = Front::with(good).await;
    let takeover = front.takeover().await;
    takeover.assert_committed();
    let mut story = takeover.story();
    story.dedup();
    let always = ["requested", "started", "ready", "accepting", "switched", "committed"];
    assert_eq!(story[..always.len()], always);
    assert_eq!(story[story.len() - 2..], ["drained", "done"], "{story:?}");
    assert_eq!(takeover.successor(), generation(2));
    let status = front.status().await;
    let last = status.last_takeover.expect("one has ended");
    assert_eq!((last.outcome.as_str(), last.reason), ("committed", None));
    assert_eq!((last.incumbent, last.successor), (Some(generation(1)), Some(generation(2))));
    let p = last.phases;
    let phases = [p.ready_ms, p.accepting_ms, p.switched_ms, p.committed_ms, p.drained_ms];
    assert!(phases.iter().all(Option::is_some) && phases.is_sorted(), "{phases:?}");
}

#[tokio::test]
async fn the_writer_lease_moves_when_it_is_committed_and_never_has_two_holders() {
    let front = Front::with(|s| good(s).flag("--soak", "2s")).await;
    let lease =
        async || ask(&front.address(), Request::get("/")).await.unwrap().json()["lease"].clone();
    let first = eventually("the first generation holds it", async || lease().await.as_u64()).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let soaking = front.status().await;
    assert!(soaking.generation(generation(1)).is_some_and(|g| g.lease), "{soaking:?}");
    assert!(soaking.generation(generation(2)).is_some_and(|g| !g.lease), "{soaking:?}");
    takeover.until("committed").await;
    let after = front.status().await;
    assert!(after.serving().is_some_and(|g| g.lease), "{after:?}");
    assert_eq!(after.generations.iter().filter(|g| g.lease).count(), 1, "{after:?}");
    let second =
        eventually("the second generation holds it", async || lease().await.as_u64()).await;
    assert!(second > first, "epoch {second} is not after {first}");
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn requests_for_one_while_one_runs_become_a_single_further_one() {
    let gate = Gate::closed();
    let front =
        Front::with(|s| quick(s.worker(fixture(["first-good", &gate.word("ready-once")])))).await;
    let mut first = front.begin_takeover();
    first.until("started").await;
    let others: Vec<_> = (0..3).map(|_| front.begin_takeover()).collect();
    for _ in 0..5 {
        front.signal(Signal::SIGUSR1);
    }
    for mut other in others {
        other.until("requested").await;
        front.until("one is pending", |s| s.takeover.as_ref().is_some_and(|t| t.pending)).await;
        tokio::spawn(other.end());
    }
    gate.open();
    first.end().await.assert_committed();
    let settled = front
        .until("the further one has ended", |s| s.is_settled() && s.takeovers.committed == 2)
        .await;
    assert_eq!(settled.serving().map(|g| g.generation), Some(generation(3)));
}

#[tokio::test]
async fn a_waiting_takeover_is_not_replaced_by_one_with_another_program() {
    let gate = Gate::closed();
    let front = Front::with(good).await;
    let mut first = front.begin_takeover_to(&fixture([gate.word("ready-once")]));
    first.until("started").await;
    let mut second = front.begin_takeover_to(&fixture(["serve", "serve"]));
    front.until("one is pending", |s| s.takeover.as_ref().is_some_and(|t| t.pending)).await;
    second.until("requested").await;
    let third = front.takeover_to(&fixture(["exit:1"])).await;
    assert_eq!(third.code, 1);
    assert!(third.errors.contains("another takeover is waiting"), "{third:?}");
    gate.open();
    first.end().await.assert_committed();
    second.end().await.assert_committed();
    assert_eq!(front.serving().await.generation, generation(3));
}

#[tokio::test]
async fn a_third_generation_waits_for_the_drain_of_the_first() {
    let front = Front::with(good).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let mut first = front.begin_takeover();
    first.until("draining").await;
    let mut second = front.begin_takeover();
    let waiting = second.until("waiting").await;
    assert_eq!(waiting["for"], "g1", "{waiting}");
    // The drain timeout, and the grace of a worker that overruns it.
    assert!(waiting["within_ms"].as_u64().is_some_and(|ms| ms <= 35_000), "{waiting}");
    let status = front.status().await;
    assert_eq!(status.next_takeover.possible, "after");
    assert_eq!(status.next_takeover.generation, Some(generation(1)));
    assert!(status.next_takeover.within_ms.is_some_and(|ms| ms <= 35_000), "{status:?}");
    assert_eq!(status.admitted_or_draining(), 2);
    assert_eq!(status.generations.len(), 2, "a third was started: {status:?}");
    gate.open();
    held.receive().await.unwrap();
    first.end().await.assert_committed();
    let second = second.end().await;
    second.assert_committed();
    assert_eq!(second.successor(), generation(3));
    assert_eq!(front.status().await.next_takeover.possible, "now");
}

#[tokio::test]
async fn the_command_waits_for_the_drain_unless_told_otherwise() {
    let front = Front::with(good).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let unwatched = front.takeover_with(&["--no-wait"]).await;
    assert_eq!(unwatched.code, 0, "{unwatched:?}");
    front.until("the incumbent drains", |s| s.in_state(State::Draining).len() == 1).await;
    gate.open();
    assert_eq!(held.receive().await.unwrap().generation(), generation(1));
    front.until("the incumbent is gone", |s| s.is_settled()).await;
}

#[tokio::test]
async fn a_drain_tells_what_blocks_it() {
    let front = Front::with(good).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let mut takeover = front.begin_takeover();
    loop {
        let draining = takeover.until("draining").await;
        assert_eq!(draining["generation"], "g1", "{draining}");
        if draining["in_flight"] == 1 {
            assert_eq!(draining["connections"]["http"], 1, "{draining}");
            break;
        }
    }
    gate.open();
    held.receive().await.unwrap();
    let takeover = takeover.end().await;
    takeover.assert_committed();
    let drained = takeover.event("drained").expect("the drain has ended");
    assert_eq!(drained["finished"]["http"], 1, "{drained}");
}

#[tokio::test]
async fn its_other_names_do_the_same() {
    let front = Front::with(good).await;
    for (name, committed) in [("restart", 1), ("reload", 2)] {
        front.run(&[name]).await.assert_code(0);
        let status = front.until("it has ended", |s| s.is_settled()).await;
        assert_eq!(status.takeovers.committed, committed);
    }
}

#[tokio::test]
async fn a_connection_that_has_said_nothing_is_served_after_the_switch() {
    let front = Front::with(|s| s.worker(fixture(["serve"])).flag("--soak", "10m")).await;
    let mut silent = HttpConnection::open(&front.address()).await.unwrap();
    front
        .until("it is accepted", |s| {
            s.serving().and_then(|g| g.connections).is_some_and(|open| open.http == 1)
        })
        .await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let answer = silent.exchange(&Request::get("/")).await.unwrap();
    assert_eq!((answer.code, answer.generation()), (200, generation(1)));
}

#[tokio::test]
async fn a_worker_cannot_shrink_the_queue_of_waiting_connections() {
    // Far above the backlog of 1 that the fixture asks for, and above 128, the default of std.
    const WAITING: usize = 300;
    let front = Front::with(|s| s.worker(fixture(["shrink-backlog"]))).await;
    let worker = front.serving().await.worker().unwrap();
    worker.signal(Signal::SIGSTOP);
    eventually("the worker is stopped", async || worker.is_stopped().then_some(())).await;
    let Address::Tcp(address) = front.address() else { panic!("it listens on TCP") };
    // A full queue drops the handshake, and a second later it is tried again: the deadline is met only
    // by a queue that takes them all.
    let mut waiting = Vec::new();
    for number in 0..WAITING {
        let connected = tokio::net::TcpStream::connect(address);
        let connected = tokio::time::timeout(Duration::from_secs(20), connected).await;
        let connected = connected.unwrap_or_else(|_| panic!("only {number} fit in the queue"));
        waiting.push(connected.unwrap());
    }
    worker.signal(Signal::SIGCONT);
    soon("an answer", ask(&front.address(), Request::get("/"))).await.unwrap();
}
