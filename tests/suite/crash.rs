//! Workers that die by `kill -9`, in every part of their lives.

use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::{Front, Gate, Signal, State, Traffic, eventually};

use crate::{fixture, generation, good, held_request, quick};

#[tokio::test]
async fn connections_in_the_queue_survive_the_death_of_the_only_worker() {
    let front = Front::with(good).await;
    let worker = front.serving().await.worker().unwrap();
    worker.signal(Signal::SIGSTOP);
    eventually("the worker is stopped", async || worker.is_stopped().then_some(())).await;
    let mut queued = Vec::new();
    for _ in 0..50 {
        let mut connection = HttpConnection::open(&front.address()).await.unwrap();
        connection.send(&Request::get("/").parts().0).await.unwrap();
        queued.push(connection);
    }
    worker.signal(Signal::SIGKILL);
    for mut connection in queued {
        assert_eq!(connection.receive().await.unwrap().generation(), generation(2));
    }
    let status = front.status().await;
    assert_eq!(status.crashes, 1);
    assert!(status.failure().contains("SIGKILL"), "{status:?}");
    assert!(worker.is_gone() && !worker.is_zombie(), "it was not reaped");
}

#[tokio::test]
async fn the_death_of_the_only_worker_costs_what_it_had_in_hand_and_refuses_nobody() {
    let front = Front::with(quick).await;
    let traffic = Traffic::to(&front).with_new();
    traffic.flows(5).await;
    front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
    front
        .until("the next one serves", |s| {
            s.serving().is_some_and(|g| g.generation == generation(2))
        })
        .await;
    traffic.flows(5).await;
    traffic.stop().await.assert_cut_at_most(1);
}

#[tokio::test]
async fn a_worker_that_aborts_or_exits_by_itself_is_replaced() {
    let front = Front::with(good).await;
    for (path, next) in [("/abort", 2), ("/exit?0", 3)] {
        let mut connection = HttpConnection::open(&front.address()).await.unwrap();
        // Whether it is still answered is the worker's own affair.
        let _ = connection.exchange(&Request::get(path)).await;
        front
            .until("the next one serves", |s| {
                s.serving().is_some_and(|g| g.generation == generation(next))
            })
            .await;
    }
    assert_eq!(front.status().await.crashes, 2);
}

#[tokio::test]
async fn a_successor_killed_while_it_starts_leaves_the_incumbent_serving() {
    let gate = Gate::closed();
    successor_killed_in(&gate, "ready-once", State::Starting).await;
}

#[tokio::test]
async fn a_successor_killed_while_it_is_admitted_leaves_the_incumbent_serving() {
    let gate = Gate::closed();
    successor_killed_in(&gate, "accept-once", State::Admitting).await;
}

