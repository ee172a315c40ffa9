//! What the front and its workers may have and do, and what nobody is shown.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Process, Program, Setup, Traffic};
use nix::unistd::Uid;
use tempfile::TempDir;

use crate::adapters::relayed;
use crate::{fixture, good, quick, skipped};

/// A user with few rights that most systems have, by number.
const NOBODY: u32 = 65534;

/// A soft limit below the hard one, in force for the front's start.
fn limited(setup: Setup) -> Setup {
    setup.wrapped_in(&["sh", "-c", "ulimit -Sn 777; exec \"$0\" \"$@\""])
}

/// Its soft and its hard limit of descriptors.
fn limits(process: Process) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid()));
    let limits = limits.expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.expect("it is listed").split_whitespace().map(|n| n.parse().ok());
    let mut next = || numbers.next().flatten().expect("a limit of descriptors is a number");
    (next(), next())
}

/// The fields of `/proc/PID/status` by this name.
fn fields(process: Process, name: &str) -> Vec<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The fixture, and a directory for state, where anybody may go.
fn open_to_all() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let anybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), anybody).expect("it is ours");
    let program = directory.path().join("fixture-worker");
    std::fs::copy(env!("CARGO_BIN_EXE_fixture-worker"), &program).expect("it can be copied");
    (directory, program)
}

fn is_root() -> bool {
    if !Uid::effective().is_root() {
        skipped("only root starts workers as another user");
    }
    Uid::effective().is_root()
}

#[tokio::test]
async fn the_front_and_its_workers_may_have_as_many_descriptors_as_the_hard_limit_allows() {
    let front = Front::with(|s| limited(good(s))).await;
    let (soft, hard) = limits(front.process());
    assert_eq!(soft, hard);
    assert!(hard > 777, "this machine's hard limit proves nothing");
    assert_eq!(limits(front.serving().await.worker().unwrap()), (hard, hard));
    let told = front.status().await.front.limits;
    assert_eq!((told.descriptors, told.descriptors_at_start), (hard, 777));
    let outcome = front.run(&["status"]).await;
    assert!(outcome.output.contains(&format!("descriptors of {hard}")), "{}", outcome.output);
}

