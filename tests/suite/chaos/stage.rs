//! A front, its clients, and what one step does to them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_tests::rig::http::{Request, ask};
use holdfast_tests::rig::{
    FAULT_VARIABLE, Front, Log, Process, RunningTakeover, Setup, Signal, Status, Takeover,
    eventually, faulty_worker, sound_worker,
};

use super::audience::Toll;
use super::schedule::{Disturbance, Fault, Order, Price, Schedule, Standby, Step};
use crate::{quick, skipped};

/// How long a process stands still. It is the fault itself: nothing is waited for by it.
const STANDSTILL: Duration = Duration::from_millis(300);
/// How often the log is looked at for processes that have stopped themselves.
const GLANCE: Duration = Duration::from_millis(50);
/// The room on a small disk.
const SMALL: &str = "16m";

/// A front in the middle of its schedule.
pub(super) struct Stage {
    pub(super) front: Front,
    order: Order,
    standby: Standby,
    breaks_images: bool,
    small_disk: bool,
}

impl Stage {
    pub(super) async fn set(schedule: &Schedule) -> Self {
        let small_disk = schedule.steps.contains(&Step::FullDisk) && may_mount().await;
        let front = Front::with(|setup| {
            let setup = set_up(schedule, setup);
            if small_disk { on_a_small_disk(setup) } else { setup }
        })
        .await;
        let Schedule { order, standby, .. } = *schedule;
        let breaks_images = schedule.fronts_fault.is_some_and(Fault::breaks_images);
        let stage = Self { front, order, standby, breaks_images, small_disk };
        stage.settles().await;
        // An image holds the binary of the one before, from the first time on.
        tokio::select! {
            () = stage.renew() => stage,
            () = wake_the_stopped(stage.front.log()) => unreachable!("it waits for ever"),
        }
    }

    /// Ends once nothing is under way: one generation serves, and another one waits, or none is there.
    pub(super) async fn settles(&self) -> Status {
        self.front
            .until("nothing is under way", |s| match self.standby {
                Standby::None => s.is_settled(),
                Standby::Waits => {
                    s.takeover.is_none()
                        && s.generations.len() == 2
                        && s.serving().is_some()
                        && s.standby().is_some()
                }
            })
            .await
    }

    /// Kills the front, starts another one that goes on with its workers, and has that take over once.
    pub(super) async fn lose_the_front(&mut self, schedule: &Schedule) -> Toll {
        if self.small_disk {
            skipped("another front would see another disk");
            return Toll::default();
        }
        self.front.kill().await;
        tokio::time::sleep(STANDSTILL).await;
        self.front.start_again(|setup| set_up(schedule, setup)).await;
        self.settles().await;
        let toll = self.clean_takeovers(1).await;
        self.settles().await;
        self.renew().await;
        toll
    }

    /// What a step comes to that is done to the end.
    pub(super) async fn perform(&self, step: Step) -> Toll {
        let toll = match step {
            Step::Takeover => self.clean_takeovers(1).await,
            Step::Takeovers(count) => self.clean_takeovers(count).await,
            Step::FaultySuccessor(fault) => {
                self.faulty(self.front.begin_takeover_to(&faulty(fault))).await
            }
            Step::FaultyIncumbent(fault) => {
                let armed = self.front.takeover_to(&faulty(fault)).await;
                armed.assert_committed();
                self.faulty(self.front.begin_takeover_to(&sound_worker())).await
            }
            Step::AtRest(disturbance) => self.disturb(disturbance).await,
            Step::Amid(disturbance, after) => {
                let takeover = self.front.begin_takeover_to(&sound_worker());
                tokio::time::sleep(after).await;
                let toll = match disturbance {
                    // It is refused until the commit, and goes on with a drain.
                    Disturbance::Reexec => self.try_to_renew().await,
                    _ => self.disturb(disturbance).await,
                };
                let takeover = takeover.end().await;
                if step.price(self.order) == Price::Nothing {
                    takeover.assert_committed();
                }
                Toll { cut: toll.cut + cut(&takeover), ..toll }
            }
            Step::DrainNow(after) => self.drain_now(after).await,
            Step::Pause => self.pause().await,
            Step::LoseTheFront => unreachable!("it is done to a stage that nobody looks at"),
            Step::FullDisk => self.fill_the_disk().await,
        };
        self.settles().await;
        toll
    }

