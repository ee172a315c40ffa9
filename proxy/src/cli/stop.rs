//! `holdfast stop`: ends the front and everything below it.

use std::process::ExitCode;

use clap::Args;

use super::{Control, Failed};
use crate::control::client::Conversation;
use crate::control::protocol::Command;

/// Stop the front: workers finish what is open within the stop timeout, then everything ends.
///
/// Returns when the front is gone.
#[derive(Debug, Args)]
pub(super) struct Stop {
    /// End everything at once, whatever is open
    #[arg(long)]
    now: bool,
}

impl Stop {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let command = Command::Stop { now: self.now };
        let mut front = Conversation::begin(&control.path()?, command).await?;
        while front.next().await?.is_some() {}
        Ok(ExitCode::SUCCESS)
    }
}
