//! Who runs an exclusive plugin: one worker at a time, and one process, whatever became of the last one.
//!
//! ```text
//! lease ─► lock of `plugins/.running/ID` ─► end of what a dead holder left behind ─► its process is written down
//! ```
//!
//! **Invariants**
//! - The lock belongs to the worker, whose end frees it. A process that outlives its worker is known by its number
//!   and the moment it was started at, so that nobody else's is killed.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::proc_stat::state_and_start;

/// How often it is looked whether the lock is free.
const LOOK: Duration = Duration::from_millis(20);

/// Why an exclusive plugin cannot run here.
#[derive(Debug, thiserror::Error)]
#[error("could not become its only runner in {folder}")]
pub(super) struct NotExclusive {
    folder: String,
    source: io::Error,
}

/// The right to run one plugin, until this is dropped.
#[derive(Debug)]
pub(super) struct Exclusive {
    file: File,
}

impl Exclusive {
    /// Waits for the right, and ends what a holder that died has left behind. Cancel safe.
    ///
    /// # Errors
    /// [`NotExclusive`].
    pub(super) async fn acquire(folder: &Path, id: &str) -> Result<Self, NotExclusive> {
        let failed = |source| NotExclusive { folder: folder.display().to_string(), source };
        let file = open(folder, id).map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        let mut exclusive = Self { file };
        if let Some((pid, started)) = exclusive.left_behind().map_err(failed)? {
            while started_at(pid) == Some(started) {
                if let Some(group) = Pid::from_raw(pid) {
                    // An error means that it is gone; then the look above says so.
                    let _ = kill_process_group(group, Signal::KILL);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(exclusive)
    }

    /// Writes down which process runs.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn runs(&mut self, pid: i32) -> io::Result<()> {
        let Some(started) = started_at(pid) else { return Ok(()) };
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(format!("{pid} {started}\n").as_bytes())
    }

    fn left_behind(&mut self) -> io::Result<Option<(i32, u64)>> {
        let mut text = String::new();
        self.file.rewind()?;
        (&self.file).take(100).read_to_string(&mut text)?;
        Ok(parse(&text))
    }
}

fn open(folder: &Path, id: &str) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join(id))
}

fn parse(text: &str) -> Option<(i32, u64)> {
    let (pid, started) = text.trim().split_once(' ')?;
    Some((pid.parse().ok().filter(|pid| *pid > 1)?, started.parse().ok()?))
}

/// When a process was started, in ticks after the machine; `None` when it is gone or a zombie.
fn started_at(pid: i32) -> Option<u64> {
    let (state, started) = state_and_start(pid).ok()?;
    (state != 'Z').then_some(started)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[tokio::test]
    async fn the_right_is_one_holders_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = Exclusive::acquire(dir.path(), "a").await.unwrap();
        let mut next = Box::pin(Exclusive::acquire(dir.path(), "a"));
        assert!(futures_util::FutureExt::now_or_never(&mut next).is_none());
        Exclusive::acquire(dir.path(), "b").await.unwrap();
        drop(held);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_dead_holder_left_behind_is_ended_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut orphan =
            std::process::Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let pid = i32::try_from(orphan.id()).unwrap();
        let mut held = Exclusive::acquire(dir.path(), "a").await.unwrap();
        held.runs(pid).unwrap();
        drop(held);
        Exclusive::acquire(dir.path(), "a").await.unwrap();
        assert!(!orphan.wait().unwrap().success());
        assert_eq!(started_at(pid), None);
    }

    #[test]
    fn a_process_is_known_by_when_it_was_started() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(started_at(own).is_some());
        assert_eq!(
            (parse("12 345\n"), parse(""), parse("1 2"), parse("x y")),
            (Some((12, 345)), None, None, None)
        );
    }
}