    async fn clean_takeovers(&self, count: u64) -> Toll {
        let before = self.front.status().await.takeovers;
        let begun: Vec<_> =
            (0..count).map(|_| self.front.begin_takeover_to(&sound_worker())).collect();
        let mut toll = Toll::default();
        for takeover in begun {
            let takeover = takeover.end().await;
            let committed = takeover.event("committed").is_some();
            assert!(committed && takeover.code != 1, "not committed: {takeover:?}");
            if self.order == Order::StartFirst {
                takeover.assert_committed();
            }
            toll.cut += cut(&takeover);
        }
        let after = self.front.status().await.takeovers;
        let done = after.committed - before.committed;
        assert!((1..=count).contains(&done), "{done} takeovers came of {count} requests");
        assert_eq!(after.rolled_back, before.rolled_back);
        toll
    }

    /// A takeover in which somebody may die of a fault of their own.
    async fn faulty(&self, takeover: RunningTakeover) -> Toll {
        let takeover = takeover.end().await;
        // Two: the one with the fault, and the same program started again.
        Toll { deaths: 2, cut: cut(&takeover) }
    }

    async fn disturb(&self, disturbance: Disturbance) -> Toll {
        match disturbance {
            Disturbance::StopFront => self.stand_still(vec![self.front.process()]).await,
            Disturbance::StopWorkers => self.stand_still(self.workers()).await,
            Disturbance::Reexec => self.renew().await,
            Disturbance::KillServing => {
                let status = self.front.status().await;
                let serving = status.serving().and_then(|generation| generation.worker());
                return kill(serving).await;
            }
            Disturbance::KillNewest => {
                let status = self.front.status().await;
                let newest = status.generations.iter().max_by_key(|g| g.generation);
                return kill(newest.and_then(|generation| generation.worker())).await;
            }
        }
        Toll::default()
    }

    /// Has the front become another image, which stays the one before if that cannot be.
    async fn renew(&self) {
        let outcome = self.front.run(&["reexec"]).await;
        outcome.assert_code(i32::from(self.breaks_images));
    }

    async fn try_to_renew(&self) -> Toll {
        let outcome = self.front.run(&["reexec"]).await;
        assert!([0, 1].contains(&outcome.code), "{outcome:?}");
        Toll::default()
    }

    async fn pause(&self) -> Toll {
        self.front.run(&["pause", "--timeout", "60s"]).await.assert_code(0);
        let waiting = {
            let address = self.front.address();
            tokio::spawn(async move { ask(&address, Request::get("/healthz")).await })
        };
        tokio::time::sleep(STANDSTILL).await;
        self.front.run(&["resume"]).await.assert_code(0);
        waiting.await.expect("it does not panic").expect("who waits is served");
        Toll::default()
    }

    /// Whoever is below the front now, listed yet or not.
    fn workers(&self) -> Vec<Process> {
        self.front.process().descendants()
    }

    async fn stand_still(&self, processes: Vec<Process>) {
        for process in &processes {
            process.stand_still().await;
        }
        tokio::time::sleep(STANDSTILL).await;
        processes.iter().for_each(|process| process.go_on());
    }

    async fn drain_now(&self, after: Duration) -> Toll {
        let takeover = self.front.begin_takeover_to(&sound_worker());
        tokio::time::sleep(after).await;
        // Who serves alone is not to be drained: refused, and nothing has happened.
        for generation in self.front.status().await.generations {
            let name = generation.generation.to_string();
            let outcome = self.front.run(&["drain", "--now", &name]).await;
            assert!([0, 1].contains(&outcome.code), "{outcome:?}");
        }
        Toll { cut: cut(&takeover.end().await), deaths: 0 }
    }

