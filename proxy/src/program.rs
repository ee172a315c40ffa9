//! The programs that run as workers: which, with what, and where they are found.
//!
//! **Invariants**
//! - A program's path is resolved anew at each start: a symlink that was turned, or a package that was
//!   upgraded, counts from the next generation on.
//! - Working directory and environment are those of the front's start, plus what the operator added.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::event::ProgramId;

/// The worker that is used when no other program is named; it lies beside the front's own binary.
const BUNDLED: &str = "holdfast-worker";

/// A program with its arguments and what its environment has beyond the front's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// The adapter that runs it and its words, when it is not a worker itself.
    pub(crate) adapter: Vec<OsString>,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

/// The environment may hold secrets, and arguments are shown by `ps` anyway: neither is printed.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.path).finish()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// What of a program a takeover changes.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ProgramChange {
    pub(crate) path: Option<PathBuf>,
    pub(crate) arguments: Option<Vec<OsString>>,
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
}

impl Program {
    /// The worker beside this binary.
    pub(crate) fn bundled() -> io::Result<Self> {
        let path = std::env::current_exe()?.with_file_name(BUNDLED);
        Ok(Self { adapter: Vec::new(), path, arguments: Vec::new(), environment: Vec::new() })
    }

    fn changed(&self, change: ProgramChange) -> Self {
        Self {
            adapter: self.adapter.clone(),
            path: change.path.unwrap_or_else(|| self.path.clone()),
            arguments: change.arguments.unwrap_or_else(|| self.arguments.clone()),
            environment: change.environment.unwrap_or_else(|| self.environment.clone()),
        }
    }

    /// Where the program is now.
    ///
    /// # Errors
    /// [`NotFound`], with what was looked for and where.
    pub(crate) fn resolve(&self) -> Result<PathBuf, NotFound> {
        // A relative path means nothing once the directory it starts from is gone.
        let cwd = std::env::current_dir().map_err(|source| NotFound::Directory { source })?;
        if self.path.components().count() > 1 || self.path.is_absolute() {
            let path = cwd.join(&self.path);
            return match check(&path) {
                Ok(()) => Ok(path),
                Err(source) => Err(NotFound::Program { path, source }),
            };
        }
        let search = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&search)
            .map(|directory| cwd.join(directory).join(&self.path))
            .find(|candidate| check(candidate).is_ok())
            .ok_or_else(|| NotFound::InPath { name: self.path.clone() })
    }
}

/// Why a program could not be started where it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFound {
    #[error("the front's working directory is gone; start the front again from one that stays")]
    Directory { source: io::Error },
    #[error("could not use {}", path.display())]
    Program { path: PathBuf, source: io::Error },
    #[error("{} is in no directory of PATH", name.display())]
    InPath { name: PathBuf },
}

fn check(path: &Path) -> io::Result<()> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not executable"));
    }
    Ok(())
}

/// How many programs are known before those are forgotten that nobody runs or could be started again.
const MOST_IDLE: usize = 16;

/// It has a name only for the log.
static WHATEVER_ATTACHES: LazyLock<Program> = LazyLock::new(|| Program {
    adapter: Vec::new(),
    path: "whatever attaches".into(),
    arguments: Vec::new(),
    environment: Vec::new(),
});

/// Every program this front was told to run, and may still run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Programs {
    known: BTreeMap<ProgramId, Program>,
    next: u32,
}

impl Programs {
    /// The program the front starts with has the id 0.
    pub(crate) fn new(first: Program) -> (Self, ProgramId) {
        (Self { known: BTreeMap::from([(ProgramId(0), first)]), next: 1 }, ProgramId(0))
    }

    /// Of a front that starts none itself.
    pub(crate) const fn none() -> (Self, ProgramId) {
        (Self { known: BTreeMap::new(), next: 0 }, ProgramId::ATTACHED)
    }

    /// The program behind an id.
    pub(crate) fn get(&self, id: ProgramId) -> &Program {
        if id == ProgramId::ATTACHED {
            return &WHATEVER_ATTACHES;
        }
        self.known.get(&id).expect("only what no policy names is forgotten")
    }

    /// Whether an adapter runs them: that is said once, for all of them.
    pub(crate) fn run_by_adapters(&self) -> bool {
        self.known.values().any(|program| !program.adapter.is_empty())
    }

    /// The front's binary is another one now, and with it that of the adapters.
    pub(crate) fn move_adapters(&mut self, from: &Path, to: &Path) {
        for adapter in self.known.values_mut().filter_map(|program| program.adapter.first_mut()) {
            if adapter == from.as_os_str() {
                *adapter = to.into();
            }
        }
    }

