//! Which sockets a front goes on with, when it is told of the same ones or of others.

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Setup, Signal, Traffic};

use crate::quick;

use super::generation;

#[tokio::test]
async fn sockets_of_every_kind_are_kept_and_their_files_owned_again() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("gateway.sock");
    let choose = |s: Setup| {
        quick(s)
            .listen("127.0.0.1:0")
            .listen(format!("unix:{}", file.display()))
            .listen("[::1]:0")
            .flag("--shards", "2")
    };
    let mut front = Front::with(choose).await;
    let before = front.status().await;
    front.kill().await;
    assert!(file.exists());
    front.start_again(choose).await;
    let after = front.status().await;
    assert_eq!(after.listeners, before.listeners, "the same ones in the same order");
    assert_eq!(after.recovered(), [generation(1)]);
    front.takeover().await.assert_committed();
    for address in front.addresses() {
        let answer = ask(address, Request::get("/healthz")).await.unwrap();
        assert_eq!(answer.generation(), generation(2), "{address}");
    }
    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
    assert!(!file.exists(), "whose file is it?");
}

#[tokio::test]
async fn an_address_that_is_new_is_opened_and_the_worker_replaced_for_it() {
    let mut front = Front::with(quick).await;
    let (kept, address) = (front.status().await.inodes(), front.address());
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    front.kill().await;
    let word = address.to_string();
    front.start_again(|s| quick(s).listen("127.0.0.1:0").listen(word)).await;
    let status = front
        .until("a worker has both", |s| {
            s.is_settled() && s.serving().is_some_and(|g| g.generation == generation(2))
        })
        .await;
    let [new, old] = &status.listeners[..] else { panic!("there are two: {status:?}") };
    assert_eq!((&old.address, vec![old.inode]), (&address.to_string(), kept));
    let answer = ask(&new.address.parse().unwrap(), Request::get("/healthz")).await.unwrap();
    assert_eq!(answer.generation(), generation(2));
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn an_address_that_is_wanted_no_more_is_let_go_of_once_the_worker_is_replaced() {
    let mut front = Front::with(|s| quick(s).listen("127.0.0.1:0").listen("127.0.0.1:0")).await;
    let [kept, dropped] = [front.addresses()[0].clone(), front.addresses()[1].clone()];
    front.kill().await;
    let word = kept.to_string();
    front.start_again(|s| quick(s).listen(word)).await;
    front
        .until("the worker is replaced", |s| {
            s.is_settled() && s.serving().is_some_and(|g| g.generation == generation(2))
        })
        .await;
    ask(&kept, Request::get("/healthz")).await.unwrap();
    assert!(ask(&dropped, Request::get("/healthz")).await.is_err());
    assert_eq!(front.log().lines_with("not listened on any more"), 1);
}
