//! What a worker is given, what it is not, and what becomes of what it leaves behind.

use std::path::Path;

use holdfast_tests::rig::{Front, Process, Signal, eventually};

use crate::{fixture, generation, good, quick};

/// Variables of a service manager that are meant for the front alone (sd_notify(3), sd_listen_fds(3),
/// sd_watchdog_enabled(3)).
const FOR_THE_FRONT: [&str; 6] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

#[tokio::test]
async fn a_grandchild_sees_only_descriptors_0_to_2_the_original_limit_and_its_own_environment() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("grandchild");
    let program = fixture([format!("grandchild:{}", file.display())]);
    let limited = ["sh", "-c", "ulimit -Sn 777; exec \"$0\" \"$@\""];
    let front = Front::with(|s| {
        FOR_THE_FRONT.iter().fold(quick(s.worker(program)).wrapped_in(&limited), |setup, name| {
            setup.environment(name, "1")
        })
    })
    .await;
    assert_grandchild(&file);
    // A successor is given no more than the first, while the front holds more.
    std::fs::remove_file(&file).unwrap();
    front.takeover().await.assert_committed();
    assert_grandchild(&file);
}

fn assert_grandchild(file: &Path) {
    let seen = std::fs::read_to_string(file).expect("it was written before the worker was ready");
    let of = |kind: &str| -> Vec<String> {
        seen.lines().filter_map(|l| l.strip_prefix(kind)).map(|l| l.trim().to_owned()).collect()
    };
    let given = of("descriptor ");
    // The directory that lists them is itself open.
    let inherited = given.iter().filter(|descriptor| !descriptor.contains(" /proc/"));
    let numbers: Vec<_> = inherited.filter_map(|descriptor| descriptor.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{seen}");
    assert!(given.iter().any(|descriptor| descriptor == "0 /dev/null"), "{seen}");
    assert_eq!(of("limit "), ["777"], "{seen}");
    for name in FOR_THE_FRONT {
        let prefix = format!("{name}=");
        assert!(!of("environment ").iter().any(|v| v.starts_with(&prefix)), "{seen}");
    }
}

#[tokio::test]
async fn a_worker_shares_the_listening_sockets_with_its_front_and_nothing_else() {
    let front = Front::with(good).await;
    let inodes = front.status().await.inodes();
    front.takeover().await.assert_committed();
    let worker = front.serving().await.worker().unwrap();
    let listeners: Vec<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let sockets = |process: Process| {
        let beyond_stdio = process.descriptors().into_iter().filter(|d| d.number > 2);
        beyond_stdio.map(|d| d.target).filter(|t| t.starts_with("socket:")).collect::<Vec<_>>()
    };
    let (fronts, workers) = (sockets(front.process()), sockets(worker));
    assert!(listeners.iter().all(|socket| workers.contains(socket)), "{workers:?}");
    let shared: Vec<_> = workers.iter().filter(|socket| fronts.contains(socket)).collect();
    assert!(shared.iter().all(|socket| listeners.contains(socket)), "{shared:?}");
    let paths: Vec<_> = worker.descriptors().into_iter().filter(|d| d.number > 2).collect();
    assert!(!paths.iter().any(|d| d.target.starts_with('/')), "{paths:?}");
}

#[tokio::test]
async fn the_front_holds_nothing_of_a_worker_that_is_gone() {
    let front = Front::with(good).await;
    front.takeover().await.assert_committed();
    let before = front.process().descriptors();
    for _ in 0..5 {
        front.takeover().await.assert_committed();
    }
    front.takeover_to(&fixture(["exit:1"])).await.assert_rolled_back();
    front.takeover_to(&fixture(["garbage"])).await.assert_rolled_back();
    eventually("the front holds as many descriptors as before", async || {
        (front.process().descriptors().len() <= before.len()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_orphan_is_adopted_reaped_when_it_ends_and_ended_when_the_front_does() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("orphan");
    let program = fixture(["first-good".to_owned(), format!("orphan:{}", file.display())]);
    let mut front = Front::with(|s| quick(s.worker(program))).await;
    let mut orphans = Vec::new();
    for _ in 0..2 {
        front.takeover().await.assert_committed();
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        orphans.push(Process::find(pid).expect("the orphan runs"));
    }
    front.takeover_to(&fixture(["serve"])).await.assert_committed();
    let [first, second] = orphans[..] else { panic!("there are two") };
    for orphan in [first, second] {
        assert!(!orphan.is_gone(), "an orphan was ended with its worker");
        assert_eq!(orphan.parent(), Some(front.process().pid()), "it was not adopted");
    }
    first.signal(Signal::SIGKILL);
    eventually("the orphan is reaped", async || Process::find(first.pid()).is_none().then_some(()))
        .await;
    assert_eq!(front.status().await.crashes, 0);
    assert_eq!(front.serving().await.generation, generation(4));
    front.run(&["stop"]).await.assert_code(0);
    front.exit_code().await;
    assert!(second.is_gone(), "an orphan outlived the front");
}

#[tokio::test]
async fn a_deleted_directory_is_a_reason_with_a_name() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("deployed");
    std::fs::create_dir(&directory).unwrap();
    let front = Front::with(|s| good(s).directory(&directory)).await;
    std::fs::remove_dir(&directory).unwrap();
    let takeover = front.takeover().await;
    takeover.assert_rolled_back();
    assert!(takeover.reason().contains("directory"), "{takeover:?}");
    assert_eq!(front.serving().await.generation, generation(1));
    std::fs::create_dir(&directory).unwrap();
}

#[tokio::test]
async fn a_log_file_that_was_rotated_is_opened_anew_at_the_next_takeover() {
    let place = tempfile::tempdir().unwrap();
    let (file, rotated) = (place.path().join("worker.log"), place.path().join("worker.log.1"));
    let front = Front::with(|s| good(s).flag("--log-file", &file)).await;
    let wrote = |file: &Path, words: &str| {
        std::fs::read_to_string(file).is_ok_and(|text| text.contains(words)).then_some(())
    };
    eventually("the first writes there", async || wrote(&file, "fixture g1 starts")).await;
    std::fs::rename(&file, &rotated).unwrap();
    front.takeover().await.assert_committed();
    eventually("the second writes there", async || wrote(&file, "fixture g2 starts")).await;
    assert!(wrote(&rotated, "fixture g2 starts").is_none());
    assert_eq!(front.log().lines_with("fixture g"), 0, "a worker wrote to the front's own stderr");
}

#[tokio::test]
async fn without_a_log_file_workers_write_where_the_front_does() {
    let front = Front::with(good).await;
    assert_eq!(front.log().lines_with("fixture g1 starts"), 1);
}
