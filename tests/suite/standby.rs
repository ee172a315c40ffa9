//! `--standby`: a ready successor waits for the death of the one that serves.

use std::time::Duration;

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Gate, Program, Setup, Signal, State, Traffic, eventually};

use crate::{called, fixture, generation, good, held_request, quick};

fn with_standby(setup: Setup) -> Setup {
    good(setup).switch("--standby")
}

/// A front whose first generation does everything right, and every later one what these words say.
async fn standing_by_badly(words: &[&str]) -> Front {
    let words = ["first-good"].iter().chain(words);
    Front::with(|s| {
        quick(s.worker(fixture(words))).switch("--standby").flag("--ready-timeout", "300ms")
    })
    .await
}

#[tokio::test]
async fn the_standby_serves_when_the_worker_is_killed_and_refuses_nobody() {
    let front = Front::with(with_standby).await;
    front.until("g2 stands by", |s| s.standby().is_some()).await;
    let traffic = Traffic::to(&front).with_new();
    traffic.flows(3).await;
    front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
    let serves = front
        .until("the standby serves", |s| s.serving().is_some_and(|g| g.generation == generation(2)))
        .await;
    assert!(serves.serving().unwrap().lease && serves.crashes == 1, "{serves:?}");
    traffic.flows(3).await;
    traffic.stop().await.assert_cut_at_most(1);
    let next = front.until("the next one stands by", |s| s.standby().is_some()).await;
    assert_eq!(next.standby().map(|g| g.generation), Some(generation(3)));
}

#[tokio::test]
async fn the_bundled_worker_stands_by_too_and_its_memory_is_shown() {
    let front = Front::with(|s| quick(s).switch("--standby")).await;
    let status = front.until("g2 stands by", |s| s.standby().is_some()).await;
    let standby = status.standby().unwrap();
    assert!(!standby.lease && standby.resident_bytes > Some(100_000), "{standby:?}");
    assert_eq!(status.admitted_or_draining(), 1, "a standby is neither");
    let shown = front.run(&["status"]).await.output;
    assert!(shown.contains("standby") && shown.contains("memory"), "{shown}");
    front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
    let answered = async || ask(&front.address(), Request::get("/healthz")).await.ok();
    assert_eq!(eventually("it is answered", answered).await.code, 200);
    assert_eq!(front.serving().await.generation, generation(2));
}

#[tokio::test]
async fn a_standby_that_serves_knows_what_has_come_while_it_waited() {
    let front = Front::with(|s| quick(s).switch("--standby")).await;
    front.until("g2 stands by", |s| s.standby().is_some()).await;
    let create = ["sessions.create", "--params", r#"{"key":"agent:main:since"}"#];
    called(&front, &create).await.assert_code(0);
    front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
    front
        .until("the standby serves", |s| s.serving().is_some_and(|g| g.generation == generation(2)))
        .await;
    eventually("the session is counted", async || {
        let health = called(&front, &["health"]).await.output;
        health.contains("agent:main:since").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_standby_that_is_never_ready_leaves_the_serving_one_alone_and_is_tried_less_and_less_often()
 {
    let front = standing_by_badly(&["hang"]).await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    let status = front.until("the next standby's start waits", |s| s.next_standby.is_some()).await;
    assert!(status.failure().contains("was not ready within"), "{status:?}");
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(1)));
    assert_eq!(status.crashes, 0, "{status:?}");
    traffic.flows(3).await;
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn a_standby_that_dies_leaves_the_serving_one_alone() {
    for word in ["die-when-ready", "exit:3", "close-link", "garbage"] {
        let front = standing_by_badly(&[word]).await;
        let status = front.until("its failure is told", |s| s.next_standby.is_some()).await;
        assert_eq!(status.serving().map(|g| g.generation), Some(generation(1)), "{word}");
        assert_eq!(status.crashes, 0, "{word}: {status:?}");
        let answer = ask(&front.address(), Request::get("/")).await.unwrap();
        assert_eq!(answer.generation(), generation(1));
    }
}

#[tokio::test]
async fn a_crash_while_the_standby_is_still_starting_waits_for_that_one() {
    let gate = Gate::closed();
    let front = Front::with(|s| {
        quick(s.worker(fixture(["first-good".to_owned(), gate.word("ready-once")])))
            .switch("--standby")
    })
    .await;
    front.until("the standby starts", |s| s.generation(generation(2)).is_some()).await;
    front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
    front.until("the worker is gone", |s| s.crashes == 1).await;
    gate.open();
    assert_eq!(front.serving().await.generation, generation(2));
}

#[tokio::test]
async fn a_takeover_ends_the_standby_and_starts_a_fresh_successor() {
    let front = Front::with(with_standby).await;
    let status = front.until("g2 stands by", |s| s.standby().is_some()).await;
    let stale = status.standby().unwrap().worker().unwrap();
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(2).await;
    front.takeover().await.assert_committed();
    eventually("the stale standby is gone", async || stale.is_gone().then_some(())).await;
    let status = front.until("a fresh one stands by", |s| s.standby().is_some()).await;
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(3)), "{status:?}");
    assert_eq!(status.standby().map(|g| g.generation), Some(generation(4)), "{status:?}");
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn a_takeover_that_rolls_back_has_a_standby_again() {
    let front = Front::with(with_standby).await;
    front.until("g2 stands by", |s| s.standby().is_some()).await;
    front.takeover_to(&fixture(["exit:3"])).await.assert_rolled_back();
    let status = front.until("the next one stands by", |s| s.standby().is_some()).await;
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(1)), "{status:?}");
}

