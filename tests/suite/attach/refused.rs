//! Who may not attach, and who does not come to serve.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use handoff::attach::{Application, TURNED_AWAY};
use handoff::link::Link;
use handoff::message::{PROTOCOL, ToFront, ToWorker};
use holdfast_tests::rig::{Front, Status, soon};
use nix::unistd::Uid;

use super::{attachable, served, until_serves};
use crate::skipped;

/// The code of a worker that may come again.
const MAY_COME_AGAIN: i32 = TURNED_AWAY as i32;

/// Calls the front as a worker would.
fn call(front: &Front) -> Link {
    let path = front.directory().join("attach.sock");
    let (end, _) = handoff::rescue::call(&path).expect("the front listens there");
    Link::new(end).expect("it can be polled")
}

fn application() -> ToFront {
    ToFront::Attach(Application {
        protocol: PROTOCOL,
        program: "stranger".into(),
        token: None,
        returned: None,
        sockets: Vec::new(),
    })
}

#[tokio::test]
async fn the_attach_socket_is_its_owners_alone_unless_it_is_said_otherwise() {
    let mode = |front: &Front| {
        let found = fs::metadata(front.directory().join("attach.sock")).expect("it is there");
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode(&Front::with(attachable).await), 0o600);
    let shared = Front::with(|s| attachable(s).flag("--attach-mode", "0660")).await;
    assert_eq!(mode(&shared), 0o660);
}

#[tokio::test]
async fn a_user_that_is_not_named_is_turned_away_and_one_that_is_named_attaches() {
    if !Uid::effective().is_root() {
        return skipped("only root can start a worker as another user");
    }
    let front = Front::with(|s| attachable(s).flag("--attach-mode", "0666")).await;
    open_to_others(&front);
    let as_other = ["setpriv", "--reuid", "4242", "--clear-groups"];
    let mut worker = front.attach(&as_other, &["--state-dir", "other"]);
    assert_eq!(worker.exit_code().await, MAY_COME_AGAIN);
    let front =
        Front::with(|s| attachable(s).flag("--attach-mode", "0666").flag("--attach-uid", "4242"))
            .await;
    open_to_others(&front);
    let _worker = front.attach(&as_other, &["--state-dir", "other"]);
    until_serves(&front, 1).await;
}

#[tokio::test]
async fn a_user_without_a_name_attaches_with_the_token_and_not_without() {
    if !Uid::effective().is_root() {
        return skipped("only root can start a worker as another user");
    }
    // The kernel gives every user this number that it cannot name.
    let nameless = ["setpriv", "--reuid", "65534", "--clear-groups"];
    let front = Front::with(|s| {
        attachable(s).flag("--attach-mode", "0666").flag("--attach-token-file", "token")
    })
    .await;
    open_to_others(&front);
    fs::write(front.directory().join("token"), "a token of enough characters\n")
        .expect("it is written");
    fs::write(front.directory().join("wrong"), "another one of enough characters")
        .expect("it is written");
    for words in
        [&["--state-dir", "other"][..], &["--state-dir", "other", "--attach-token-file", "wrong"]]
    {
        assert_eq!(front.attach(&nameless, words).exit_code().await, MAY_COME_AGAIN);
    }
    let words = ["--state-dir", "other", "--attach-token-file", "token"];
    let _worker = front.attach(&nameless, &words);
    until_serves(&front, 1).await;
}

/// What the test's directory keeps from other users by default.
fn open_to_others(front: &Front) {
    let all = fs::Permissions::from_mode(0o777);
    fs::set_permissions(front.directory(), all).expect("it is ours");
    let other = front.directory().join("other");
    fs::create_dir(&other).expect("it can be made");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).expect("it is ours");
    for user in [4242, 65534] {
        if front.directory().join("token").exists() || user == 4242 {
            std::os::unix::fs::chown(&other, Some(user), None).expect("root may");
        }
    }
    std::os::unix::fs::chown(&other, Some(4242), None).expect("root may");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o777)).expect("it is ours");
}

#[tokio::test]
async fn a_successor_that_never_gets_ready_is_turned_away_and_the_incumbent_serves_on() {
    let front = Front::with(|s| attachable(s).flag("--ready-timeout", "300ms")).await;
    let _worker = front.attach(&[], &[]);
    let serves = |status: &Status| status.serving().is_some();
    // One that is slow to start is turned away as well, and the next one may be quicker.
    let serving = front.until("a worker serves", serves).await;
    let silent = call(&front);
    silent.send(&application(), &[]).await.expect("it is heard");
    let rolled_back = |status: &Status| status.takeovers.rolled_back == 1;
    let status = front.until("the takeover is rolled back", rolled_back).await;
    assert_eq!(status.serving().map(|g| g.generation), serving.serving().map(|g| g.generation));
    let reason = loop {
        let received = soon("it is told why", silent.receive::<ToWorker>()).await;
        match received.expect("the link stands").map(|received| received.message) {
            Some(ToWorker::Dismiss { reason }) => break reason,
            Some(_) => {}
            None => panic!("the link ended without a word"),
        }
    };
    assert!(reason.contains("log"), "{reason}");
}

#[tokio::test]
async fn a_caller_that_says_nothing_or_something_else_holds_nobody_up() {
    let (front, _worker) = served().await;
    let silent: Vec<Link> = (0..6).map(|_| call(&front)).collect();
    let other = call(&front);
    other.send(&ToFront::Accepting, &[]).await.expect("it is heard");
    let said = soon("it is turned away", other.receive::<ToWorker>()).await;
    let said = said.expect("it is told").map(|received| received.message);
    assert!(matches!(said, Some(ToWorker::Dismiss { .. })), "{said:?}");
    let _next = front.attach(&[], &[]);
    until_serves(&front, 2).await;
    drop(silent);
}

#[tokio::test]
async fn one_that_waits_and_leaves_is_forgotten() {
    let front = Front::with(|s| attachable(s).flag("--soak", "30s")).await;
    let _first = front.attach(&[], &[]);
    front.until("it serves", |status| status.serving().is_some()).await;
    let _second = front.attach(&[], &[]);
    front.until("a takeover runs", |status| status.takeover.is_some()).await;
    let waiting = |front_waits: usize| {
        move |status: &Status| {
            status.attach.as_ref().is_some_and(|attach| attach.waiting.len() == front_waits)
        }
    };
    let third = call(&front);
    third.send(&application(), &[]).await.expect("it is heard");
    front.until("it waits", waiting(1)).await;
    let told = soon("it is told", third.receive::<ToWorker>()).await;
    let told = told.expect("the link stands").map(|received| received.message);
    assert_eq!(told, Some(ToWorker::Waiting { ahead: 0 }));
    drop(third);
    front.until("it is forgotten", waiting(0)).await;
}

#[tokio::test]
async fn a_second_front_does_not_take_the_attach_socket_of_a_living_one() {
    let (front, _worker) = served().await;
    let path = front.directory().join("attach.sock");
    let refused = Front::refused(|s| attachable(s).flag("--attach", &path)).await;
    refused.assert_code(78).assert_says("attach socket");
    until_serves(&front, 1).await;
}
