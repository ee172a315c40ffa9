//! Children that others have started and this worker goes on with: the front reaps them, and says how they ended.
//!
//! **Invariants**
//! - A word is for the child that is expected here under its number when it comes, and for no other.
//! - Nobody waits long for it: a front of an earlier version never says it, nor does one say it while the generation lives that
//!   started the child, and reaps it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handoff::OrphanEnded;
use tokio::sync::watch;

use super::child::Status;

/// How long after a child's end its status may come.
const PATIENCE: Duration = Duration::from_millis(250);

/// The orphans of a worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Orphans(Arc<Mutex<Expected>>);

#[derive(Debug, Default)]
struct Expected {
    told: HashMap<i32, (u64, watch::Sender<Status>)>,
    next: u64,
}

/// One of them. Dropped, it is expected no more.
#[derive(Debug)]
pub(super) struct Orphan {
    pid: i32,
    number: u64,
    told: watch::Receiver<Status>,
    orphans: Orphans,
}

impl Orphans {
    /// The end of this process is not missed from now on.
    pub(super) fn expect(&self, pid: i32) -> Orphan {
        let (tells, told) = watch::channel(Status::Unknown);
        let mut expected = self.expected();
        expected.next += 1;
        let number = expected.next;
        expected.told.insert(pid, (number, tells));
        Orphan { pid, number, told, orphans: self.clone() }
    }

    /// The front says how a process has ended.
    pub(super) fn ended(&self, ended: OrphanEnded) {
        let status = match (ended.code, ended.signal) {
            (Some(code), _) => Status::Exited(code),
            (None, Some(signal)) => Status::Killed(signal),
            (None, None) => return,
        };
        if let Some((_, tells)) = self.expected().told.remove(&ended.pid) {
            tells.send_replace(status);
        }
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orphan {
    /// How it has ended, as far as anybody says so. To be asked when it has.
    pub(super) async fn status(&mut self) -> Status {
        let is_told = self.told.wait_for(|status| *status != Status::Unknown);
        match tokio::time::timeout(PATIENCE, is_told).await {
            Ok(Ok(status)) => *status,
            Ok(Err(_)) | Err(_) => Status::Unknown,
        }
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let mut expected = self.orphans.expected();
        // By now the number may be that of another one.
        if expected.told.get(&self.pid).is_some_and(|(number, _)| *number == self.number) {
            expected.told.remove(&self.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(pid: i32, code: Option<i32>, signal: Option<i32>) -> OrphanEnded {
        OrphanEnded { pid, code, signal }
    }

    #[tokio::test]
    async fn the_one_that_is_expected_hears_how_it_ended() {
        let orphans = Orphans::default();
        orphans.ended(ended(1, Some(1), None));
        let (mut first, mut second) = (orphans.expect(1), orphans.expect(2));
        orphans.ended(ended(1, Some(3), None));
        orphans.ended(ended(2, None, Some(9)));
        orphans.ended(ended(2, Some(0), None));
        assert_eq!(first.status().await, Status::Exited(3));
        assert_eq!(second.status().await, Status::Killed(9));
    }

    #[tokio::test]
    async fn one_of_whom_nobody_says_anything_has_ended_somehow() {
        let orphans = Orphans::default();
        let mut first = orphans.expect(1);
        let mut again = orphans.expect(1);
        assert_eq!(first.status().await, Status::Unknown);
        drop(first);
        orphans.ended(ended(1, Some(3), None));
        assert_eq!(again.status().await, Status::Exited(3));
        drop(again);
        assert!(orphans.expected().told.is_empty());
    }
}
