//! What the front does at which signal.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;

use holdfast_tests::rig::http::{Failure, Request, ask};
use holdfast_tests::rig::{Front, Gate, Process, Setup, Signal, Traffic, eventually};

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};

use crate::{generation, good, held_request, quick};

#[tokio::test]
async fn usr1_and_hup_ask_for_a_takeover() {
    let front = Front::with(good).await;
    for (signal, successor) in [(Signal::SIGUSR1, 2), (Signal::SIGHUP, 3)] {
        front.signal(signal);
        let status = front
            .until("the takeover has ended", |s| {
                s.is_settled() && s.takeovers.committed + 1 == successor
            })
            .await;
        assert_eq!(status.serving().map(|g| g.generation), Some(generation(successor)));
    }
}

#[tokio::test]
async fn hup_from_a_closing_window_stops_the_front() {
    let (window, terminal) = open_window();
    let mut front = Front::with(|s| on_terminal(s, terminal)).await;
    assert_eq!(front.process().session(), Some(front.process().pid()));
    // The kernel hangs up on the session's leader.
    drop(window);
    assert_eq!(front.exit_code().await, 0);
}

/// A terminal and the window that shows it, both close-on-exec: a copy of the window in any other
/// process would keep it open.
fn open_window() -> (PtyMaster, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let window = posix_openpt(flags).expect("there is a terminal left");
    grantpt(&window).expect("it is ours");
    unlockpt(&window).expect("it is ours");
    let name = ptsname_r(&window).expect("it has a name");
    let terminal =
        File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name);
    (window, terminal.expect("it can be opened").into())
}

fn on_terminal(setup: Setup, terminal: OwnedFd) -> Setup {
    good(setup).wrapped_in(&["setsid", "--ctty"]).stdin(terminal)
}

#[tokio::test]
async fn a_mask_inherited_by_the_front_hides_no_signal_from_it_or_its_workers() {
    let blocked = ["env", "--block-signal=USR1", "--block-signal=TERM", "--block-signal=CHLD"];
    let mut front = Front::with(|s| good(s).wrapped_in(&blocked)).await;
    front.signal(Signal::SIGUSR1);
    front.until("the takeover has ended", |s| s.is_settled() && s.takeovers.committed == 1).await;
    let worker = front.serving().await.worker().unwrap();
    assert_eq!(worker.blocked_signals(), Some(0));
    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
}

#[tokio::test]
async fn a_terminal_s_interrupt_reaches_the_front_alone() {
    let front = Front::with(good).await;
    let worker = front.serving().await.worker().unwrap();
    assert_eq!(worker.group(), Some(worker.pid()), "a worker shares the group of the front");
}

#[tokio::test]
async fn term_and_int_drain_and_exit_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut front = Front::with(good).await;
        let gate = Gate::closed();
        let mut held = held_request(&front, &gate).await;
        front.signal(signal);
        eventually("the port is closed", async || {
            (ask(&front.address(), Request::get("/")).await.err() == Some(Failure::Refused))
                .then_some(())
        })
        .await;
        gate.open();
        let answer = held.receive().await.unwrap();
        assert_eq!((answer.code, answer.closes()), (200, true));
        assert_eq!(front.exit_code().await, 0);
    }
}

#[tokio::test]
async fn a_second_term_waits_for_nothing() {
    let mut front = Front::with(|s| good(s).flag("--drain-timeout", "10m")).await;
    let gate = Gate::closed();
    let mut held = held_request(&front, &gate).await;
    let worker = front.serving().await.worker().unwrap();
    front.signal(Signal::SIGTERM);
    front.until("the front stops", |s| s.stopping).await;
    front.signal(Signal::SIGTERM);
    front.exit_code().await;
    assert!(held.receive().await.is_err());
    assert!(worker.is_gone(), "the worker outlived its front");
}

#[tokio::test]
async fn a_storm_of_signals_is_weathered() {
    let front = Front::with(quick).await;
    let traffic = Traffic::to(&front).with_new();
    traffic.flows(3).await;
    let storm = [
        Signal::SIGUSR1,
        Signal::SIGHUP,
        Signal::SIGCHLD,
        Signal::SIGUSR1,
        Signal::SIGPIPE,
        Signal::SIGWINCH,
        Signal::SIGHUP,
    ];
    for (number, signal) in storm.into_iter().cycle().take(100).enumerate() {
        front.signal(signal);
        if number % 10 == 0 {
            let status = front.status().await;
            assert!(status.admitted_or_draining() <= 2, "{status:?}");
            traffic.flows(1).await;
        }
    }
    let settled = front
        .until("the last takeover has ended", |s| {
            s.is_settled() && s.next_takeover.possible == "now"
        })
        .await;
    assert!(settled.takeovers.committed > 0, "{settled:?}");
    assert_eq!((settled.takeovers.rolled_back, settled.crashes), (0, 0), "{settled:?}");
    traffic.flows(3).await;
    traffic.stop().await.assert_no_failures();
    let zombies: Vec<_> =
        front.process().descendants().into_iter().filter(|below| below.is_zombie()).collect();
    assert_eq!(zombies, Vec::<Process>::new());
}
