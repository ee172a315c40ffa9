//! Programs that die young again and again after their takeover was committed.

use holdfast_tests::rig::{Front, Program, Signal, Status};

use crate::{fixture, generation, good};

/// Kills whoever serves, and waits for the next one.
async fn kill_who_serves(front: &Front) -> Status {
    let victim = front.serving().await;
    victim.worker().expect("who serves is there").signal(Signal::SIGKILL);
    let next = victim.generation.next();
    front.until("the next one serves", |s| s.serving().is_some_and(|g| g.generation == next)).await
}

/// A front whose first program has served well.
async fn proven(program: &Program) -> Front {
    let front = Front::with(|s| good(s).worker(program.clone())).await;
    front.until("it has served well", |s| s.proven_program.is_some()).await;
    front
}

#[tokio::test]
async fn a_program_that_crashes_again_and_again_gives_way_to_the_previous_one_until_the_next_takeover()
 {
    let front = proven(&fixture(["serve"])).await;
    front.takeover_to(&fixture(["serve", "serve"])).await.assert_committed();
    assert!(kill_who_serves(&front).await.left_program.is_none());
    assert!(kill_who_serves(&front).await.left_program.is_none());
    let status = kill_who_serves(&front).await;
    let left = status.left_program.as_ref().expect("it has gone back");
    assert!(
        left.program.contains("other arguments") && left.reason.contains("SIGKILL"),
        "{left:?}"
    );
    let serving = status.serving().unwrap().worker().unwrap();
    assert_eq!(serving.arguments()[1..], ["serve"], "with the arguments of the previous one");
    let shown = front.run(&["status"]).await.output;
    assert!(shown.contains("went back to") && shown.contains("SIGKILL"), "{shown}");
    assert!(front.log().text().contains("a crash loop"), "the log does not say so");
    // The operator has another one.
    front.takeover_to(&fixture(["serve", "serve", "serve"])).await.assert_committed();
    assert!(front.status().await.left_program.is_none());
}

#[tokio::test]
async fn without_a_previous_program_a_crash_loop_is_waited_out_as_ever() {
    let front = Front::with(good).await;
    for number in 2..=4 {
        let status = kill_who_serves(&front).await;
        assert_eq!(status.serving().map(|g| g.generation), Some(generation(number)));
        assert!(status.left_program.is_none(), "{status:?}");
    }
    assert!(front.log().text().contains("the next start waits"));
}
