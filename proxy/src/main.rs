//! `holdfast`: the process that holds the port, and the commands that speak to it.

mod cli;
mod control;
mod event;
#[cfg(test)]
mod explored;
mod front;
mod generation;
mod handoff;
mod listener;
mod program;
mod reap;
mod spawn;
mod status;
mod story;
mod takeover;

use std::process::ExitCode;

/// What `--version` says: the version and the commit it was built from.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("HOLDFAST_COMMIT"), ")");

fn main() -> ExitCode {
    ::handoff::signals::unblock_all();
    cli::run()
}
