//! What is true of a front after every step, and in the midst of each.
//!
//! | invariant of the design | looked at |
//! | --- | --- |
//! | the listening socket is the same from the first bind on | in the front and in who serves, after each step |
//! | one generation serves and holds the lease; at most two are admitted or draining | after each step, and all the time |
//! | nothing is left behind: no descriptor in the front, no process below it | after each step |
//! | nobody panics | in the log, after each step |

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_tests::rig::{Front, Process, Status, eventually, listening_inodes};

use super::stage::Stage;

/// How often a front is looked at in the midst of a step: each look is a process.
const GLANCE: Duration = Duration::from_millis(250);

/// What a front was when it started.
#[derive(Debug)]
pub(super) struct Baseline {
    front: Process,
    inodes: Vec<u64>,
    descriptors: usize,
}

impl Baseline {
    /// Of a front that serves and that nobody speaks to.
    pub(super) async fn of(stage: &Stage) -> Self {
        let (front, status) = (&stage.front, stage.settles().await);
        let mut least = usize::MAX;
        // The connection of the last command may take a moment to go.
        for _ in 0..5 {
            least = least.min(front.process().descriptors().len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { front: front.process(), inodes: status.inodes(), descriptors: least }
    }

    /// Of a front that came after this one: the sockets are the same.
    pub(super) fn of_the_same_sockets(self, next: Self) -> Self {
        assert_eq!(self.inodes, next.inodes, "another front has other sockets");
        next
    }

    /// Ends never: looks again and again.
    pub(super) async fn holds_all_the_time(&self, front: &Front) {
        loop {
            // One that stands still does not answer, and one that has died cannot.
            if let Some(status) = front.try_status().await {
                self.holds_of(&status);
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn holds_of(&self, status: &Status) {
        assert!(status.admitted_or_draining() <= 2, "too many are admitted: {status:?}");
        let leases = status.generations.iter().filter(|g| g.lease).count();
        assert!(leases <= 1, "{leases} hold the lease: {status:?}");
        assert_eq!(status.inodes(), self.inodes, "another socket listens: {status:?}");
    }

    /// Ends once everything is as it should be between two steps.
    pub(super) async fn holds_at_rest(&self, stage: &Stage) {
        let (front, status) = (&stage.front, stage.settles().await);
        self.holds_of(&status);
        assert!(!self.front.is_gone(), "the front has gone");
        assert_eq!(front.process(), self.front, "another process is the front");
        let serving = status.serving().expect("it is settled");
        assert!(serving.lease, "who serves has no lease: {status:?}");
        let worker = serving.worker().expect("who serves is there");
        for process in [self.front, worker] {
            for inode in &self.inodes {
                let socket = format!("socket:[{inode}]");
                let has_it = process.descriptors().iter().any(|d| d.target == socket);
                assert!(has_it, "{process:?} does not have {socket}");
            }
        }
        let standby = status.standby().and_then(|standby| standby.worker());
        self.nothing_is_left([worker].into_iter().chain(standby).collect()).await;
        let (panics, meant) = (front.log().lines_with("panicked at"), panics_meant(front));
        assert_eq!(panics, meant, "somebody panicked");
    }

    async fn nothing_is_left(&self, workers: BTreeSet<Process>) {
        eventually("nobody but the workers is below the front", async || {
            let below: BTreeSet<Process> = self.front.descendants().into_iter().collect();
            (below == workers).then_some(())
        })
        .await;
        let base = self.descriptors;
        let _shown = ShownOnFailure(self.front);
        eventually(&format!("the front has no more than {base} descriptors"), async || {
            (self.front.descriptors().len() <= base).then_some(())
        })
        .await;
    }

    /// The kernel's own list: once per schedule, for it is long while many connections come and go.
    pub(super) fn holds_in_the_kernel(&self, front: &Front) {
        assert_eq!(listening_inodes(front.tcp()), self.inodes);
    }
}

/// Shows what a process has open when its test fails.
struct ShownOnFailure(Process);

impl Drop for ShownOnFailure {
    #[expect(clippy::print_stderr, reason = "the test harness shows stderr of a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .descriptors()
                .iter()
                .for_each(|open| eprintln!("{} {}", open.number, open.target));
        }
    }
}

/// How often an image of the front was made to panic.
fn panics_meant(front: &Front) -> usize {
    let text = front.log().text();
    let meant = |line: &&str| line.starts_with("fault met: ") && line.contains(" Panic in ");
    text.lines().filter(meant).count()
}
