//! `holdfast top`: the front on a screen.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Control, Failed, duration};
use crate::top::{self, TopFailed};

/// The shortest and the longest time between two looks.
const LIMITS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(1);

/// Watch generations, drains, takeovers and events on a screen, and take over or pause with a key.
///
/// t takes over after a question, p pauses (for 60 s at most) and resumes, q quits. It needs a terminal of 70 × 16. A
/// front that goes away is waited for.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// How often to look, 100ms to 1m
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = interval)]
    interval: Duration,
}

fn interval(word: &str) -> Result<Duration, String> {
    let interval = duration(word)?;
    if LIMITS.contains(&interval) {
        Ok(interval)
    } else {
        Err("write 100ms to 1m, as in `holdfast top --interval 1s`".to_owned())
    }
}

impl Top {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            let meant = "top draws on a terminal, and this is none; for programs there is \
                 `holdfast status --json --watch`";
            return Err(Failed::Usage { meant: meant.to_owned() });
        }
        top::run(control.path()?, self.interval).await.map_err(|failed| match failed {
            TopFailed::Front { source } => source.into(),
            TopFailed::Terminal { source } => {
                Failed::Runtime { doing: "could not use the terminal", source }
            }
        })
    }
}
