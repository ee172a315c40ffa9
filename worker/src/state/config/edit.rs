//! Changing the configuration's file, among others who do.
//!
//! **Invariants**
//! - It is read and written under one lock, by whichever process: no edit is lost.
//! - What could not be read back is never written.
//! - What the edit leads to is there before the file leads to it.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::current::Snapshot;
use super::environment::Environment;
use super::file::{LARGEST, ReadFailed, hash, read};
use super::findings::{Finding, first};
use super::rewrite::{anew, rewrite};
use super::settled::{understand, understand_parsed};
use crate::state::durable;

/// How long others may hold the file's lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an edit was made for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base<'a> {
    /// For whatever the file says.
    Any,
    /// For the text of this hash, if the client named one.
    Named(Option<&'a str>),
}

/// Why the file is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditFailed<E: std::error::Error + 'static> {
    /// Somebody else was writing all the time, or nobody can.
    #[error("could not lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("could not read the configuration")]
    Read {
        /// Why.
        source: ReadFailed,
    },
    /// The client did not say what it had read.
    #[error("config base hash required; re-run config.get and retry")]
    BaseRequired,
    /// The client had read something else.
    #[error("config changed since it was read; re-run config.get and retry")]
    BaseChanged,
    /// The file is not in a state to be edited.
    #[error("the config has errors; correct it by hand first: {}", first(findings))]
    AlreadyInvalid {
        /// What is wrong with it.
        findings: Vec<Finding>,
    },
    /// The edit itself is refused.
    #[error("invalid edit")]
    Refused {
        /// Why.
        source: E,
    },
    /// What would come out could not be used.
    #[error("invalid config: {}", first(findings))]
    WouldBeInvalid {
        /// What would be wrong with it.
        findings: Vec<Finding>,
    },
    /// What would come out is too long.
    #[error("the config would be longer than {LARGEST} bytes")]
    TooLarge,
    /// It could not be written.
    #[error("could not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What came of an edit.
#[derive(Debug)]
pub(crate) struct Edited {
    /// Whether anything was written: an edit that changes nothing writes nothing.
    pub(crate) written: Written,
    /// The file's hash now.
    pub(crate) hash: String,
    /// What the file says now, if it was written.
    pub(crate) after: Option<Snapshot>,
}

/// Whether anything was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was.
    Yes,
    /// There was nothing to write.
    No,
}

/// How a file is changed.
#[derive(Debug)]
pub(crate) struct Edit<'a, C, R> {
    /// What the client had read.
    pub(crate) base: Base<'a>,
    /// What the file said when it was read last: if it still says that, it need not be understood again.
    pub(crate) known: Option<&'a Snapshot>,
    /// What is to become of what it says.
    pub(crate) change: C,
    /// Waits for what the changed file leads to. It is asked once the file could be put in place.
    pub(crate) ready: R,
}

