//! The control socket: who may speak to a front, and what happens to those who speak badly.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, binaries, eventually, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::{generation, good, skipped};

#[tokio::test]
async fn it_is_the_owner_s_alone() {
    let front = Front::with(good).await;
    let mode = std::fs::metadata(front.control()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn another_user_is_refused_even_if_the_file_lets_them_in() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can try as another user");
    }
    let front = Front::with(good).await;
    let place = tempfile::tempdir().unwrap();
    let command = place.path().join("holdfast");
    std::fs::copy(binaries::holdfast(), &command).unwrap();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    open(place.path(), 0o755);
    open(&command, 0o755);
    open(front.directory(), 0o755);
    open(front.control(), 0o666);
    let nobody = async |words: &[&str]| {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&command)
            .args(words)
            .arg("--control")
            .arg(front.control())
            .env("HOME", "/nonexistent")
            .output();
        soon("the answer to nobody", output).await.expect("setpriv can be started")
    };
    for words in [&["status"][..], &["takeover"], &["stop", "--now"]] {
        let output = nobody(words).await;
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("user 65534"), "{words:?}: not for who they are: {errors}");
    }
    let status = front.status().await;
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(1)));
    assert_eq!(status.takeovers.committed, 0);
}

#[tokio::test]
async fn requests_that_are_none_end_their_connection_and_nothing_else() {
    let front = Front::with(good).await;
    let deep = format!("{}\n", "[".repeat(10_000));
    for bad in [
        &b"\n"[..],
        b"hello\n",
        b"{}\n",
        b"{\"version\":999,\"request\":\"explode\"}\n",
        b"\xff\xfe\x00\n",
        b"GET / HTTP/1.1\r\nhost: front\r\n\r\n",
        deep.as_bytes(),
    ] {
        let mut client = UnixStream::connect(front.control()).await.unwrap();
        client.write_all(bad).await.unwrap();
        // An answer says what is wrong, or there is none; the end comes either way.
        let mut answer = Vec::new();
        let _ = soon("the end of a bad client", client.read_to_end(&mut answer)).await;
    }
    assert_eq!(front.serving().await.generation, generation(1));
}

#[tokio::test]
async fn a_request_without_end_is_not_collected() {
    let front = Front::with(good).await;
    let before = front.process().anonymous_bytes();
    let mut client = UnixStream::connect(front.control()).await.unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    let flood = async {
        // 64 MiB, or until the front has had enough.
        for _ in 0..1024 {
            if client.write_all(&chunk).await.is_err() {
                return;
            }
        }
        panic!("the front took 64 MiB for a request");
    };
    soon("the front has had enough", flood).await;
    let grown = front.process().anonymous_bytes().saturating_sub(before);
    assert!(grown < 4 * 1024 * 1024, "the front grew by {grown} bytes");
    assert_eq!(front.serving().await.generation, generation(1));
}

#[tokio::test]
async fn clients_that_say_nothing_are_dropped_and_hold_nobody_up() {
    let front = Front::with(good).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(UnixStream::connect(front.control()).await.unwrap());
    }
    let mut half = UnixStream::connect(front.control()).await.unwrap();
    half.write_all(b"{").await.unwrap();
    front.takeover().await.assert_committed();
    silent.push(half);
    for mut client in silent {
        let mut answer = Vec::new();
        let _ = soon("a silent client is dropped", client.read_to_end(&mut answer)).await;
    }
}

#[tokio::test]
async fn clients_that_leave_amid_an_answer_do_no_harm() {
    let front = Front::with(good).await;
    for _ in 0..10 {
        drop(front.begin_takeover());
    }
    let mut takeover = front.begin_takeover();
    takeover.until("requested").await;
    drop(takeover);
    front.until("every takeover has ended", |s| s.is_settled()).await;
    ask(&front.address(), Request::get("/")).await.unwrap();
}

#[tokio::test]
async fn more_clients_than_it_has_room_for_do_not_end_the_front() {
    let front = Front::with(good).await;
    let mut clients = Vec::new();
    for _ in 0..500 {
        // Refused is as good as dropped; what counts is the front.
        if let Ok(client) = UnixStream::connect(front.control()).await {
            clients.push(client);
        }
    }
    ask(&front.address(), Request::get("/")).await.unwrap();
    drop(clients);
    eventually("the front answers", async || front.try_status().await).await;
    front.takeover().await.assert_committed();
}

#[tokio::test]
async fn a_second_front_on_the_same_control_socket_is_refused_and_told_who_is_there() {
    let front = Front::with(good).await;
    let second = Front::refused(|s| good(s).control(front.control())).await;
    second.assert_code(78).assert_says(&front.process().pid().to_string());
    second.assert_says(front.control().to_str().unwrap());
    front.takeover().await.assert_committed();
}

#[tokio::test]
async fn a_stale_control_socket_is_replaced_and_a_plain_file_is_not() {
    let place = tempfile::tempdir().unwrap();
    let control = place.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&control).unwrap());
    let front = Front::with(|s| good(s).control(&control)).await;
    front.run(&["healthcheck"]).await.assert_code(0);
    let plain = place.path().join("plain");
    std::fs::write(&plain, "precious").unwrap();
    let refused = Front::refused(|s| good(s).control(&plain)).await;
    refused.assert_code(78).assert_says(plain.to_str().unwrap());
    assert_eq!(std::fs::read_to_string(&plain).unwrap(), "precious");
}
