//! The task that looks at the configuration's file whenever something stirs around it.
//!
//! ```text
//! inotify on its directories ─► stirred ─► 200 ms of quiet, at most 2 s ─► look
//!                  a look every 30 s, or every 2 s where nothing can be watched ──┘
//! ```
//!
//! **Invariants**
//! - Directories are watched, not the file: editors rename over it, Kubernetes swaps a link before it.
//! - They are watched before the file is read: no change falls between.
//! - However busy a directory is, the file is looked at, and no more than a few times a second.
//!
//! Network file systems tell nothing of what other machines write; there, and where the kernel's limit of watches
//! is reached, the regular look finds the change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

/// How long nothing may stir before the file is read: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(200);
/// How long stirring may put the reading off.
const LONGEST_SETTLE: Duration = Duration::from_secs(2);
/// How often the file is looked at although nothing stirs.
const LOOK: Duration = Duration::from_secs(30);
/// How often when nothing would be seen to stir.
const BLIND_LOOK: Duration = Duration::from_secs(2);
/// How many links a file may be behind.
const MOST_LINKS: usize = 8;

/// Has `look` look at the file, at once and whenever something stirs. It may block.
pub(crate) async fn follow(path: PathBuf, look: impl Fn() + Send + Sync + 'static) {
    let look = Arc::new(look);
    let stirred = Arc::new(Notify::new());
    let mut eyes = Eyes::new(&stirred);
    loop {
        let sight = eyes.open_on(&path);
        let looking = Arc::clone(&look);
        // Otherwise the runtime is going down, or looking panicked and said so: once is no reason to go blind.
        let _ = tokio::task::spawn_blocking(move || looking()).await;
        let pause = match sight {
            Sight::Clear => LOOK,
            Sight::Blind => BLIND_LOOK,
        };
        tokio::select! {
            () = settled(&stirred) => {}
            () = sleep(pause) => {}
        }
    }
}

/// Waits until something has stirred and is quiet again.
async fn settled(stirred: &Notify) {
    stirred.notified().await;
    let latest = Instant::now() + LONGEST_SETTLE;
    loop {
        let quiet_at = (Instant::now() + SETTLE).min(latest);
        if timeout_at(quiet_at, stirred.notified()).await.is_err() || Instant::now() >= latest {
            return;
        }
    }
}

/// Whether a change would be seen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// It would.
    Clear,
    /// It would not.
    Blind,
}

/// What sees that something stirs.
struct Eyes {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Eyes {
    fn new(stirred: &Arc<Notify>) -> Self {
        let stirred = Arc::clone(stirred);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading is no change, and we read. An error may hide a change.
            if !matches!(event, Ok(Event { kind: EventKind::Access(_), .. })) {
                stirred.notify_one();
            }
        });
        if let Err(error) = &watcher {
            warn!(
                error = error as &dyn std::error::Error,
                "the configuration is looked at every 2 s"
            );
        }
        Self { watcher: watcher.ok(), watched: BTreeSet::new() }
    }

    /// Watches where `path` leads through now.
    fn open_on(&mut self, path: &Path) -> Sight {
        let Some(watcher) = &mut self.watcher else { return Sight::Blind };
        let wanted = directories(path);
        for left in self.watched.difference(&wanted) {
            // One that is gone is not watched any more by itself.
            let _ = watcher.unwatch(left);
        }
        let mut sight = Sight::Clear;
        self.watched.clear();
        for directory in wanted {
            // Again, also those that were watched: there may be another directory of that name.
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => _ = self.watched.insert(directory),
                Err(error) => {
                    debug!(path = %directory.display(), error = &error as &dyn std::error::Error, "not watched");
                    sight = Sight::Blind;
                }
            }
        }
        sight
    }
}

