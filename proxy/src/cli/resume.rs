//! `holdfast resume`: ends a pause.

use std::process::ExitCode;

use clap::Args;

use super::{Control, Failed};
use crate::control::client::Conversation;
use crate::control::protocol::Command;

/// End a pause: whoever waits in the kernel's queue is served.
///
/// Returns when the worker accepts.
#[derive(Debug, Args)]
pub(super) struct Resume {}

impl Resume {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        Conversation::begin(&control.path()?, Command::Resume).await?.expect().await?;
        Ok(ExitCode::SUCCESS)
    }
}
