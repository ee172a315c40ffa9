//! What a front is given, before it is started.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A program for a worker, with its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    words: Vec<OsString>,
}

impl Program {
    /// The program at this path.
    #[must_use]
    pub fn new(path: impl Into<OsString>) -> Self {
        Self { words: vec![path.into()] }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.words.push(argument.into());
        self
    }

    /// The program and its arguments.
    #[must_use]
    pub fn words(&self) -> &[OsString] {
        &self.words
    }
}

/// A front that is still to be started: what differs from the rig's own choice.
#[derive(Debug, Default)]
pub struct Setup {
    pub(super) listen: Listen,
    pub(super) flags: BTreeMap<String, OsString>,
    pub(super) switches: Vec<String>,
    pub(super) program: Option<Program>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) directory: Option<PathBuf>,
    pub(super) control: Option<PathBuf>,
    pub(super) wrapper: Vec<OsString>,
    pub(super) stdin: Option<std::os::fd::OwnedFd>,
    pub(super) expected: Expected,
}

/// Where a front is told to listen.
#[derive(Clone, Debug, Default)]
pub(super) enum Listen {
    /// On a port that nobody else uses.
    #[default]
    Anywhere,
    /// On these addresses.
    On(Vec<String>),
    /// It is not told.
    Untold,
}

/// When a front counts as started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expected {
    /// A generation serves.
    #[default]
    Serving,
    /// The front answers `status`.
    Bound,
}

impl Setup {
    /// Runs this program instead of the bundled worker.
    #[must_use]
    pub fn worker(mut self, program: Program) -> Self {
        self.program = Some(program);
        self
    }

    /// Listens here instead of on a free port of 127.0.0.1; each call adds an address.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        let mut addresses = match self.listen {
            Listen::On(addresses) => addresses,
            Listen::Anywhere | Listen::Untold => Vec::new(),
        };
        addresses.push(address.into());
        self.listen = Listen::On(addresses);
        self
    }

    /// Does not say where to listen: only for a network of its own, for the default port is one.
    #[must_use]
    pub fn listen_by_default(mut self) -> Self {
        self.listen = Listen::Untold;
        self
    }

    /// Gives `holdfast run` a flag and its value; the last one given counts.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.flags.insert(name.to_owned(), value.as_ref().into());
        self
    }

    /// Gives `holdfast run` a flag that has no value.
    #[must_use]
    pub fn switch(mut self, name: &str) -> Self {
        self.switches.push(name.to_owned());
        self
    }

    /// Sets a variable of the front's otherwise bare environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }

    /// Starts the front in this directory instead of its own.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Puts the control socket here instead of in the front's own directory.
    #[must_use]
    pub fn control(mut self, path: &Path) -> Self {
        self.control = Some(path.to_owned());
        self
    }

    /// Starts the front by another command that ends in executing it.
    #[must_use]
    pub fn wrapped_in(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(Into::into).collect();
        self
    }

    /// Gives the front this descriptor as its stdin instead of `/dev/null`.
    #[must_use]
    pub fn stdin(mut self, descriptor: std::os::fd::OwnedFd) -> Self {
        self.stdin = Some(descriptor);
        self
    }

    /// Takes workers that attach themselves, and starts none itself.
    #[must_use]
    pub fn attachable(self) -> Self {
        self.flag("--attach", super::attached::ATTACH_SOCKET).not_serving()
    }

    /// Does not wait for a generation to serve, only for the front.
    #[must_use]
    pub const fn not_serving(mut self) -> Self {
        self.expected = Expected::Bound;
        self
    }
}
