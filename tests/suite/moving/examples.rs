//! The servers of `shared/examples` whose connections move, run as somebody would who has just copied them.

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{Front, Program, binaries};

use super::{drained, http};
use crate::{fixture, quick};

/// A front whose worker is this example.
async fn front_of(example: &str) -> Front {
    Front::with(|s| quick(s.worker(Program::new(binaries::example(example))))).await
}

/// Asserts that this answer is the present worker's.
async fn assert_served(front: &Front, connection: &mut HttpConnection, path: &str) {
    let pid = front.serving().await.worker().expect("it has a process").pid();
    let answer = connection.exchange(&Request::get(path)).await.unwrap();
    assert_eq!((answer.code, answer.text()), (200, format!("{path} by pid {pid}\n")));
    assert!(!answer.closes(), "{:?}", answer.headers);
}

async fn lives_through_two_takeovers(example: &str) {
    let front = front_of(example).await;
    let mut kept = HttpConnection::open(&front.address()).await.unwrap();
    assert_served(&front, &mut kept, "/first").await;
    let mut begun = HttpConnection::open(&front.address()).await.unwrap();
    assert_served(&front, &mut begun, "/first").await;
    let (head, _) = Request::get("/begun").parts();
    let (half, rest) = head.split_at(10);
    begun.send(half).await.unwrap();
    for path in ["/second", "/third"] {
        let takeover = front.takeover().await;
        takeover.assert_committed();
        assert_eq!(drained(&takeover, "moved"), http(2), "{takeover:?}");
        assert_served(&front, &mut kept, path).await;
    }
    begun.send(rest).await.unwrap();
    let answer = begun.receive().await.unwrap();
    assert!(answer.text().starts_with("/begun by pid"), "{}", answer.text());
    assert_served(&front, &mut begun, "/fourth").await;
}

#[tokio::test]
async fn connections_of_the_hyper_example_live_through_two_takeovers() {
    lives_through_two_takeovers("movable_hyper").await;
}

#[tokio::test]
async fn connections_of_the_axum_example_live_through_two_takeovers() {
    lives_through_two_takeovers("movable_axum").await;
}

#[tokio::test]
async fn an_example_ends_its_connections_when_nobody_takes_them() {
    let front = front_of("movable_hyper").await;
    let mut kept = HttpConnection::open(&front.address()).await.unwrap();
    assert_served(&front, &mut kept, "/first").await;
    let takeover = front.takeover_to(&fixture(["serve"])).await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), http(0), "{takeover:?}");
    assert_eq!(kept.closed().await, Ok(Vec::new()));
}
