//! Somebody dies: the program, or the worker that has it.

use holdfast_tests::rig::{Signal, eventually, faulty_worker};
use serde_json::{Value, json};

use super::scene::{Client, Scene};
use crate::{generation, quick};

/// What was said in a session, as its history has it.
async fn history(client: &mut Client) -> Vec<String> {
    let told = client.told("chat.history", json!({"sessionKey": "main"})).await;
    let text = |message: &Value| message["content"][0]["text"].as_str().unwrap().to_owned();
    told["messages"].as_array().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn a_program_that_is_killed_during_its_move_is_started_again_and_goes_on() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("a").await.unwrap(), "hello turn 1: a");
    let program = scene.program();
    // The second offer is that of the session.
    let takeover = scene.front.begin_takeover_to(&faulty_worker("target.offer-received=stop@2"));
    let successor = scene.front.stopped_at("target.offer-received").await;
    program.signal(Signal::SIGKILL);
    eventually("it is gone", async || program.is_gone().then_some(())).await;
    successor.go_on();
    assert_eq!(client.turn("b").await.unwrap(), "hello turn 2: b");
    takeover.end().await.assert_committed();
    let starts = scene.starts();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!(starts[1].contains("--resume"), "{starts:?}");
    assert_eq!(scene.scratch().len(), 2, "the first one's is gone");
}

#[tokio::test]
async fn how_a_program_ended_is_told_though_its_worker_did_not_start_it() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    client.turn("a").await.unwrap();
    scene.front.takeover().await.assert_committed();
    scene.front.until("one generation", |status| status.is_settled()).await;
    let failed = client.turn("crash and burn").await.unwrap_err();
    assert!(failed.contains("it exited with 3 before it had answered: and burn"), "{failed}");
    scene.swept().await;
    assert_eq!(client.turn("b").await.unwrap(), "hello turn 2: b");
}

#[tokio::test]
async fn a_turn_of_an_incumbent_that_is_killed_is_interrupted_and_what_it_said_is_kept() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("a").await.unwrap(), "hello turn 1: a");
    let program = scene.program();
    let run = client.ask("falter").await;
    assert_eq!(client.hears(&run, "delta").await["deltaText"], "Well, ");
    let incumbent = scene.front.serving().await.worker().unwrap();
    let mut takeover = scene.front.begin_takeover();
    takeover.until("draining").await;
    scene
        .front
        .until("the connection has moved", |status| {
            let open = status.generation(generation(2)).and_then(|g| g.connections);
            open.is_some_and(|open| open.websocket == 1)
        })
        .await;
    incumbent.signal(Signal::SIGKILL);
    let error = client.hears(&run, "error").await;
    assert_eq!(error["errorMessage"], "interrupted: the worker ended before the run did");
    eventually("the program is gone", async || program.is_gone().then_some(())).await;
    scene.swept().await;
    takeover.end().await;
    assert_eq!(history(&mut client).await, ["a", "hello turn 1: a", "falter", "Well, "]);
    assert_eq!(client.turn("b").await.unwrap(), "hello turn 2: b");
    assert!(scene.starts()[1].contains("--resume"), "{:?}", scene.starts());
}

#[tokio::test]
async fn a_worker_that_is_killed_alone_leaves_what_it_said_to_the_one_that_follows() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    let run = client.ask("falter").await;
    client.hears(&run, "delta").await;
    let program = scene.program();
    scene.front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
    scene
        .front
        .until("another serves", |status| {
            status.serving().is_some_and(|serving| serving.generation != generation(1))
        })
        .await;
    eventually("the program is gone", async || program.is_gone().then_some(())).await;
    scene.swept().await;
    let mut client = scene.client().await;
    assert_eq!(history(&mut client).await, ["falter", "Well, "]);
    let session = client.told("sessions.describe", json!({"key": "main"})).await;
    assert_eq!(session["session"]["status"], "failed", "{session}");
    // Nobody knows what the program called its first turn; the next one is told what was said.
    let answer = client.turn("b").await.unwrap();
    assert!(answer.contains("Well, ") && answer.ends_with('b'), "{answer}");
}

#[tokio::test]
async fn a_worker_that_has_taken_a_session_over_and_is_killed_leaves_neither_program_nor_directory()
{
    let scene = Scene::with(quick).await;
    let mut client = scene.client().await;
    client.turn("a").await.unwrap();
    scene.front.takeover().await.assert_committed();
    let program = scene.program();
    scene.front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
    eventually("the program is gone", async || program.is_gone().then_some(())).await;
    scene.swept().await;
    scene.front.until("another serves", |status| status.is_settled()).await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("b").await.unwrap(), "hello turn 2: b");
}
