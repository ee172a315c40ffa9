//! A takeover that fails: the incumbent serves on, and everybody is told why.

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{Front, Program, Signal, State, Status, Takeover, Traffic, eventually};

use crate::{fixture, generation, good};

/// Has a successor fail before it accepts, and proves what every such failure has in common.
async fn fails<W: AsRef<str>>(words: impl IntoIterator<Item = W>, reason: &str) {
    program_fails(&fixture(words), reason).await;
}

async fn program_fails(program: &Program, reason: &str) {
    let front = Front::with(|s| good(s).flag("--ready-timeout", "3s")).await;
    let before = front.status().await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(2).await;
    let takeover = front.takeover_to(program).await;
    assert_rolled_back(&front, &takeover, reason).await;
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
    let after = front.until("the successor is reaped", |s| s.generations.len() == 1).await;
    assert_eq!(after.generations[0].pid, before.generations[0].pid, "{after:?}");
    assert_eq!(after.inodes(), before.inodes());
    // Asked again by hand nothing waits, and the program is the one that last worked.
    front.takeover().await.assert_committed();
    assert_eq!(front.status().await.takeovers.committed, 1);
}

async fn assert_rolled_back(front: &Front, takeover: &Takeover, reason: &str) -> Status {
    takeover.assert_rolled_back();
    assert!(takeover.reason().contains(reason), "no {reason:?}: {takeover:?}");
    let status = front.status().await;
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(1)), "{status:?}");
    assert_eq!((status.takeovers.committed, status.takeovers.rolled_back), (0, 1));
    let last = status.last_takeover.as_ref().expect("one has ended");
    assert_eq!(last.outcome, "rolled-back");
    assert!(last.reason.as_ref().is_some_and(|r| r.contains(reason)), "{status:?}");
    assert!(status.failure().contains(reason), "{status:?}");
    assert_eq!(last.phases.committed_ms, None);
    status
}

#[tokio::test]
async fn a_successor_that_exits_leaves_the_incumbent_serving() {
    fails(["exit:7"], "exited with code 7").await;
}

#[tokio::test]
async fn a_successor_that_exits_as_if_all_were_well_leaves_the_incumbent_serving() {
    fails(["exit:0"], "exited with code 0").await;
}

#[tokio::test]
async fn a_successor_that_never_becomes_ready_leaves_the_incumbent_serving() {
    fails(["hang"], "was not ready within 3s").await;
}

#[tokio::test]
async fn a_successor_that_hangs_and_ignores_sigterm_is_ended_all_the_same() {
    fails(["hang", "ignore-term"], "was not ready within 3s").await;
}

#[tokio::test]
async fn a_successor_that_refuses_is_believed() {
    fails(["refuse:the moon is full"], "the moon is full").await;
}

#[tokio::test]
async fn a_successor_of_another_protocol_leaves_the_incumbent_serving() {
    fails(["refuse:the front speaks protocol 1, and this worker 7 to 9"], "protocol 1").await;
}

#[tokio::test]
async fn a_successor_that_sends_garbage_leaves_the_incumbent_serving() {
    fails(["garbage"], "protocol").await;
}

#[tokio::test]
async fn a_successor_that_says_an_unknown_word_leaves_the_incumbent_serving() {
    fails(["unknown"], "protocol").await;
}

#[tokio::test]
async fn a_successor_that_says_too_much_at_once_leaves_the_incumbent_serving() {
    fails(["oversized"], "protocol").await;
}

#[tokio::test]
async fn a_successor_that_never_stops_talking_leaves_the_incumbent_serving() {
    fails(["flood"], "protocol").await;
}

#[tokio::test]
async fn a_successor_that_dies_when_ready_leaves_the_incumbent_serving() {
    fails(["die-when-ready"], "SIGKILL").await;
}

#[tokio::test]
async fn a_successor_that_closes_its_link_leaves_the_incumbent_serving() {
    fails(["close-link"], "closed its link").await;
}

#[tokio::test]
async fn a_successor_that_dies_when_admitted_leaves_the_incumbent_serving() {
    fails(["die-when-admitted"], "SIGKILL").await;
}

#[tokio::test]
async fn a_successor_that_never_accepts_leaves_the_incumbent_serving() {
    fails(["never-accepts"], "did not begin to accept within 5s").await;
}

