//! Each step of a session's move, and what fails at it: its next turn is answered, by one program.

use holdfast_tests::rig::{eventually, faulty_worker, sound_worker};

use super::scene::Scene;
use crate::quick;

/// The worker that reaches the point for the second time, which is with the session's offer, fails there.
async fn fails(point: &str, act: &str) {
    let faulty = faulty_worker(&format!("{point}={act}@2"));
    let (incumbent, successor) = match point.starts_with("source.") {
        true => (faulty, sound_worker()),
        false => (sound_worker(), faulty),
    };
    let scene = Scene::with(|setup| quick(setup.worker(incumbent))).await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("a").await.unwrap(), "hello turn 1: a");
    let takeover = scene.front.begin_takeover_to(&successor);
    scene.front.met(point).await;
    takeover.end().await;
    scene.front.until("one generation serves", |status| status.is_settled()).await;
    let mut client = scene.client().await;
    assert_eq!(client.turn("b").await.unwrap(), "hello turn 2: b", "{point} {act}");
    eventually("there is one program, and one directory", async || {
        (scene.programs().len() == 1 && scene.scratch().len() == 2).then_some(())
    })
    .await;
    assert_eq!(client.turn("c").await.unwrap(), "hello turn 3: c", "{point} {act}");
}

/// The rows of the test: each point of a move.
macro_rules! at_each {
    ($($row:ident: $point:literal;)+) => {
        $(mod $row {
            use super::fails;

            #[tokio::test]
            async fn a_worker_that_dies_leaves_one_program_that_answers() {
                fails($point, "kill").await;
            }

            #[tokio::test]
            async fn a_link_that_breaks_leaves_one_program_that_answers() {
                fails($point, "drop-link").await;
            }
        })+
    };
}

at_each! {
    frozen: "source.frozen";
    offer_sent: "source.offer-sent";
    prepared_received: "source.prepared-received";
    commit_sent: "source.commit-sent";
    started_received: "source.started-received";
    offer_received: "target.offer-received";
    prepared_sent: "target.prepared-sent";
    commit_received: "target.commit-received";
    resumed: "target.resumed";
    started_sent: "target.started-sent";
}