#[tokio::test]
async fn workers_run_as_the_user_that_was_named_and_keep_nothing_of_root() {
    if !is_root() {
        return;
    }
    let (directory, program) = open_to_all();
    let state = directory.path().join("state");
    let socket = directory.path().join("front.sock");
    let log = directory.path().join("worker.log");
    let mut front = Front::with(|s| {
        quick(s)
            .worker(Program::new(&program).arg("serve"))
            .listen("127.0.0.1:0")
            .listen(format!("unix:{}", socket.display()))
            .environment("HOLDFAST_STATE_DIR", &state)
            .flag("--log-file", &log)
            .flag("--user", format!("{NOBODY}:{NOBODY}"))
    })
    .await;
    let nobody = vec![NOBODY.to_string(); 4];
    for takeover in [false, true] {
        if takeover {
            let traffic = Traffic::to(&front).with_new();
            traffic.flows(2).await;
            front.takeover().await.assert_committed();
            traffic.flows(2).await;
            traffic.stop().await.assert_no_failures();
        }
        let worker = front.serving().await.worker().unwrap();
        assert_eq!(fields(worker, "Uid"), nobody);
        assert_eq!(fields(worker, "Gid"), nobody);
        assert!(!fields(worker, "Groups").contains(&"0".to_owned()));
        assert_eq!(fields(worker, "CapEff"), ["0000000000000000"]);
        assert_eq!(worker.environment().get("USER").map(String::as_str), Some("nobody"));
        for address in front.addresses() {
            assert_eq!(ask(address, Request::get("/")).await.unwrap().code, 200);
        }
    }
    assert_eq!(std::fs::metadata(&state).unwrap().uid(), NOBODY, "it is not the workers'");
    assert!(log.exists());
    assert_eq!(fields(front.process(), "Uid")[0], "0");
    front.signal(holdfast_tests::rig::Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn the_bundled_worker_and_a_relayed_program_run_as_another_user_too() {
    if !is_root() {
        return;
    }
    if !reachable(&holdfast_tests::rig::binaries::holdfast_worker()) {
        return skipped("the binaries are where only root may go");
    }
    let (directory, _) = open_to_all();
    let state = directory.path().join("state");
    let as_nobody = |s: Setup| {
        quick(s).environment("HOLDFAST_STATE_DIR", &state).flag("--user", NOBODY.to_string())
    };
    let front = Front::with(as_nobody).await;
    let worker = front.serving().await.worker().unwrap();
    assert_eq!(fields(worker, "Uid")[0], NOBODY.to_string());
    front.takeover().await.assert_committed();
    drop(front);
    let front = Front::with(|s| relayed(as_nobody(s), ["port:PORT"])).await;
    assert_eq!(ask(&front.address(), Request::get("/")).await.unwrap().code, 200);
    let adapter = front.serving().await.worker().unwrap();
    for process in adapter.descendants().into_iter().chain([adapter]) {
        assert_eq!(fields(process, "Uid")[0], NOBODY.to_string(), "{:?}", process.arguments());
    }
}

/// Whether anybody may go there.
fn reachable(path: &Path) -> bool {
    let mode = |at: &Path| std::fs::metadata(at).map_or(0, |found| found.mode());
    path.ancestors().all(|at| mode(at) & 0o1 != 0)
}

#[tokio::test]
async fn who_workers_cannot_be_is_refused_by_name() {
    let refused = |user: &'static str, group: &'static str| {
        Front::refused(move |s| good(s).flag("--user", user).flag("--group", group))
    };
    if Uid::effective().is_root() {
        let outcome = refused("no-such-user", "0").await;
        outcome.assert_code(78).assert_says("there is no user \"no-such-user\"");
        let outcome = refused("root", "no-such-group").await;
        outcome.assert_code(78).assert_says("there is no group \"no-such-group\"");
        // In a place that everybody may enter, a directory that is root's alone.
        let roots = tempfile::tempdir().unwrap();
        let outcome = Front::refused(|s| {
            let s = good(s).environment("HOLDFAST_STATE_DIR", roots.path());
            s.flag("--user", format!("{NOBODY}:{NOBODY}"))
        })
        .await;
        outcome.assert_code(78).assert_says("cannot write in");
    } else {
        refused("root", "root").await.assert_code(78).assert_says("started as root");
    }
}

#[tokio::test]
async fn a_program_that_another_user_may_not_run_is_named_with_its_reason() {
    if !is_root() {
        return;
    }
    let (directory, program) = open_to_all();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let front = Front::with(|s| {
        let s = quick(s).environment("HOLDFAST_STATE_DIR", directory.path().join("state"));
        s.worker(Program::new(&program)).flag("--user", NOBODY.to_string()).not_serving()
    })
    .await;
    let status = front.until("it is said", |s| s.failure().contains("Permission denied")).await;
    let words = format!("{} could not be executed by user {NOBODY}", program.display());
    assert!(status.failure().contains(&words), "{}", status.failure());
}

#[tokio::test]
async fn workers_gain_no_privileges_when_that_is_wanted() {
    let front = Front::with(|s| good(s).switch("--no-new-privs")).await;
    let worker = front.serving().await.worker().unwrap();
    assert_eq!(fields(worker, "NoNewPrivs"), ["1"]);
    assert_eq!(worker.arguments()[1..], ["serve"]);
    assert_eq!(fields(front.process(), "NoNewPrivs"), ["0"]);
    front.takeover().await.assert_committed();
}

#[tokio::test]
async fn what_a_program_is_told_in_arguments_and_environment_is_shown_nowhere() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "HIDDEN=secret-of-the-file\n").unwrap();
    let front = Front::with(|s| {
        let worker = fixture(["serve", "until:/secret-argument"]);
        quick(s.worker(worker)).environment("HIDDEN_AT_START", "secret-of-the-environment")
    })
    .await;
    let flags = ["--env-file", file.path().to_str().unwrap()];
    front.takeover_with(&flags).await.assert_committed();
    let worker = front.serving().await.worker().unwrap();
    let environment = worker.environment();
    assert_eq!(environment.get("HIDDEN").map(String::as_str), Some("secret-of-the-file"));
    assert_eq!(worker.arguments()[1..], ["serve", "until:/secret-argument"]);
    for words in [&["status", "--json"][..], &["status"]] {
        let outcome = front.run(words).await;
        assert!(!outcome.output.contains("secret"), "{}", outcome.output);
    }
    assert_eq!(front.log().lines_with("secret"), 0, "{}", front.log().text());
}