/// Changes the file, under its lock. It blocks.
///
/// # Errors
/// [`EditFailed`]; the file is then as it was.
pub(crate) fn edit<E: std::error::Error + 'static>(
    path: &Path,
    environment: &Environment,
    edit: Edit<'_, impl FnOnce(&Value) -> Result<Value, E>, impl FnOnce() -> Result<(), E>>,
) -> Result<Edited, EditFailed<E>> {
    let Edit { base, known, change, ready } = edit;
    let _lock = durable::lock(path, PATIENCE)
        .map_err(|source| EditFailed::Lock { path: path.to_owned(), source })?;
    let text = read(path).map_err(|source| EditFailed::Read { source })?;
    // Of a file that is not there nothing can have been read.
    if let (Some(text), Base::Named(named)) = (&text, base) {
        let named = named.ok_or(EditFailed::BaseRequired)?;
        if named != hash(Some(text)) {
            return Err(EditFailed::BaseChanged);
        }
    }
    let before = match known.filter(|known| known.text.as_deref() == text.as_deref()) {
        Some(known) => Cow::Borrowed(&known.parsed),
        None => understand(text.as_deref().unwrap_or("{}"), environment)
            .map(|understood| Cow::Owned(understood.parsed))
            .map_err(|findings| EditFailed::AlreadyInvalid { findings })?,
    };
    let target = change(&before).map_err(|source| EditFailed::Refused { source })?;
    if target == *before {
        ready().map_err(|source| EditFailed::Refused { source })?;
        let hash = hash(text.as_deref());
        return Ok(Edited { written: Written::No, hash, after: None });
    }
    let edited = text.and_then(|text| rewrite(&text, &before, &target));
    let (rewritten, understood) = match edited {
        // It was read back already.
        Some(rewritten) if rewritten.len() as u64 <= LARGEST => {
            let understood = understand_parsed(&rewritten, target, environment);
            (rewritten, understood)
        }
        Some(_) => return Err(EditFailed::TooLarge),
        None => {
            let rewritten = anew(&target);
            if rewritten.len() as u64 > LARGEST {
                return Err(EditFailed::TooLarge);
            }
            let understood = understand(&rewritten, environment);
            (rewritten, understood)
        }
    };
    let understood = understood.map_err(|findings| EditFailed::WouldBeInvalid { findings })?;
    let failed = |source| EditFailed::Write { path: path.to_owned(), source };
    let beside = durable::beside(path, rewritten.as_bytes()).map_err(failed)?;
    ready().map_err(|source| EditFailed::Refused { source })?;
    beside.put_in_place().map_err(failed)?;
    let snapshot = Snapshot::understood(rewritten, understood);
    Ok(Edited { written: Written::Yes, hash: snapshot.hash.clone(), after: Some(snapshot) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::patch::patched;
    use super::super::roster::{AgentChange, with_agent};
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    /// An edit for which there is nothing to wait.
    fn edit<E: std::error::Error + 'static>(
        path: &Path,
        environment: &Environment,
        base: Base<'_>,
        change: impl FnOnce(&Value) -> Result<Value, E>,
    ) -> Result<Edited, EditFailed<E>> {
        super::edit(path, environment, Edit { base, known: None, change, ready: || Ok(()) })
    }

    fn patch(path: &Path, base: Base<'_>, raw: &str) -> Result<Edited, String> {
        edit(path, &Environment::default(), base, |document| patched(document, raw))
            .map_err(|failed| handoff::chain(&failed).to_string())
    }

    #[test]
    fn a_patch_is_for_the_text_that_the_client_has_read() {
        let text = "{ui: {a: 1}} // ours\n";
        let (_dir, path) = file(text);
        let refused = patch(&path, Base::Named(None), "{}").unwrap_err();
        assert_eq!(refused, "config base hash required; re-run config.get and retry");
        let refused = patch(&path, Base::Named(Some("ab")), "{}").unwrap_err();
        assert!(refused.starts_with("config changed"), "{refused}");
        let base = hash(Some(text));
        let edited = patch(&path, Base::Named(Some(&base)), "{ui: {a: 2}}").unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, "{ui: {a: 2}} // ours\n");
        assert_eq!(edited.hash, hash(Some(&written)));
        let refused = patch(&path, Base::Named(Some(&base)), "{ui: {a: 3}}").unwrap_err();
        assert!(refused.starts_with("config changed"), "{refused}");
    }

    #[test]
    fn an_edit_that_changes_nothing_writes_nothing() {
        let (_dir, path) = file("{ui: 1}");
        let modified = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let before = modified();
        assert_eq!(patch(&path, Base::Any, "{ui: 1}").unwrap().written, Written::No);
        assert_eq!(modified(), before);
    }

    #[test]
    fn a_file_is_made_when_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/openclaw.json");
        patch(&path, Base::Named(None), "{ui: {a: 1}}").unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), json!({"ui": {"a": 1}}));
    }

    #[test]
    fn what_could_not_be_used_is_not_written() {
        let (_dir, path) = file("{ui: 1}");
        let refused = patch(&path, Base::Any, "{gateway: {port: 'x'}}").unwrap_err();
        assert!(refused.starts_with("invalid config: gateway.port"), "{refused}");
        let refused = patch(&path, Base::Any, "[]").unwrap_err();
        assert_eq!(refused, "invalid edit: raw must be an object");
        let long = format!("{{ui: '{}'}}", "x".repeat(5_000_000));
        assert!(patch(&path, Base::Any, &long).unwrap_err().contains("longer"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ui: 1}");
        std::fs::write(&path, "{gateway: {port: 'x'}}").unwrap();
        let refused = patch(&path, Base::Any, "{gateway: {port: 1}}").unwrap_err();
        assert!(refused.contains("by hand first: gateway.port"), "{refused}");
    }

    #[test]
    fn references_to_variables_stay_references() {
        let (_dir, path) = file("{gateway: {auth: {token: '${T}'}}}");
        let environment = Environment::of([("T", "secret")]);
        edit(&path, &environment, Base::Any, |document| patched(document, "{ui: 1}")).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.contains("'${T}'") && !written.contains("secret"), "{written}");
    }

    #[test]
    fn what_is_known_counts_as_long_as_the_file_says_it() {
        let (_dir, path) = file("{ui: 1}");
        let environment = Environment::default();
        let known = Snapshot::read(&path, &environment).unwrap();
        let added = |raw: &'static str| {
            let change = |document: &Value| patched(document, raw);
            let edit = Edit { base: Base::Any, known: Some(&known), change, ready: || Ok(()) };
            super::edit(&path, &environment, edit).unwrap()
        };
        let after = added("{cron: {store: 'a'}}").after.unwrap();
        let read = Snapshot::read(&path, &environment).unwrap();
        assert_eq!((after.text, after.hash, after.parsed), (read.text, read.hash, read.parsed));
        assert_eq!(after.settled.value(), read.settled.value());
        // By now it says more than is known.
        added("{meta: {lastTouchedVersion: '1'}}");
        let parsed = Snapshot::read(&path, &environment).unwrap().parsed;
        let all = json!({"ui": 1, "cron": {"store": "a"}, "meta": {"lastTouchedVersion": "1"}});
        assert_eq!(parsed, all);
    }

    #[test]
    fn the_file_leads_to_nothing_that_could_not_be_made() {
        let (_dir, path) = file("{ui: 1}");
        let edit = Edit {
            base: Base::Any,
            known: None,
            change: |document: &Value| Ok(patched(document, "{ui: 2}").unwrap()),
            ready: || {
                assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ui: 1}");
                Err(io::Error::other("no room"))
            },
        };
        let refused = super::edit(&path, &Environment::default(), edit).unwrap_err();
        assert!(matches!(refused, EditFailed::Refused { .. }), "{refused:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ui: 1}");
    }

    #[test]
    fn agents_that_are_added_at_once_are_all_there() {
        let (_dir, path) = file("{}");
        std::thread::scope(|scope| {
            for id in ["a", "b", "c", "d"] {
                let path = &path;
                scope.spawn(move || {
                    let change = AgentChange::default();
                    edit(path, &Environment::default(), Base::Any, |document| {
                        with_agent(document, id, &change)
                    })
                    .unwrap();
                });
            }
        });
        let understood =
            understand(&read(&path).unwrap().unwrap(), &Environment::default()).unwrap();
        assert_eq!(understood.settled.config().agents.list.len(), 5);
    }
}
