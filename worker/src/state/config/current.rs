//! The configuration that holds, and noticing that its file says something else.
//!
//! ```text
//! open ─► holds ── reload ─► the same file, or the same words ─► Unchanged
//!           ▲                other words that can be used     ─► Changed(plan), and they hold
//!           └─ still holds ◄─ words that cannot be used, or no file any more: Refused, once
//! ```
//!
//! **Invariants**
//! - What holds could be used when it was read; a bad file never takes its place.
//! - A file is not read while its size, times and inode are those it was read with.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::environment::Environment;
use super::file::{ReadFailed, hash, read};
use super::findings::{Finding, Severity, first};
use super::settled::{Settled, Understood, understand};
use crate::state::reload::{ReloadPlan, diff};

/// Within this time of a write, another one may leave the same times behind.
const CLOCK_GRAIN: Duration = Duration::from_secs(1);

/// A configuration that holds, whole.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The file's text; `None` when there is no file.
    pub(crate) text: Option<Arc<str>>,
    /// What clients know the text by.
    pub(crate) hash: String,
    /// What it says, references and all.
    pub(crate) parsed: Value,
    /// What holds because of it.
    pub(crate) settled: Settled,
    /// What its author should know.
    pub(crate) warnings: Vec<Finding>,
}

impl Snapshot {
    /// What the file says now, for whoever cannot wait until it has settled.
    ///
    /// # Errors
    /// [`ConfigUnusable`].
    pub(crate) fn read(path: &Path, environment: &Environment) -> Result<Self, ConfigUnusable> {
        let text = read(path).map_err(|source| ConfigUnusable::Read { source })?;
        Self::of(text, path, environment)
    }

    fn of(
        text: Option<String>,
        path: &Path,
        environment: &Environment,
    ) -> Result<Self, ConfigUnusable> {
        let hash = hash(text.as_deref());
        let Some(text) = text else {
            let (parsed, settled) = (json!({}), Settled::defaults(environment));
            return Ok(Self { text: None, hash, parsed, settled, warnings: Vec::new() });
        };
        let Understood { parsed, settled, warnings } = understand(&text, environment)
            .map_err(|findings| ConfigUnusable::Invalid { path: path.to_owned(), findings })?;
        Ok(Self { text: Some(text.into()), hash, parsed, settled, warnings })
    }

    /// A text of which it is known what it says.
    pub(super) fn understood(text: String, understood: Understood) -> Self {
        let Understood { parsed, settled, warnings } = understood;
        Self { hash: hash(Some(&text)), text: Some(text.into()), parsed, settled, warnings }
    }
}

/// Why a file does not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigUnusable {
    /// It cannot be read.
    #[error("could not read the configuration")]
    Read {
        /// Why.
        source: ReadFailed,
    },
    /// It says something that cannot be used.
    #[error("{}{}: {}", path.display(), place(findings), first(findings))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        findings: Vec<Finding>,
    },
    /// It was there, and is no more.
    #[error("{} is gone", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
}

fn place(findings: &[Finding]) -> String {
    let error = findings.iter().find(|finding| finding.severity == Severity::Error);
    error
        .and_then(|error| error.position)
        .map_or_else(String::new, |position| format!(":{}:{}", position.line, position.column))
}

/// What came of looking again.
#[derive(Debug)]
pub(crate) enum Reloaded {
    /// What holds still does, or what was refused still is.
    Unchanged,
    /// Other words hold.
    Changed(ReloadPlan),
    /// Other words came and do not hold.
    Refused(ConfigUnusable),
}

/// The file, as it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// It was not there.
    Nothing,
    /// It said what this is the hash of.
    Words(String),
    /// It could not be read.
    Unreadable,
}

/// The configuration that holds, with the file it is from.
#[derive(Debug)]
pub(crate) struct CurrentConfig {
    path: PathBuf,
    environment: Environment,
    holds: Arc<Snapshot>,
    seen: Seen,
    stamp: Option<Stamp>,
}

