//! `holdfast check`: what `run` would say to the same words, without holding any port.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use humantime::format_duration;

use super::run::Run;
use super::{Control, Failed, say};

/// Say whether `run` could be started with these words, and what clients would notice of it.
///
/// Nothing is started and no port is taken, so it can be asked beside a front that runs.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    run: Run,
}

/// Something that works, and that clients may notice.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Warning {
    #[error(
        "with one instance at a time clients may wait for {} in a takeover: the old program has {} to stop \
         (--drain-timeout) and the new one {} to be ready (--ready-timeout), and after {} they are turned away \
         (--hold-timeout). Shorten the first two to what the program needs",
        format_duration(*.stop + *.ready), format_duration(*.stop), format_duration(*.ready), format_duration(*.hold)
    )]
    LongHold { stop: Duration, ready: Duration, hold: Duration },
}

impl Check {
    pub(super) fn perform(&self, control: &Control) -> Result<ExitCode, Failed> {
        self.run.check(control)?;
        for warning in self.run.warnings() {
            say(&format!("warning: {warning}"));
        }
        say("holdfast run can be started with this");
        Ok(ExitCode::SUCCESS)
    }
}
