//! Sessions that go on in the successor.

use std::time::Duration;

use holdfast_tests::rig::eventually;

use super::scene::{Client, Scene, sessions};
use crate::{generation, quick};

/// The issue's numbers.
const TAKEOVERS: usize = 20;
const TURNS: usize = 50;

#[tokio::test]
async fn fifty_turns_across_twenty_takeovers_are_answered_by_one_process() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("first").await.unwrap(), "hello turn 1: first");
    let (program, scratch) = (scene.program(), scene.scratch());
    assert_eq!(scratch.len(), 2, "a directory and what says whose it is: {scratch:?}");
    let turns = async {
        for turn in 2..=TURNS {
            let answer = client.turn("next").await.unwrap();
            assert_eq!(answer, format!("hello turn {turn}: next"));
            assert_eq!(scene.scratch(), scratch, "it is there while the program lives");
        }
        // It is still there for whoever takes over last.
        client
    };
    let takeovers = async {
        let mut moved = 0;
        for _ in 0..TAKEOVERS {
            let takeover = scene.front.takeover().await;
            takeover.assert_committed();
            moved += sessions(&takeover);
        }
        moved
    };
    let (mut client, moved) = tokio::join!(turns, takeovers);
    assert!(moved > 0, "it has moved with none of the takeovers");
    let answer = client.turn("last").await.unwrap();
    assert_eq!(answer, format!("hello turn {}: last", TURNS + 1));
    assert_eq!((scene.program(), scene.starts().len()), (program, 1), "{:?}", scene.starts());
    let tools = client.turn("tools").await.unwrap();
    assert!(tools.contains(r#""tools":[]"#), "its tools answer where it is now: {tools}");
    program.signal(holdfast_tests::rig::Signal::SIGKILL);
    let swept = tokio::time::timeout(Duration::from_secs(1), scene.swept()).await;
    assert!(swept.is_ok(), "its directory is there a second after its end");
}

#[tokio::test]
async fn a_session_at_rest_moves_and_its_next_turn_finds_it_each_time() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("a").await.unwrap(), "hello turn 1: a");
    let program = scene.program();
    for turn in 2..=6 {
        let takeover = scene.front.takeover().await;
        takeover.assert_committed();
        assert_eq!(sessions(&takeover), 1, "{takeover:?}");
        assert_eq!(client.turn("b").await.unwrap(), format!("hello turn {turn}: b"));
        assert_eq!(scene.program(), program);
    }
    let status = scene.front.run(&["status"]).await;
    assert!(status.output.contains("sessions 1"), "{}", status.output);
}

#[tokio::test]
async fn a_turn_that_straddles_a_takeover_is_heard_by_its_connection_where_it_is_and_then_moves() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("a").await.unwrap(), "hello turn 1: a");
    let program = scene.program();
    let run = client.ask("slow 1500").await;
    let mut takeover = scene.front.begin_takeover();
    takeover.until("draining").await;
    let served_by = |status: &holdfast_tests::rig::Status| {
        let open = status.generation(generation(2)).and_then(|g| g.connections);
        open.is_some_and(|open| open.websocket == 1)
    };
    scene.front.until("the connection has moved", served_by).await;
    assert_eq!(
        client.hears(&run, "final").await["message"]["content"][0]["text"],
        "hello turn 2: slow 1500"
    );
    assert_eq!(client.answer(&run).await.unwrap(), "hello turn 2: slow 1500");
    let next = client.turn("c").await.unwrap();
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!((next.as_str(), sessions(&takeover)), ("hello turn 3: c", 1), "{takeover:?}");
    assert_eq!(scene.program(), program);
}

#[tokio::test]
async fn a_turn_that_the_successor_is_asked_for_before_the_takeover_is_committed_finds_the_session()
{
    let scene = Scene::with(|setup| quick(setup).flag("--soak", "1500ms")).await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("a").await.unwrap(), "hello turn 1: a");
    let program = scene.program();
    let mut takeover = scene.front.begin_takeover();
    takeover.until("switched").await;
    let mut newcomer = scene.client().await;
    assert_eq!(newcomer.turn("b").await.unwrap(), "hello turn 2: b");
    assert_eq!(scene.program(), program);
    takeover.end().await.assert_committed();
    assert_eq!(client.turn("c").await.unwrap(), "hello turn 3: c");
    assert_eq!(scene.starts().len(), 1);
}

#[tokio::test]
async fn sessions_of_several_agents_move_at_once_while_others_are_at_work() {
    let scene = Scene::start().await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..3 {
        clients.push(scene.client().await);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        for session in 0..4 {
            client.turn_in(&format!("s{number}-{session}"), "a").await.unwrap();
        }
    }
    let mut programs = scene.programs();
    assert_eq!(programs.len(), 12);
    let run = clients[0].ask_in("s0-0", "slow 700").await;
    scene.front.takeover().await.assert_committed();
    clients[0].answer(&run).await.unwrap();
    for (number, client) in clients.iter_mut().enumerate() {
        for session in 0..4 {
            let answer = client.turn_in(&format!("s{number}-{session}"), "b").await.unwrap();
            assert!(answer.ends_with(": b"), "{answer}");
        }
    }
    let mut now = scene.programs();
    programs.sort();
    now.sort();
    assert_eq!(now, programs);
    assert_eq!(scene.starts().len(), 12);
}

#[tokio::test]
async fn a_front_that_ends_leaves_neither_program_nor_directory() {
    let mut scene = Scene::start().await;
    let mut client = scene.client().await;
    client.turn("a").await.unwrap();
    scene.front.takeover().await.assert_committed();
    let program = scene.program();
    scene.front.signal(holdfast_tests::rig::Signal::SIGTERM);
    assert_eq!(scene.front.exit_code().await, 0);
    eventually("the program is gone", async || program.is_gone().then_some(())).await;
    scene.swept().await;
}
