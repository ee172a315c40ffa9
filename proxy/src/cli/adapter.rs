//! `holdfast adapter`: the worker that runs a program which knows nothing of Holdfast.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use super::{Failed, configuration};
use crate::adapter::flags::{Flags, Kind};
use crate::log::Log;

/// Run a program that knows nothing of Holdfast as a worker: what `run --adapter` has the front start.
#[derive(Debug, Args)]
pub(super) struct Adapter {
    /// How clients come to the program
    kind: Kind,
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
        crate::adapter::run(self.kind, &self.flags, &self.program)
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
