//! `holdfast-worker`: an OpenClaw-compatible gateway that a front can replace while it serves.
//!
//! A connection's way through the house: `lifecycle` accepts it, `serve::connection` owns it,
//! `serve::http` answers it, and `serve::websocket` takes it over after an upgrade. Imports run one
//! way: lifecycle → serve → methods → agents → state.

mod agents;
mod args;
mod arrivals;
mod attendance;
mod call;
mod census;
mod check;
mod configuration;
mod cron;
mod frames;
#[cfg(test)]
mod fuzzed;
mod greeting;
mod identity;
mod letters;
mod lifecycle;
mod log_ring;
mod methods;
mod metrics;
mod neighbourhood;
mod plugins;
mod proc_stat;
mod refusal;
mod registry;
mod serve;
mod shape;
mod state;
mod timetable;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::check::Verdict;
use crate::state::config::Environment;

/// The command line could not be understood (sysexits.h, `EX_USAGE`).
const USAGE: u8 = 64;
/// The configuration cannot be used (sysexits.h, `EX_CONFIG`).
const CONFIG: u8 = 78;

fn main() -> ExitCode {
    handoff::signals::unblock_all();
    let mut args = match Args::try_parse() {
        Ok(args) => args,
        Err(refused) => {
            // Nobody is left to tell when neither stream can be written.
            let _ = refused.print();
            return ExitCode::from(if refused.use_stderr() { USAGE } else { 0 });
        }
    };
    match args.command.take() {
        Some(Command::Check(asked)) => {
            let mut out = std::io::stdout().lock();
            match check::check(asked, args.config, &Environment::inherited(), &mut out) {
                Ok(Verdict::Usable) => ExitCode::SUCCESS,
                Ok(Verdict::Unusable) => ExitCode::from(CONFIG),
                // Nobody is left to tell.
                Err(_) => ExitCode::FAILURE,
            }
        }
        Some(Command::Call(asked)) => match call::call(asked, args.config, args.state_dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failed) => {
                call::say(&failed);
                ExitCode::from(failed.exit_code())
            }
        },
        None => match lifecycle::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failed) => {
                tracing::error!(reason = %handoff::chain(&failed), "this worker cannot serve");
                ExitCode::from(failed.exit_code())
            }
        },
    }
}
