//! Rescue sockets are for processes of the same user: the kernel says who is at the other end, whatever the file lets in.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Program, Setup, Traffic, binaries, eventually, soon};
use tokio::process::Command;

use crate::{quick, skipped};

use super::{assert_recovered, generation};

/// The words that have what follows run as another user.
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
/// A program that listens at a path and is no worker.
const LISTENER: &str = "socket(S, AF_UNIX, SOCK_SEQPACKET, 0) && bind(S, pack_sockaddr_un($ARGV[0])) \
    && listen(S, 5) or die $!; sleep 1000";

fn nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(AS_NOBODY[0]);
    command.args(&AS_NOBODY[1..]).arg(program).env("HOME", "/nonexistent").kill_on_drop(true);
    command
}

fn let_in(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A directory that is nobody's own.
fn nobodys_place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(place.path(), Some(65534), Some(65534)).unwrap();
    let_in(place.path(), 0o700);
    place
}

fn rescue_directory(front: &Front) -> PathBuf {
    format!("{}.rescue", front.control().display()).into()
}

#[tokio::test]
async fn the_directory_and_the_sockets_are_the_owners_alone() {
    let front = Front::with(quick).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = rescue_directory(&front);
    assert_eq!((mode(&directory), mode(&directory.join("g1.sock"))), (0o700, 0o600));
}

#[tokio::test]
async fn a_front_of_another_user_is_given_nothing_even_if_the_files_let_it_in() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can try as another user");
    }
    let mut front = Front::with(quick).await;
    let directory = rescue_directory(&front);
    let_in(front.directory(), 0o755);
    let_in(&directory, 0o755);
    let_in(&directory.join("g1.sock"), 0o666);
    let place = nobodys_place();
    let command = place.path().join("holdfast");
    std::fs::copy(binaries::holdfast(), &command).unwrap();
    let_in(&command, 0o755);
    let control = place.path().join("control.sock");
    let theirs = place.path().join("control.sock.rescue");
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    std::os::unix::fs::symlink(directory.join("g1.sock"), theirs.join("g1.sock")).unwrap();
    front.kill().await;
    let address = front.address().to_string();
    let words = ["run", "--listen", &address, "--control"];
    let output = nobody(&command).args(words).arg(&control).output();
    let output = soon("their front ends", output).await.unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is in use"), "{output:?}");
    assert_eq!(front.log().lines_with("it is of another user"), 1);
    ask(&front.address(), Request::get("/healthz")).await.expect("it serves on");
    front.start_again(quick).await;
    assert_recovered(&front, &[1]).await;
}

#[tokio::test]
async fn a_process_of_another_user_is_no_worker_and_is_left_alone() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can be another user");
    }
    let place = nobodys_place();
    let theirs = place.path().join("theirs.sock");
    let mut listener = nobody("perl");
    listener.args(["-MSocket", "-e", LISTENER]).arg(&theirs).stderr(Stdio::null());
    let Ok(mut listener) = listener.spawn() else { return skipped("setpriv is not installed") };
    let listening = eventually("it listens, or cannot", async || {
        let ended = listener.try_wait().unwrap().is_some();
        (ended || theirs.exists()).then_some(!ended)
    });
    if !listening.await {
        return skipped("perl is not installed");
    }
    let mut front = Front::with(quick).await;
    let found = rescue_directory(&front).join("g9.sock");
    front.kill().await;
    std::os::unix::fs::symlink(&theirs, &found).unwrap();
    front.start_again(quick).await;
    assert_recovered(&front, &[1]).await;
    assert_eq!(front.log().lines_with("is left alone"), 1);
    assert!(listener.try_wait().unwrap().is_none(), "it was ended");
    assert!(found.symlink_metadata().is_ok());
    front.takeover().await.assert_committed();
    assert_eq!(front.serving().await.generation, generation(10), "that number may be somebody's");
}

#[tokio::test]
async fn a_directory_of_another_user_is_not_used() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can give a directory away");
    }
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("control.sock.rescue");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(65534), None).unwrap();
    let control = place.path().join("control.sock");
    let refused = Front::refused(|s| quick(s).control(&control)).await;
    refused.assert_code(78).assert_says("is another user's");
}

#[tokio::test]
async fn workers_that_run_as_another_user_are_found_again() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root starts workers as another user");
    }
    let place = tempfile::tempdir().unwrap();
    // Workers have to get to their sockets.
    let_in(place.path(), 0o755);
    let program = place.path().join("fixture-worker");
    std::fs::copy(env!("CARGO_BIN_EXE_fixture-worker"), &program).unwrap();
    let started = place.path().join("started");
    std::fs::write(&started, "").unwrap();
    let control = place.path().join("control.sock");
    let choose = |s: Setup| {
        quick(s)
            .worker(Program::new(&program).arg(format!("library:{}", started.display())))
            .control(&control)
            .flag("--user", "65534:65534")
    };
    let mut front = Front::with(choose).await;
    let directory = std::fs::metadata(rescue_directory(&front)).unwrap();
    assert_eq!((directory.uid(), directory.permissions().mode() & 0o777), (65534, 0o700));
    let traffic = Traffic::to(&front).with_new();
    traffic.flows(2).await;
    front.kill().await;
    traffic.flows(2).await;
    front.start_again(choose).await;
    assert_recovered(&front, &[1]).await;
    front.takeover().await.assert_committed();
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
}