impl CurrentConfig {
    /// Reads the file; without one the defaults hold.
    ///
    /// # Errors
    /// [`ConfigUnusable`]; the operator has to correct the file.
    pub(crate) fn open(path: PathBuf, environment: Environment) -> Result<Self, ConfigUnusable> {
        let stamp = Stamp::of(&path);
        let holds = Arc::new(Snapshot::read(&path, &environment)?);
        let seen = holds.text.as_ref().map_or(Seen::Nothing, |_| Seen::Words(holds.hash.clone()));
        Ok(Self { path, environment, holds, seen, stamp })
    }

    /// The file, as it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it takes from the environment.
    pub(crate) const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What holds.
    pub(crate) fn holds(&self) -> Arc<Snapshot> {
        Arc::clone(&self.holds)
    }

    /// Looks at the file again. It blocks for as long as reading takes.
    pub(crate) fn reload(&mut self) -> Reloaded {
        self.reload_knowing(None)
    }

    /// The same, when it is known what a text says that the file may have by now.
    pub(crate) fn reload_knowing(&mut self, known: Option<Snapshot>) -> Reloaded {
        let stamp = Stamp::of(&self.path);
        if stamp.is_some() && stamp == self.stamp {
            return Reloaded::Unchanged;
        }
        self.stamp = stamp;
        let (seen, text) = match read(&self.path) {
            Ok(None) => (Seen::Nothing, None),
            Ok(Some(text)) => {
                let known = known.as_ref().filter(|known| known.text.as_deref() == Some(&*text));
                let hash = known.map_or_else(|| hash(Some(&text)), |known| known.hash.clone());
                (Seen::Words(hash), Some(text))
            }
            Err(_) if self.seen == Seen::Unreadable => return Reloaded::Unchanged,
            Err(source) => {
                self.seen = Seen::Unreadable;
                return Reloaded::Refused(ConfigUnusable::Read { source });
            }
        };
        if seen == self.seen {
            return Reloaded::Unchanged;
        }
        self.seen = seen;
        if text.is_none() && self.holds.text.is_some() {
            return Reloaded::Refused(ConfigUnusable::Gone { path: self.path.clone() });
        }
        let read = match known.filter(|known| known.text.as_deref() == text.as_deref()) {
            Some(known) => Ok(known),
            None => Snapshot::of(text, &self.path, &self.environment),
        };
        match read {
            // It came back as it was.
            Ok(snapshot) if snapshot.hash == self.holds.hash => Reloaded::Unchanged,
            Ok(snapshot) => {
                let plan = diff(&self.holds.settled, &snapshot.settled);
                self.holds = Arc::new(snapshot);
                Reloaded::Changed(plan)
            }
            Err(unusable) => Reloaded::Refused(unusable),
        }
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified_at: (i64, i64),
    changed_at: (i64, i64),
}

impl Stamp {
    /// That of the file behind `path`; `None` when it would not tell, and the file has to be read.
    fn of(path: &Path) -> Option<Self> {
        Self::of_metadata(&std::fs::metadata(path).ok()?).ok().flatten()
    }

