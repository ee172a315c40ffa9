//! `holdfast adapter`: the worker that runs a program which knows nothing of Holdfast.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use handoff::Attach;
use handoff::worker::LINK_VARIABLE;

use super::{Failed, configuration};
use crate::adapter::flags::{Flags, Kind};
use crate::log::Log;

/// Run a program that knows nothing of Holdfast as a worker: what `run --adapter` has the front start, or one that
/// attaches itself to a front.
///
/// Exits with 75 when the front that it attached to turned it away or is not there.
#[derive(Debug, Args)]
pub(super) struct Adapter {
    /// How clients come to the program
    kind: Kind,
    /// Become a worker of the front that listens at this path (`holdfast run --attach PATH`), from another container for
    /// example
    #[arg(long, value_name = "PATH", env = "HOLDFAST_ATTACH")]
    attach: Option<PathBuf>,
    /// The file with the token that such a front may ask for
    #[arg(long, value_name = "PATH", env = "HOLDFAST_ATTACH_TOKEN_FILE")]
    attach_token_file: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    log: Log,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM ARGS")]
    program: Vec<OsString>,
}

impl Adapter {
    pub(super) async fn perform(self) -> Result<ExitCode, Failed> {
        self.flags.check(Some(self.kind)).map_err(|refused| usage(&refused))?;
        self.log.start();
        // A front that has started this process comes first: its environment may name where others attach.
        let started = std::env::var_os(LINK_VARIABLE).is_some();
        let attach = self.attach.filter(|_| !started);
        let attach =
            attach.map(|path| Attach::to(path).with_token_file(self.attach_token_file.clone()));
        crate::adapter::run(self.kind, &self.flags, &self.program, attach)
            .await
            .map_err(|source| Failed::Adapter { source })
    }
}

fn usage(refused: &impl std::error::Error) -> Failed {
    Failed::Usage { meant: refused.to_string() }
}

/// What makes a worker of any program: this binary, told what the operator said.
///
/// # Errors
/// When the flags make no sense, or this binary has no path.
pub(super) fn words(kind: Kind, flags: &Flags, log: &Log) -> Result<Vec<OsString>, Failed> {
    let own = std::env::current_exe().map_err(configuration)?;
    let mut words = vec![own.into(), "adapter".into(), kind.word().into()];
    words.extend(flags.words());
    words.extend(log.words());
    Ok(words)
}

/// Whether the flags are for this adapter, or for none.
///
/// # Errors
/// Why not.
pub(super) fn check(kind: Option<Kind>, flags: &Flags) -> Result<(), Failed> {
    flags.check(kind).map_err(|refused| usage(&refused))
}