#[tokio::test]
async fn nobody_stands_by_while_a_generation_drains() {
    let front = Front::with(with_standby).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let mut takeover = front.begin_takeover();
    takeover.until("committed").await;
    let status = front.status().await;
    let states: Vec<_> = status.generations.iter().map(|g| g.state).collect();
    assert_eq!(states, [State::Draining, State::Serving], "{status:?}");
    gate.open();
    held.receive().await.unwrap();
    takeover.end().await.assert_committed();
    front.until("somebody stands by", |s| s.standby().is_some()).await;
}

#[tokio::test]
async fn a_stopping_front_ends_its_standby_at_once() {
    let mut front = Front::with(with_standby).await;
    let status = front.until("g2 stands by", |s| s.standby().is_some()).await;
    let standby = status.standby().unwrap().worker().unwrap();
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    front.signal(Signal::SIGTERM);
    // What is open is still being finished.
    eventually("the standby is gone", async || standby.is_gone().then_some(())).await;
    gate.open();
    assert_eq!(held.receive().await.unwrap().generation(), generation(1));
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn a_front_with_a_standby_rests() {
    let front = Front::with(with_standby).await;
    front.until("g2 stands by", |s| s.standby().is_some()).await;
    front.until("both have proved themselves", |s| s.proven_program.is_some()).await;
    // Whatever ticks shows within this time; nobody asks the front anything meanwhile.
    eventually("the front does nothing for a while", async || {
        let before = front.process().switches();
        tokio::time::sleep(Duration::from_secs(2)).await;
        (front.process().switches() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_instance_of_a_program_has_no_standby() {
    for flag in ["--exclusive", "--takeover-order=stop-first"] {
        let refused = Front::refused(|s| good(s).switch("--standby").switch(flag)).await;
        assert_eq!(refused.code, 64, "{refused:?}");
        assert!(refused.errors.contains("one instance"), "{refused:?}");
    }
}

#[tokio::test]
async fn workers_that_die_in_turns_are_replaced_by_standbys_that_are_started_less_and_less_often() {
    let front = Front::with(with_standby).await;
    for number in 1..=2 {
        front
            .until("one serves, and another one stands by", |s| {
                s.serving().is_some_and(|g| g.generation == generation(number))
                    && s.standby().is_some()
            })
            .await
            .serving()
            .and_then(|g| g.worker())
            .unwrap()
            .signal(Signal::SIGKILL);
    }
    let status = front
        .until("the third serves", |s| s.serving().is_some_and(|g| g.generation == generation(3)))
        .await;
    assert!(status.respawn.is_none(), "{status:?}");
    front.until("the next standby's start has waited", |s| s.standby().is_some()).await;
    let text = front.log().text();
    assert!(text.contains("the next standby's start waits"), "{text}");
}

#[tokio::test]
async fn programs_that_an_adapter_runs_stand_by_and_show_their_memory() {
    let program = Program::new("/bin/sh").arg("-c").arg("echo READY=1 >/dev/null; sleep 600");
    let front = Front::with(|s| {
        s.worker(program)
            .switch("--standby")
            .flag("--adapter", "activate")
            .flag("--ready-after", "10ms")
    })
    .await;
    let status = front.until("g2 stands by", |s| s.standby().is_some()).await;
    let standby = status.standby().unwrap();
    let (family, adapter) =
        (standby.resident_bytes.unwrap(), standby.worker().unwrap().resident_bytes());
    assert!(family > adapter, "the program is not counted: {family} and {adapter}");
}