async fn successor_killed_in(gate: &Gate, word: &str, state: State) {
    let front = Front::with(good).await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(2).await;
    let takeover = front.begin_takeover_to(&fixture([gate.word(word)]));
    let successor = front
        .status_with("the successor is in that state", |status| {
            let successor = status.generation(generation(2))?;
            (successor.state == state).then(|| successor.worker())?
        })
        .await;
    successor.signal(Signal::SIGKILL);
    let takeover = takeover.end().await;
    takeover.assert_rolled_back();
    assert!(takeover.reason().contains("SIGKILL"), "{takeover:?}");
    assert_eq!(front.serving().await.generation, generation(1));
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn a_successor_killed_in_the_soak_gives_way_to_the_incumbent() {
    let front = Front::with(|s| s.worker(fixture(["serve"])).flag("--soak", "20s")).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let soaking = front.status().await;
    soaking.generation(generation(2)).unwrap().worker().unwrap().signal(Signal::SIGKILL);
    takeover.end().await.assert_rolled_back();
    let answer = ask(&front.address(), Request::get("/")).await.unwrap();
    assert_eq!(answer.generation(), generation(1));
}

#[tokio::test]
async fn a_drained_incumbent_that_is_killed_does_not_undo_the_takeover() {
    let front = Front::with(good).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let incumbent = front.serving().await.worker().unwrap();
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    incumbent.signal(Signal::SIGKILL);
    assert!(held.receive().await.is_err(), "who is dead has answered");
    let takeover = takeover.end().await;
    assert_eq!(takeover.events.last().unwrap()["outcome"], "committed", "{takeover:?}");
    let settled = front.until("only the successor is left", |s| s.is_settled()).await;
    assert_eq!(settled.serving().map(|g| g.generation), Some(generation(2)));
    assert_eq!(settled.crashes, 0, "a draining generation does not crash: {settled:?}");
}

#[tokio::test]
async fn a_successor_takes_over_from_an_incumbent_killed_while_it_starts() {
    let gate = Gate::closed();
    incumbent_killed_in(&gate, "ready-once", State::Starting).await;
}

#[tokio::test]
async fn a_successor_takes_over_from_an_incumbent_killed_while_it_is_admitted() {
    let gate = Gate::closed();
    incumbent_killed_in(&gate, "accept-once", State::Admitting).await;
}

async fn incumbent_killed_in(gate: &Gate, word: &str, state: State) {
    let front = Front::with(good).await;
    let incumbent = front.serving().await.worker().expect("who serves has a process");
    let takeover = front.begin_takeover_to(&fixture([gate.word(word)]));
    front
        .until("the successor is in that state", |status| {
            status.generation(generation(2)).is_some_and(|g| g.state == state)
        })
        .await;
    incumbent.signal(Signal::SIGKILL);
    eventually("the incumbent is reaped", async || {
        (!incumbent.is_zombie() && incumbent.is_gone()).then_some(())
    })
    .await;
    let mut queued = HttpConnection::open(&front.address()).await.expect("the port is open");
    queued.send(&Request::get("/").parts().0).await.expect("it is open");
    gate.open();
    assert_eq!(queued.receive().await.expect("it is answered").generation(), generation(2));
    let takeover = takeover.end().await;
    takeover.assert_committed();
    let settled = front.until("it serves alone", |s| s.is_settled()).await;
    assert!(settled.serving().is_some_and(|g| g.lease), "{settled:?}");
}

#[tokio::test]
async fn a_takeover_is_committed_at_once_when_its_incumbent_dies_in_the_soak() {
    let front = Front::with(|s| s.worker(fixture(["serve"])).flag("--soak", "10m")).await;
    let incumbent = front.serving().await.worker().unwrap();
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    incumbent.signal(Signal::SIGKILL);
    takeover.until("committed").await;
    takeover.end().await;
    assert_eq!(front.serving().await.generation, generation(2));
}

#[tokio::test]
async fn a_first_worker_that_is_bad_does_not_stop_the_front() {
    let front = Front::with(|s| quick(s.worker(fixture(["exit:3"]))).not_serving()).await;
    let mut queued = HttpConnection::open(&front.address()).await.expect("the port is open");
    queued.send(&Request::get("/").parts().0).await.unwrap();
    let status = front.until("the next start waits", |s| s.respawn.is_some()).await;
    assert!(status.failure().contains("exited with code 3"), "{status:?}");
    front.run(&["healthcheck"]).await.assert_code(1);
    front.takeover_to(&fixture(["serve"])).await.assert_committed();
    assert_eq!(queued.receive().await.unwrap().code, 200);
    front.run(&["healthcheck"]).await.assert_code(0);
}

#[tokio::test]
async fn a_program_that_heals_is_started_again_without_being_asked() {
    let gate = Gate::closed();
    let front =
        Front::with(|s| s.worker(fixture([gate.word("until"), "exit:3".into()])).not_serving())
            .await;
    let status = front.until("the next start waits", |s| s.respawn.is_some()).await;
    assert!(status.respawn.is_some_and(|respawn| respawn.in_ms <= 60_000));
    let mut queued = HttpConnection::open(&front.address()).await.unwrap();
    queued.send(&Request::get("/").parts().0).await.unwrap();
    gate.open();
    assert_eq!(queued.receive().await.unwrap().code, 200);
    front.until("nothing waits", |s| s.respawn.is_none()).await;
}

#[tokio::test]
async fn a_program_that_was_deleted_is_named_and_tried_again() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("worker");
    let link = || std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fixture-worker"), &path).unwrap();
    link();
    let program = holdfast_tests::rig::Program::new(&path).arg("serve");
    let front = Front::with(|s| quick(s.worker(program))).await;
    std::fs::remove_file(&path).unwrap();
    front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
    let status = front.until("the next start waits", |s| s.respawn.is_some()).await;
    assert!(status.failure().contains(path.to_str().unwrap()), "{status:?}");
    link();
    assert_eq!(ask(&front.address(), Request::get("/")).await.unwrap().code, 200);
}

#[tokio::test]
async fn a_takeover_is_committed_when_its_incumbent_dies_before_it_has_stopped() {
    let front = Front::with(|s| quick(s.worker(fixture(["never-stops"])))).await;
    let incumbent = front.serving().await.worker().unwrap();
    let mut takeover = front.begin_takeover_to(&fixture(["serve"]));
    takeover.until("accepting").await;
    incumbent.signal(Signal::SIGKILL);
    takeover.until("committed").await;
    takeover.end().await;
    assert_eq!(front.serving().await.generation, generation(2));
    ask(&front.address(), Request::get("/")).await.unwrap();
}

#[tokio::test]
async fn both_generations_killed_at_once_are_replaced_by_a_third() {
    let front = Front::with(|s| s.worker(fixture(["serve"])).flag("--soak", "10m")).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let both = front.workers().await;
    assert_eq!(both.len(), 2);
    both.iter().for_each(|worker| worker.signal(Signal::SIGSTOP));
    let mut queued = HttpConnection::open(&front.address()).await.unwrap();
    queued.send(&Request::get("/").parts().0).await.unwrap();
    both.iter().for_each(|worker| worker.signal(Signal::SIGKILL));
    assert_eq!(queued.receive().await.unwrap().generation(), generation(3));
    takeover.end().await;
    front.until("the third serves alone", |s| s.is_settled()).await;
}

#[tokio::test]
async fn a_frozen_incumbent_is_replaced_and_ended() {
    let front = Front::with(|s| good(s).flag("--drain-timeout", "100ms")).await;
    let incumbent = front.serving().await.worker().unwrap();
    incumbent.signal(Signal::SIGSTOP);
    eventually("it is frozen", async || incumbent.is_stopped().then_some(())).await;
    let status = front.status().await;
    let frozen = status.serving().expect("it is still listed");
    assert!(frozen.connections.is_none(), "a frozen worker has answered: {status:?}");
    let mut takeover = front.begin_takeover();
    takeover.until("accepting").await;
    let traffic = Traffic::to(&front).with_new();
    traffic.flows(3).await;
    takeover.until("committed").await;
    takeover.end().await;
    traffic.stop().await.assert_no_failures();
    front.until("the successor serves alone", |s| s.is_settled()).await;
    assert!(incumbent.is_gone());
}
