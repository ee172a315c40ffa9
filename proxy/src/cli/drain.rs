//! `holdfast drain --now g7`: cuts a drain short.

use std::process::ExitCode;

use clap::Args;
use handoff::message::GenerationId;

use super::{Control, Failed};
use crate::control::client::ask;
use crate::control::protocol::Command;

/// Bring the deadline of a draining generation to now: what it has not finished is cut.
#[derive(Debug, Args)]
pub(super) struct Drain {
    /// Do not wait any longer; a drain begins by a takeover, so this is the only thing to ask for
    #[arg(long, required = true)]
    now: bool,
    /// The generation that drains, as `holdfast status` names it: g7
    #[arg(value_name = "GENERATION")]
    generation: GenerationId,
}

impl Drain {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let command = Command::Drain { generation: self.generation };
        ask(&control.path()?, command).await?;
        Ok(ExitCode::SUCCESS)
    }
}
