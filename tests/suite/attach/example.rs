//! `shared/examples/attached_hyper.rs`, run as somebody would who has just copied it.

use handoff::attach::TURNED_AWAY;
use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{Attached, Front, Status, Traffic, binaries};

use super::{attachable, until_serves};

fn attach(front: &Front) -> Attached {
    let program = binaries::example("attached_hyper");
    front.attach_by(&[], &program, &["--attach", "attach.sock"])
}

/// Asserts that this one answers.
async fn assert_served(connection: &mut HttpConnection, by: &Attached, path: &str) {
    let pid = by.process().await.pid();
    let answer = connection.exchange(&Request::get(path)).await.expect("it is answered");
    assert_eq!((answer.code, answer.text()), (200, format!("{path} by pid {pid}\n")));
    assert!(!answer.closes(), "{:?}", answer.headers);
}

#[tokio::test]
async fn three_of_it_succeed_each_other_and_their_connections_move() {
    let front = Front::with(attachable).await;
    let mut serving = attach(&front);
    until_serves(&front, 1).await;
    let traffic = Traffic::to(&front).with_new();
    let mut kept = HttpConnection::open(&front.address()).await.expect("it is accepted");
    assert_served(&mut kept, &serving, "/first").await;
    for (number, path) in [(2, "/second"), (3, "/third")] {
        traffic.flows(5).await;
        let next = attach(&front);
        until_serves(&front, number).await;
        assert_eq!(serving.exit_code().await, 0);
        assert_served(&mut kept, &next, path).await;
        serving = next;
    }
    traffic.flows(5).await;
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn one_whose_front_is_gone_before_its_turn_says_that_it_may_come_again() {
    let mut front = Front::with(|s| attachable(s).flag("--soak", "30s")).await;
    let serving = attach(&front);
    front.until("it serves", |status| status.serving().is_some()).await;
    let _successor = attach(&front);
    front.until("a takeover runs", |status| status.takeover.is_some()).await;
    let mut third = attach(&front);
    let waits = |status: &Status| status.attach.as_ref().is_some_and(|a| a.waiting.len() == 1);
    front.until("the third waits", waits).await;
    front.kill().await;
    assert_eq!(third.exit_code().await, i32::from(TURNED_AWAY));
    assert!(!serving.process().await.is_gone(), "who serves does so without a front as well");
}

#[tokio::test]
async fn a_command_line_that_it_does_not_understand_is_a_mistake_of_usage() {
    let front = Front::with(attachable).await;
    let program = binaries::example("attached_hyper");
    assert_eq!(front.attach_by(&[], &program, &["--attach"]).exit_code().await, 64);
}
