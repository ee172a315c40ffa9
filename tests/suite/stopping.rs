//! How a front ends.

use handoff::Address;
use holdfast_tests::rig::http::{Failure, HttpConnection, Request, ask};
use holdfast_tests::rig::{Front, Gate, Signal, WebSocket, eventually};

use crate::{fixture, good, held_request, quick};

#[tokio::test]
async fn stop_finishes_what_is_open_and_refuses_what_is_new() {
    let mut front = Front::with(good).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let mut stop = front.command(&["stop"]);
    let stop = tokio::spawn(async move { stop.output().await });
    front.until("the front stops", |s| s.stopping).await;
    eventually("the port is closed", async || {
        (ask(&front.address(), Request::get("/")).await.err() == Some(Failure::Refused))
            .then_some(())
    })
    .await;
    let denied = front.run(&["takeover"]).await;
    denied.assert_code(1).assert_says("stopping");
    gate.open();
    assert_eq!(held.receive().await.unwrap().code, 200);
    assert_eq!(front.exit_code().await, 0);
    assert!(stop.await.unwrap().unwrap().status.success());
    assert!(!front.control().exists(), "the control socket was left behind");
}

#[tokio::test]
async fn the_bundled_worker_finishes_what_is_open_and_the_port_is_closed_meanwhile() {
    let mut front = Front::with(quick).await;
    let request = Request::chat(&"word ".repeat(2000));
    let (head, body) = request.parts();
    let mut upload = HttpConnection::open(&front.address()).await.unwrap();
    upload.send(&head).await.unwrap();
    front
        .until("it is accepted", |s| {
            s.serving().and_then(|g| g.connections).is_some_and(|open| open.http == 1)
        })
        .await;
    front.signal(Signal::SIGTERM);
    eventually("the port is closed", async || {
        (ask(&front.address(), Request::get("/")).await.err() == Some(Failure::Refused))
            .then_some(())
    })
    .await;
    upload.send(body).await.unwrap();
    let answer = upload.receive().await.unwrap();
    assert_eq!((answer.code, answer.closes()), (200, true));
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn stop_now_waits_for_nothing() {
    let mut front = Front::with(|s| good(s).flag("--drain-timeout", "10m")).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let worker = front.serving().await.worker().unwrap();
    front.run(&["stop", "--now"]).await.assert_code(0);
    front.exit_code().await;
    assert!(held.receive().await.is_err());
    assert!(worker.is_gone(), "the worker outlived its front");
}

#[tokio::test]
async fn a_worker_that_will_not_go_does_not_outlast_the_stop_timeout() {
    let mut front = Front::with(|s| {
        s.worker(fixture(["never-drains", "ignore-term"])).flag("--stop-timeout", "500ms")
    })
    .await;
    let worker = front.serving().await.worker().unwrap();
    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
    assert!(worker.is_gone(), "the worker outlived its front");
}

#[tokio::test]
async fn a_front_stopped_amid_a_takeover_leaves_nobody_behind() {
    let gate = Gate::closed();
    let mut front = Front::with(good).await;
    let takeover = front.begin_takeover_to(&fixture([gate.word("ready-once")]));
    let family = eventually("both workers run", async || {
        let family = front.process().descendants();
        (family.len() == 2).then_some(family)
    })
    .await;
    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
    for process in family {
        assert!(process.is_gone(), "{process:?} outlived its front");
    }
    assert_ne!(takeover.end().await.code, 0, "a takeover that never was has succeeded");
}

#[tokio::test]
async fn the_port_and_the_control_socket_can_be_used_again_at_once() {
    let mut first = Front::with(good).await;
    let address = first.address().to_string();
    // A connection that the server closes stays in TIME_WAIT on this port.
    ask(&first.address(), Request::get("/")).await.unwrap();
    first.run(&["stop"]).await.assert_code(0);
    first.exit_code().await;
    let second = Front::with(|s| good(s).listen(&address).control(first.control())).await;
    assert_eq!(second.address().to_string(), address);
    ask(&second.address(), Request::get("/")).await.unwrap();
}

#[tokio::test]
async fn websockets_are_told_to_come_back_those_in_their_handshake_too() {
    let mut front = Front::with(|s| quick(s).flag("--stop-timeout", "5s")).await;
    let connected = WebSocket::connected(&front.address()).await;
    let handshaking = WebSocket::challenged(&front.address()).await;
    front.signal(Signal::SIGTERM);
    let (connected, handshaking) = tokio::join!(connected.ended(), handshaking.ended());
    for ending in [&connected, &handshaking] {
        assert_eq!((ending.code, ending.reason.as_str()), (Some(1012), "service restart"));
        assert!(ending.events.iter().any(|event| event == "shutdown"), "{ending:?}");
    }
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn a_front_whose_worker_never_came_up_stops_all_the_same() {
    let mut front = Front::with(|s| s.worker(fixture(["hang"])).not_serving()).await;
    let Address::Tcp(_) = front.address() else { panic!("it listens on TCP") };
    let mut queued = HttpConnection::open(&front.address()).await.unwrap();
    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
    assert!(queued.closed().await.is_err() || queued.receive().await.is_err());
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_deadline_and_sent_nothing() {
    let mut front = Front::with(|s| quick(s).flag("--stop-timeout", "1s")).await;
    let mut idle = HttpConnection::open(&front.address()).await.unwrap();
    assert_eq!(idle.exchange(&Request::get("/healthz")).await.unwrap().code, 200);
    front.signal(Signal::SIGTERM);
    assert_eq!(idle.closed().await.unwrap(), b"");
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn the_next_answer_on_an_open_connection_says_that_it_closes() {
    let mut front = Front::with(quick).await;
    let mut kept = HttpConnection::open(&front.address()).await.unwrap();
    let first = kept.exchange(&Request::get("/healthz")).await.unwrap();
    assert!(!first.closes());
    front.signal(Signal::SIGTERM);
    // The order is on its way to the worker; the first answer after it says so.
    eventually("an answer says that it closes", async || {
        let next = kept.exchange(&Request::get("/healthz")).await.unwrap();
        assert_eq!(next.code, 200);
        next.closes().then_some(())
    })
    .await;
    assert_eq!(kept.closed().await.unwrap(), b"");
    assert_eq!(front.exit_code().await, 0);
}
