//! `holdfast reexec`: the front becomes another binary, in the same process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Control, Failed, absolute, say};
use crate::control::client::Conversation;
use crate::control::protocol::{Answer, Command};

/// Renew the front itself: it becomes a new binary in the same process, and no client can tell.
///
/// The new binary is checked first, with a copy of the front's state. If it does not come up within
/// 5 s, the front goes on as it was: that is exit code 1, with the reason.
#[derive(Debug, Args)]
pub(super) struct Reexec {
    /// Become this binary, from now on [default: the file the front was started from, as it is now]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Print the answer as a line of JSON
    #[arg(long)]
    json: bool,
}

impl Reexec {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let binary = self.binary.as_deref().map(whole).transpose()?;
        let mut front = Conversation::begin(&control.path()?, Command::Reexec { binary }).await?;
        let answer = front.expect().await?;
        if self.json {
            say(&serde_json::to_string(&answer).unwrap_or_default());
        } else if let Answer::Renewed { version, elapsed_us } = &answer {
            let elapsed = Duration::from_micros(*elapsed_us);
            say(&format!("the front is holdfast {version} now; that took {elapsed:.1?}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The path as the front can find it; a bare name is a file here, too.
fn whole(path: &Path) -> Result<String, Failed> {
    absolute(&std::env::current_dir().unwrap_or_default().join(path))
}
