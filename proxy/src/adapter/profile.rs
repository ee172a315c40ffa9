//! What is known of certain programs, so that nobody has to find it out.
//!
//! | | openclaw |
//! | --- | --- |
//! | how clients come to it | `node`: a relay would make every client local to it |
//! | readiness | `/readyz` |
//! | drain | SIGUSR1, SIGUSR2 since releases keep the first for Node's debugger: whichever it listens for |
//! | its own restart | is a takeover: asked for by that signal, or by exiting with code 0 |
//!
//! **Invariants**
//! - Nothing here does anything: it is said, and the adapter does it.

use std::ffi::{OsStr, OsString};

use clap::ValueEnum;

/// A program that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// OpenClaw's own gateway
    #[value(name = "openclaw")]
    OpenClaw,
}

/// What exiting with code 0 means of a program that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CleanExit {
    /// Nobody asked it to.
    #[default]
    Crash,
    /// It wants to be started again.
    Restart,
}

/// How a program has to be dealt with: as any other, unless something is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// The signals that have it finish, the better ones first; without any it is `--stop-signal`.
    pub(crate) drain: &'static [&'static str],
    /// The signals by which it has itself started anew, of which the first that it listens for counts.
    pub(crate) restarts: &'static [&'static str],
    pub(crate) clean_exit: CleanExit,
    /// What its environment has to say.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// What its environment has to say unless it says something already.
    pub(crate) defaults: &'static [(&'static str, &'static str)],
}

/// Why a program is not run as it was written down.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--force has the gateway end whoever listens on its port, and that is Holdfast: leave it out"
)]
pub(crate) struct Forced;

/// The gateway. SIGUSR1 comes first: later releases do not listen for it, while libraries of earlier ones listen for
/// SIGUSR2, to clean up before they end the process. SIGTERM, which finishes nothing, comes last.
const OPENCLAW: Manner = Manner {
    drain: &["SIGUSR1", "SIGUSR2", "SIGTERM"],
    restarts: &["SIGUSR1", "SIGUSR2"],
    clean_exit: CleanExit::Restart,
    environment: &[
        // Two generations overlap; with `stop-first` the front sees to it that they do not.
        ("OPENCLAW_ALLOW_MULTI_GATEWAY", "1"),
        // Set, it would start itself anew within its process, with sockets that it has closed.
        ("OPENCLAW_NO_RESPAWN", ""),
        // Set, it would first end whoever else listens on its port: the incumbent.
        ("OPENCLAW_SERVICE_MARKER", ""),
        // Unset, and with a compile cache of Node's own, it would go on in a child without the preload.
        ("OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED", "1"),
    ],
    // Somebody else starts it again: it finishes its work and exits.
    defaults: &[("OPENCLAW_SYSTEMD_UNIT", "holdfast")],
};

impl Profile {
    /// The word for it on the command line.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::OpenClaw => "openclaw",
        }
    }

    /// How it has to be dealt with.
    pub(crate) const fn manner(self) -> Manner {
        match self {
            Self::OpenClaw => OPENCLAW,
        }
    }

    /// The path at which it says whether it is ready.
    pub(crate) const fn ready_path(self) -> &'static str {
        match self {
            Self::OpenClaw => "/readyz",
        }
    }

    /// What is asked of the command line.
    ///
    /// # Errors
    /// [`Forced`].
    pub(crate) fn check(self, command: &[OsString]) -> Result<(), Forced> {
        match self {
            Self::OpenClaw if command.iter().any(|word| word == OsStr::new("--force")) => {
                Err(Forced)
            }
            Self::OpenClaw => Ok(()),
        }
    }
}

impl Manner {
    /// What the program finds in its environment.
    pub(crate) fn variables(&self) -> Vec<(String, OsString)> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(*value));
        let unsaid =
            |(name, _): &&(&str, &str)| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let defaults = self.defaults.iter().filter(unsaid).map(own);
        self.environment.iter().map(own).chain(defaults).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_would_end_the_front_is_refused() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let check = |line: &[&str]| Profile::OpenClaw.check(&words(line));
        assert_eq!(check(&["openclaw", "gateway", "run"]), Ok(()));
        assert_eq!(check(&["openclaw", "gateway", "run", "--force"]), Err(Forced));
    }
}
