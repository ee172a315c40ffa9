//! New binaries that are none: the front goes on as it was.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use holdfast_tests::rig::{FAULT_VARIABLE, Front, Traffic, binaries, eventually};

use super::{path, renew};
use crate::quick;

/// How often an image fails: what one leaves behind, another finds.
const TIMES: u64 = 2;

/// A file in the front's directory.
fn file(front: &Front, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let file = front.directory().join(name);
    fs::write(&file, bytes).expect("a file can be written");
    fs::set_permissions(&file, Permissions::from_mode(mode)).expect("it is ours");
    file
}

fn script(front: &Front, name: &str, body: &str) -> PathBuf {
    file(front, name, format!("#!/bin/sh\n{body}\n").as_bytes(), 0o755)
}

#[tokio::test]
async fn a_binary_that_is_broken_in_any_way_leaves_the_front_as_it_is() {
    let front = Front::with(quick).await;
    let traffic = Traffic::of_every_kind(&front);
    traffic.flows(1).await;
    let mut foreign = fs::read(binaries::holdfast()).expect("it can be read");
    // `e_machine` of the ELF header (elf(5)): a machine that nobody has.
    foreign[18..20].copy_from_slice(&0xfffe_u16.to_le_bytes());
    let sound = fs::read(binaries::holdfast()).expect("it can be read");
    let broken = [
        (PathBuf::from("/nowhere/holdfast"), "No such file"),
        (front.directory().to_owned(), "Permission denied"),
        (file(&front, "plain", &sound, 0o644), "Permission denied"),
        (file(&front, "foreign", &foreign, 0o755), "Exec format error"),
        (file(&front, "half", &sound[..4096], 0o755), "SIGSEGV"),
        (file(&front, "empty", b"", 0o755), "Exec format error"),
        (script(&front, "polite", "exit 0"), "is no front"),
        (script(&front, "echo", "cat"), "is no front"),
        (script(&front, "panics", "exit 101"), "exited with code 101"),
        (script(&front, "segfaults", "kill -SEGV $$"), "SIGSEGV"),
        (script(&front, "hangs", "exec sleep 600"), "did not read the state within"),
        (script(&front, "talks", "exec yes"), "does not go on"),
    ];
    let failures = broken.len() as u64;
    for (binary, reason) in broken {
        let outcome = front.run(&["reexec", "--binary", path(&binary)]).await;
        outcome.assert_code(1).assert_says(reason);
    }
    let status = front.status().await;
    assert_eq!((status.reexecs.done, status.reexecs.failed), (0, failures));
    assert_eq!(front.process().descendants().len(), 1, "somebody was left behind");
    renew(&front).await;
    traffic.flows(1).await;
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn an_image_that_panics_before_it_is_ready_is_left_for_the_old_one() {
    is_left_for_the_old_one("panic", "panicked").await;
}

#[tokio::test]
async fn an_image_that_crashes_before_it_is_ready_is_left_for_the_old_one() {
    is_left_for_the_old_one("segfault", "SIGSEGV").await;
}

#[tokio::test]
async fn an_image_that_hangs_before_it_is_ready_is_left_for_the_old_one() {
    is_left_for_the_old_one("delay:60000", "was not ready within").await;
}

async fn is_left_for_the_old_one(act: &str, reason: &str) {
    for point in ["image.begun", "image.state-read", "image.ready"] {
        let fault = format!("{point}={act}");
        let front = Front::with(|s| quick(s).environment(FAULT_VARIABLE, &fault)).await;
        let inodes = front.status().await.inodes();
        let descriptors = front.process().descriptors().len();
        let traffic = Traffic::of_every_kind(&front);
        traffic.flows(1).await;
        for _ in 0..TIMES {
            front.run(&["reexec"]).await.assert_code(1).assert_says(reason);
        }
        front.met(point).await;
        let status = front.status().await;
        assert_eq!((status.reexecs.done, status.reexecs.failed), (0, TIMES), "{fault}");
        assert_eq!(status.inodes(), inodes, "{fault}");
        front.takeover().await.assert_committed();
        traffic.flows(1).await;
        traffic.stop().await.assert_no_failures();
        eventually("the front holds no more descriptors than before", async || {
            (front.process().descriptors().len() <= descriptors).then_some(())
        })
        .await;
    }
}
