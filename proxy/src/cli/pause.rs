//! `holdfast pause`: has nobody accept for a while.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use handoff::message::millis;

use super::{Control, Failed, duration};
use crate::control::client::Conversation;
use crate::control::protocol::Command;
use crate::event::LONGEST_PAUSE_OF_ACCEPTING;

/// Accept no connection for a while: newcomers wait in the kernel's queue, open connections go on.
///
/// Returns when nobody accepts. The pause ends by `holdfast resume`, by itself after the timeout, or when the
/// worker crashes. Asked for again it moves its end. While it lasts takeovers are refused, and `holdfast healthcheck`
/// exits 1.
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// After how long it ends by itself, 1h at most
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = bounded)]
    timeout: Duration,
}

fn bounded(word: &str) -> Result<Duration, String> {
    let timeout = duration(word)?;
    if timeout > LONGEST_PAUSE_OF_ACCEPTING {
        return Err("a pause lasts 1h at most".to_owned());
    }
    Ok(timeout)
}

impl Pause {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let command = Command::Pause { timeout_ms: millis(self.timeout) };
        Conversation::begin(&control.path()?, command).await?.expect().await?;
        Ok(ExitCode::SUCCESS)
    }
}
