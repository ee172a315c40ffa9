//! `holdfast`: the process that holds the port, and the commands that speak to it.

mod adapter;
mod admin;
mod adoption;
mod age;
mod asked;
mod attach;
mod attaching;
mod claims;
mod cli;
mod colour;
mod control;
mod crash_loop;
mod event;
#[cfg(test)]
mod explored;
mod failing;
mod followers;
mod front;
#[cfg(test)]
mod fuzzed;
mod generation;
mod handoff;
mod heard;
#[cfg(test)]
mod histories;
mod history;
mod hold;
mod leaving;
mod left;
mod listener;
mod log;
mod memory;
mod oom;
mod orphans;
mod outlet;
mod pause;
mod program;
mod prove;
mod reap;
mod record;
mod recovery;
mod reexec;
mod rescue;
mod resident;
mod rights;
mod runtime;
mod signals;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod sound;
mod spawn;
mod spoken;
mod standby;
mod status;
mod steps;
mod story;
mod systemd;
mod takeover;
mod tally;
mod timer;
mod told;
mod top;
mod turning_away;
mod workers;

use std::process::ExitCode;

/// What `--version` says: the version and the commit it was built from.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("HOLDFAST_COMMIT"), ")");

fn main() -> ExitCode {
    // A front that becomes another image has no command line to read.
    if let Some(exit) = reexec::resume::resume() {
        return exit;
    }
    ::handoff::signals::unblock_all();
    ::handoff::fault::arm();
    cli::run()
}
