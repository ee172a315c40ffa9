//! Many clients that begin a request and go no further, and everybody else.

use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::{Front, Traffic, eventually};
use tokio::task::JoinSet;

use crate::quick;

/// How many begin a head and do not end it.
const CROWD: usize = 5_000;
/// How many of them come at once.
const AT_ONCE: usize = 100;

#[tokio::test]
async fn five_thousand_half_heads_keep_nobody_from_being_served_or_from_taking_over() {
    let limits = handoff::limits::raise_descriptor_limit().expect("the limit can be raised");
    if limits.current < 2 * CROWD as u64 {
        return crate::skipped("too few descriptors may be open here");
    }
    let front = Front::with(|s| quick(s).flag("--drain-timeout", "20s")).await;
    let mut crowd = Vec::with_capacity(CROWD);
    while crowd.len() < CROWD {
        let mut coming = JoinSet::new();
        for _ in 0..AT_ONCE {
            let address = front.address();
            coming.spawn(async move {
                let mut connection = HttpConnection::open(&address).await?;
                connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: sui").await?;
                Ok::<_, holdfast_tests::rig::http::Failure>(connection)
            });
        }
        while let Some(came) = coming.join_next().await {
            crowd.push(came.expect("it does not panic").expect("it is accepted"));
        }
    }
    let traffic = Traffic::of_every_kind(&front);
    traffic.flows(5).await;
    front.takeover().await.assert_committed();
    traffic.flows(5).await;
    traffic.stop().await.assert_no_failures();
    let health = ask(&front.address(), Request::get("/healthz")).await.expect("it serves");
    assert_eq!(health.code, 200);
    drop(crowd);
    let worker = front.serving().await.worker().expect("it serves");
    eventually("nothing of them is left", async || {
        (worker.descriptors().len() < 200).then_some(())
    })
    .await;
}