#[tokio::test]
async fn a_successor_that_could_not_hold_what_the_incumbent_holds_is_refused() {
    fails(["descriptors:10"], "may open 10 more descriptors").await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_leaves_the_incumbent_serving() {
    program_fails(&Program::new("/nonexistent/program"), "/nonexistent/program").await;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_leaves_the_incumbent_serving() {
    let file = tempfile::NamedTempFile::new().unwrap();
    program_fails(&Program::new(file.path()), "could not be started").await;
}

#[tokio::test]
async fn a_program_that_speaks_no_link_leaves_the_incumbent_serving() {
    program_fails(&Program::new("sleep").arg("1000"), "was not ready within 3s").await;
}

#[tokio::test]
async fn a_successor_that_dies_in_the_soak_gives_way_to_the_incumbent() {
    soak_fails("die-in-soak", "SIGKILL").await;
}

#[tokio::test]
async fn a_successor_that_cannot_serve_in_the_soak_gives_way_to_the_incumbent() {
    soak_fails("fail-in-soak", "the fixture's own condition").await;
}

/// Has a successor fail while it is watched: what that costs is what it had itself accepted.
async fn soak_fails(word: &str, reason: &str) {
    let front = Front::with(|s| s.worker(fixture(["serve"])).flag("--soak", "20s")).await;
    let before = front.serving().await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(2).await;
    let takeover = front.takeover_to(&fixture([word])).await;
    assert_rolled_back(&front, &takeover, reason).await;
    traffic.flows(2).await;
    // Two clients, so two connections that the successor can have held when it ended.
    traffic.stop().await.assert_cut_at_most(2);
    let answer = ask(&front.address(), Request::get("/")).await.expect("it serves");
    assert_eq!(answer.json()["pid"], before.pid);
    assert!(answer.json()["lease"].is_u64(), "the incumbent lost the lease");
}

#[tokio::test]
async fn an_incumbent_that_does_not_confirm_that_it_stopped_does_not_hold_a_takeover_up() {
    let front = Front::with(|s| {
        s.worker(fixture(["never-stops", "never-drains"]))
            .flag("--soak", "20ms")
            .flag("--drain-timeout", "100ms")
    })
    .await;
    let takeover = front.takeover_to(&fixture(["serve"])).await;
    assert!(takeover.story().contains(&"committed"), "{takeover:?}");
    let settled = front.until("the incumbent is ended", |s| s.is_settled()).await;
    assert_eq!(settled.serving().map(|g| g.generation), Some(generation(2)));
}

#[tokio::test]
async fn the_whole_process_group_of_a_failed_successor_is_ended() {
    let front = Front::with(|s| good(s).flag("--ready-timeout", "2s")).await;
    leaves_nobody(&front, "sleep 1000 & exec sleep 1001").await;
}

#[tokio::test]
async fn what_a_failed_successor_had_started_ends_with_it() {
    let front = Front::with(good).await;
    leaves_nobody(&front, "sleep 1000 & exit 3").await;
}

/// A takeover to this script fails, and nothing it started remains.
async fn leaves_nobody(front: &Front, script: &str) {
    let program = Program::new("sh").arg("-c").arg(script);
    front.takeover_to(&program).await.assert_rolled_back();
    let incumbent = front.serving().await.worker().expect("the incumbent serves on");
    eventually("nobody but the incumbent is left", async || {
        (front.process().descendants() == [incumbent]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_failed_takeover_by_signal_is_told_by_status() {
    let front =
        Front::with(|s| s.worker(fixture(["first-good", "exit:9"])).flag("--soak", "20ms")).await;
    front.signal(Signal::SIGUSR1);
    let status = front.until("it is rolled back", |s| s.takeovers.rolled_back == 1).await;
    assert!(status.failure().contains("exited with code 9"), "{status:?}");
    assert_eq!(status.last_failure.and_then(|f| f.generation), Some(generation(2)));
    assert_eq!(front.serving().await.generation, generation(1));
}

#[tokio::test]
async fn failures_in_a_row_do_not_delay_the_next_attempt_by_hand() {
    let front = Front::with(good).await;
    for _ in 0..3 {
        front.takeover_to(&fixture(["exit:1"])).await.assert_rolled_back();
    }
    let status = front.status().await;
    assert_eq!(status.next_takeover.possible, "now");
    assert_eq!(status.in_state(State::Serving).len(), 1);
    let takeover = front.takeover().await;
    takeover.assert_committed();
    assert!(!takeover.story().contains(&"waiting"), "{takeover:?}");
}