    fn of_metadata(metadata: &Metadata) -> io::Result<Option<Self>> {
        let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
        Ok((age > CLOCK_GRAIN).then(|| Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified_at: (metadata.mtime(), metadata.mtime_nsec()),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;

    use super::*;

    struct Rig {
        dir: tempfile::TempDir,
        current: CurrentConfig,
    }

    impl Rig {
        fn of(text: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("openclaw.json");
            std::fs::write(&path, text).unwrap();
            let current = CurrentConfig::open(path, Environment::default()).unwrap();
            Self { dir, current }
        }

        fn write(&self, text: &str) {
            std::fs::write(self.current.path(), text).unwrap();
        }

        fn reload(&mut self) -> String {
            match self.current.reload() {
                Reloaded::Unchanged => "unchanged".to_owned(),
                Reloaded::Changed(plan) => plan.to_string(),
                Reloaded::Refused(unusable) => {
                    let said = handoff::chain(&unusable).to_string();
                    said.replace(&format!("{}/", self.dir.path().display()), "")
                }
            }
        }
    }

    #[test]
    fn other_words_hold_and_say_what_they_ask_for() {
        let mut rig = Rig::of("{}");
        assert_eq!(rig.reload(), "unchanged");
        rig.write("{cron: {enabled: false}}");
        assert_eq!(rig.reload(), "hot(cron.enabled)");
        assert!(!rig.current.holds().settled.config().cron.enabled);
        rig.write("{cron: {enabled: false}, /* c */}");
        assert_eq!(rig.reload(), "nothing");
        assert_eq!(rig.reload(), "unchanged");
    }

    #[test]
    fn what_the_file_says_counts_whatever_was_written() {
        let mut rig = Rig::of("{}");
        let snapshot = |text: &str| {
            let environment = Environment::default();
            Snapshot::understood(text.to_owned(), understand(text, &environment).unwrap())
        };
        let written = snapshot("{cron: {enabled: false}}");
        rig.write("{cron: {enabled: false}}");
        let reloaded = rig.current.reload_knowing(Some(written.clone()));
        assert!(matches!(reloaded, Reloaded::Changed(_)));
        assert!(!rig.current.holds().settled.config().cron.enabled);
        assert_eq!(rig.reload(), "unchanged");
        // Somebody else has written since.
        rig.write("{cron: {enabled: true}}");
        rig.current.reload_knowing(Some(written));
        assert!(rig.current.holds().settled.config().cron.enabled);
    }

    #[test]
    fn a_bad_file_is_refused_once_and_the_last_good_one_holds() {
        let mut rig = Rig::of("{cron: {enabled: false}}");
        rig.write("{gateway: {port: true}}");
        let refused = rig.reload();
        assert!(refused.starts_with("openclaw.json:1:18: gateway.port: this is"), "{refused}");
        assert_eq!(rig.reload(), "unchanged");
        assert!(!rig.current.holds().settled.config().cron.enabled);
        rig.write("{cron: {enabled: false}}");
        assert_eq!(rig.reload(), "unchanged");
        rig.write("{");
        assert!(rig.reload().starts_with("openclaw.json"));
    }

    #[test]
    fn a_file_that_is_deleted_holds_until_it_is_back() {
        let mut rig = Rig::of("{cron: {enabled: false}}");
        std::fs::remove_file(rig.current.path()).unwrap();
        assert_eq!(rig.reload(), "openclaw.json is gone");
        assert_eq!(rig.reload(), "unchanged");
        rig.write("{}");
        assert_eq!(rig.reload(), "hot(cron.enabled)");
    }

    #[test]
    fn without_a_file_the_defaults_hold_until_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        let current = CurrentConfig::open(path, Environment::default()).unwrap();
        let mut rig = Rig { dir, current };
        assert_eq!(rig.current.holds().text, None);
        assert_eq!(rig.reload(), "unchanged");
        rig.write("{gateway: {port: 1}}");
        assert_eq!(rig.reload(), "takeover(gateway.port)");
    }

    #[test]
    fn a_file_that_was_not_touched_is_not_read() {
        let mut rig = Rig::of("{}");
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        let age = |path: &Path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_times(FileTimes::new().set_modified(long_ago)).unwrap();
        };
        age(rig.current.path());
        assert_eq!(rig.reload(), "unchanged");
        assert_eq!(rig.current.stamp, Stamp::of(rig.current.path()));
        assert!(rig.current.stamp.is_some());
        rig.current.seen = Seen::Unreadable;
        assert_eq!(rig.reload(), "unchanged", "it would have been read");
        assert_eq!(rig.current.seen, Seen::Unreadable);
        // Of the same size and with the same time: the inode's own time tells.
        rig.write("[]");
        age(rig.current.path());
        assert!(rig.reload().contains("this is a list"));
    }
}