/// The directories in which a link or the file itself can be replaced.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    let mut here = path.to_owned();
    for _ in 0..=MOST_LINKS {
        let parent = here.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new(".")).to_owned();
        let target = std::fs::read_link(&here).ok().map(|target| parent.join(target));
        directories.insert(parent);
        match target {
            Some(target) => here = target,
            None => break,
        }
    }
    // Where it all ends, past links among the directories.
    if let Ok(end) = std::fs::canonicalize(path)
        && let Some(parent) = end.parent()
    {
        directories.insert(parent.to_owned());
    }
    directories
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::super::current::{CurrentConfig, Reloaded};
    use super::super::environment::Environment;
    use super::*;

    struct Followed {
        dir: tempfile::TempDir,
        events: mpsc::Receiver<Reloaded>,
    }

    impl Followed {
        /// Follows `name` in a directory that `lay` has laid out.
        fn start(name: &str, lay: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            lay(dir.path());
            let path = dir.path().join(name);
            let current = CurrentConfig::open(path.clone(), Environment::default()).unwrap();
            let (sender, events) = mpsc::channel(4);
            let current = Mutex::new(current);
            let look = move || match current.lock().unwrap().reload() {
                Reloaded::Unchanged => {}
                // It fails only when the test is over.
                reloaded => _ = sender.blocking_send(reloaded),
            };
            tokio::spawn(follow(path, look));
            Self { dir, events }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.at(name), text).unwrap();
        }

        async fn event(&mut self) -> String {
            let patience = Duration::from_secs(30);
            match tokio::time::timeout(patience, self.events.recv()).await.unwrap().unwrap() {
                Reloaded::Unchanged => panic!("that is no event"),
                Reloaded::Changed(plan) => plan.to_string(),
                Reloaded::Refused(unusable) => {
                    unusable.to_string().replace(&format!("{}/", self.dir.path().display()), "")
                }
            }
        }
    }

    fn off(port: u16) -> String {
        format!("{{gateway: {{port: {port}}}}}")
    }

    #[tokio::test]
    async fn a_file_that_is_written_to_is_read_once() {
        let mut followed = Followed::start("openclaw.json", |dir| {
            std::fs::write(dir.join("openclaw.json"), "{}").unwrap();
        });
        for port in 1..20 {
            followed.write("openclaw.json", &off(port));
        }
        assert_eq!(followed.event().await, "takeover(gateway.port)");
        followed.write("openclaw.json", "{cron: {enabled: false}, gateway: {port: 19}}");
        assert_eq!(
            followed.event().await,
            "hot(cron.enabled)",
            "of the first write nothing is left"
        );
    }

    #[tokio::test]
    async fn a_file_that_is_renamed_over_is_seen() {
        let mut followed = Followed::start("openclaw.json", |dir| {
            std::fs::write(dir.join("openclaw.json"), "{}").unwrap();
        });
        for port in [1, 2] {
            followed.write(".openclaw.json.swp", &off(port));
            std::fs::rename(followed.at(".openclaw.json.swp"), followed.at("openclaw.json"))
                .unwrap();
            assert_eq!(followed.event().await, "takeover(gateway.port)");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_deleted_and_comes_back_is_seen() {
        let mut followed = Followed::start("openclaw.json", |dir| {
            std::fs::write(dir.join("openclaw.json"), "{}").unwrap();
        });
        std::fs::remove_file(followed.at("openclaw.json")).unwrap();
        assert_eq!(followed.event().await, "openclaw.json is gone");
        followed.write("openclaw.json", "{");
        assert!(followed.event().await.starts_with("openclaw.json"));
        followed.write("openclaw.json", &off(1));
        assert_eq!(followed.event().await, "takeover(gateway.port)");
    }

    #[tokio::test]
    async fn a_file_whose_directory_comes_later_is_seen() {
        let mut followed = Followed::start("sub/openclaw.json", |_| {});
        std::fs::create_dir(followed.at("sub")).unwrap();
        followed.write("sub/openclaw.json", &off(1));
        assert_eq!(followed.event().await, "takeover(gateway.port)");
        std::fs::remove_dir_all(followed.at("sub")).unwrap();
        assert_eq!(followed.event().await, "sub/openclaw.json is gone");
    }

    #[tokio::test]
    async fn a_mounted_config_map_is_seen_when_its_data_is_swapped() {
        // openclaw.json → ..data/openclaw.json, ..data → ..1, as kubelet lays it out.
        let mut followed = Followed::start("openclaw.json", |dir| {
            std::fs::create_dir(dir.join("..1")).unwrap();
            std::fs::write(dir.join("..1/openclaw.json"), "{}").unwrap();
            symlink("..1", dir.join("..data")).unwrap();
            symlink("..data/openclaw.json", dir.join("openclaw.json")).unwrap();
        });
        for generation in 2..4 {
            let data = format!("..{generation}");
            std::fs::create_dir(followed.at(&data)).unwrap();
            followed.write(&format!("{data}/openclaw.json"), &off(generation));
            symlink(&data, followed.at("..data_tmp")).unwrap();
            std::fs::rename(followed.at("..data_tmp"), followed.at("..data")).unwrap();
            std::fs::remove_dir_all(followed.at(&format!("..{}", generation - 1))).unwrap();
            assert_eq!(followed.event().await, "takeover(gateway.port)");
        }
    }

    #[tokio::test]
    async fn a_link_into_another_directory_is_followed() {
        let mut followed = Followed::start("here/openclaw.json", |dir| {
            for name in ["here", "there"] {
                std::fs::create_dir(dir.join(name)).unwrap();
            }
            std::fs::write(dir.join("there/real.json"), "{}").unwrap();
            symlink("../there/real.json", dir.join("here/openclaw.json")).unwrap();
        });
        followed.write("there/real.json", &off(1));
        assert_eq!(followed.event().await, "takeover(gateway.port)");
    }
}