    async fn fill_the_disk(&self) -> Toll {
        if !self.small_disk {
            skipped("a full disk needs the right to mount a small one");
            return Toll::default();
        }
        let filler = self.state().join("filler");
        let mut file = File::create(&filler).expect("there is room for an empty file");
        let error = loop {
            if let Err(error) = file.write_all(&[0; 64 * 1024]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        // Who serves serves on what needs no disk, and a successor comes up or is dropped.
        ask(&self.front.address(), Request::get("/healthz")).await.expect("it serves on");
        let amid = self.front.takeover_to(&sound_worker()).await;
        ask(&self.front.address(), Request::get("/healthz")).await.expect("it serves on");
        std::fs::remove_file(&filler).expect("the disk can be emptied");
        let after = self.front.takeover_to(&sound_worker()).await;
        assert!(after.event("committed").is_some(), "there is room again: {after:?}");
        Toll { deaths: 0, cut: cut(&amid) + cut(&after) }
    }

    /// The directory of its state, as the front sees it.
    fn state(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.front.process().pid()));
        let directory = self.front.directory().strip_prefix("/").expect("it is absolute");
        root.join(directory).join("state")
    }
}

/// Lets every process go on that a fault has stopped, and open descriptors that a fault has denied them; ends
/// never.
pub(super) async fn wake_the_stopped(log: &Log) {
    let mut woken = BTreeSet::new();
    loop {
        let met = log.text();
        for (number, line) in met.lines().enumerate() {
            let Some((what, pid)) = line
                .strip_prefix("fault met: ")
                .and_then(|line| line.rsplit_once(" in "))
                .filter(|_| woken.insert(number))
            else {
                continue;
            };
            let process = pid.parse().ok().and_then(Process::find);
            tokio::time::sleep(STANDSTILL).await;
            match (what.rsplit(' ').next(), process) {
                (Some("Stop"), Some(process)) => process.go_on(),
                (Some("Emfile"), Some(process)) => process.lift_descriptor_limit(),
                _ => {}
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
}

fn faulty(fault: Fault) -> holdfast_tests::rig::Program {
    faulty_worker(&fault.to_string())
}

async fn kill(process: Option<Process>) -> Toll {
    let Some(process) = process else { return Toll::default() };
    process.signal(Signal::SIGKILL);
    eventually("it is gone", async || process.is_gone().then_some(())).await;
    Toll { deaths: 1, cut: 0 }
}

/// How many connections the drain's deadline has cut. One that is rolled back says so of its drain alone.
fn cut(takeover: &Takeover) -> usize {
    let cut = |kind| takeover.event("drained").and_then(|drained| drained["cut"][kind].as_u64());
    let all = cut("http").unwrap_or(0) + cut("websocket").unwrap_or(0);
    usize::try_from(all).expect("there are not so many")
}

/// Whether a process may have mounts of its own here.
async fn may_mount() -> bool {
    let mut command = tokio::process::Command::new("unshare");
    command.args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
    command.output().await.is_ok_and(|output| output.status.success())
}

/// A front as the schedule wants it.
fn set_up(schedule: &Schedule, setup: Setup) -> Setup {
    let mut setup = quick(setup).flag("--drain-timeout", "8s");
    if schedule.order == Order::StopFirst {
        setup = setup.flag("--takeover-order", "stop-first").flag("--hold-timeout", "60s");
    }
    if let Some(fault) = schedule.fronts_fault {
        setup = setup.environment(FAULT_VARIABLE, fault.to_string());
    }
    match schedule.standby {
        Standby::None => setup,
        Standby::Waits => setup.switch("--standby"),
    }
}

/// Its state lies on a disk of its own, which is gone with the last process that sees it.
fn on_a_small_disk(setup: Setup) -> Setup {
    let script = format!(
        "mkdir -p \"$HOLDFAST_STATE_DIR\" && \
         mount -t tmpfs -o mode=700,size={SMALL} none \"$HOLDFAST_STATE_DIR\" && exec \"$@\""
    );
    setup.wrapped_in(&["unshare", "--mount", "sh", "-c", &script, "sh"])
}
