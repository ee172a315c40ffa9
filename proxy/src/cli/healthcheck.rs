//! `holdfast healthcheck`: whether somebody accepts, as an exit code.

use std::process::ExitCode;

use clap::Args;

use super::{Control, Failed, spoken, status};

/// Exit 0 when a worker accepts connections, 1 when none does or no front answers.
#[derive(Debug, Args)]
pub(super) struct Healthcheck {}

impl Healthcheck {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let status = status::ask(control).await?;
        if status.somebody_accepts() {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(paused) = status.paused {
            let left = spoken(paused.remaining_ms);
            let reason = format!("the front is paused, for {left} at most");
            return Err(Failed::Refused { reason });
        }
        let reason = status.last_failure.map_or_else(
            || "no worker accepts".to_owned(),
            |failure| format!("no worker accepts; the last one {}", failure.reason),
        );
        Err(Failed::Refused { reason })
    }
}