    /// The id of `base` as changed; the same program has the same id.
    pub(crate) fn changed(&mut self, base: ProgramId, change: ProgramChange) -> ProgramId {
        let program = self.get(base).changed(change);
        if let Some((id, _)) = self.known.iter().find(|(_, known)| **known == program) {
            return *id;
        }
        let id = ProgramId(self.next);
        self.next = self.next.checked_add(1).expect("each program took an operator's request");
        self.known.insert(id, program);
        id
    }

    /// Forgets what none of these is, so that a front that is given another program every day does not grow.
    pub(crate) fn keep_only(&mut self, named: &BTreeSet<ProgramId>) {
        if self.known.len() > MOST_IDLE {
            self.known.retain(|id, _| named.contains(id));
        }
    }
}

/// Why an environment file was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct NotAnEnvironment {
    line: usize,
    reason: &'static str,
}

/// Reads `NAME=value` lines; blank lines and lines with `#` first are passed over, a value may be
/// quoted whole by `"` or `'`. Nothing is expanded. Errors never repeat a line: it may hold a
/// secret.
pub(crate) fn parse_environment(text: &str) -> Result<Vec<(String, String)>, NotAnEnvironment> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |reason| NotAnEnvironment { line: index + 1, reason };
        let (name, value) = line.split_once('=').ok_or_else(|| fail("write NAME=value"))?;
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let well_named = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !well_named {
            return Err(fail("a name has letters, digits and _ only, and no digit first"));
        }
        let value = value.trim();
        let quoted = |quote: char| {
            value
                .strip_prefix(quote)
                .map(|rest| rest.strip_suffix(quote).ok_or_else(|| fail("the quote is not closed")))
        };
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(Ok(value))?;
        if value.contains('\0') {
            return Err(fail("a value cannot hold a NUL byte"));
        }
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

/// Whether a variable of the front's environment is a promise of the service manager to the front
/// alone, or a word from one image of the front to the next.
pub(crate) fn is_for_the_front_alone(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    name.starts_with("HOLDFAST_RESUME")
        || name.starts_with("HOLDFAST_ATTACH")
        || name == "NOTIFY_SOCKET"
        || name == "FDSTORE"
        || name == crate::admin::flags::TOKEN_VARIABLE
        || name.starts_with("LISTEN_")
        || name.starts_with("WATCHDOG_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_line_by_line() {
        let text =
            "# comment\n\nA=1\nexport B=two words\nC=\"quoted # not a comment\"\nD='x=y'\nE=\n";
        let read = parse_environment(text).unwrap();
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "quoted # not a comment"),
            ("D", "x=y"),
            ("E", ""),
        ];
        assert_eq!(read, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_bad_line_of_an_environment_file_is_named_by_its_number_and_not_repeated() {
        for text in ["A=1\nsecret", "A=1\n1B=secret", "A=1\n=secret", "A=1\nB=\"secret"] {
            let error = parse_environment(text).unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_same_program_has_the_same_id() {
        let program = |path: &str| Program {
            adapter: vec![],
            path: path.into(),
            arguments: vec!["a".into()],
            environment: vec![],
        };
        let (mut programs, first) = Programs::new(program("/a"));
        let change = |path: &str| ProgramChange { path: Some(path.into()), ..Default::default() };
        let second = programs.changed(first, change("/b"));
        assert_eq!(*programs.get(second), program("/b"));
        assert_eq!(programs.changed(first, change("/b")), second);
        assert_eq!(programs.changed(second, change("/a")), first);
        assert_eq!(programs.changed(first, ProgramChange::default()), first);
    }

    #[test]
    fn programs_that_nobody_names_any_more_are_forgotten_and_the_others_keep_their_ids() {
        let path = |number: u32| ProgramChange {
            path: Some(format!("/{number}").into()),
            ..Default::default()
        };
        let first = Program {
            adapter: vec![],
            path: "/first".into(),
            arguments: vec![],
            environment: vec![],
        };
        let (mut programs, id) = Programs::new(first.clone());
        let mut current = id;
        for number in 0..1000 {
            let next = programs.changed(current, path(number));
            // One is asked for while the one before it still drains.
            programs.keep_only(&BTreeSet::from([id, current, next]));
            assert_eq!(*programs.get(next), programs.get(current).changed(path(number)));
            current = next;
        }
        assert!(programs.known.len() <= MOST_IDLE + 1, "{}", programs.known.len());
        assert_eq!(*programs.get(id), first);
    }

    #[test]
    fn what_the_service_manager_told_the_front_stays_with_it() {
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC"]
        {
            assert!(is_for_the_front_alone(OsStr::new(name)), "{name}");
        }
        assert!(!is_for_the_front_alone(OsStr::new("PATH")));
    }
}
