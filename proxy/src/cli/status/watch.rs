//! `--watch`: the same again and again, over itself on a terminal.
//!
//! **Invariants**
//! - A front that goes away is waited for; one that never answered is not.
//! - It ends when nobody reads any more.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use handoff::chain;

use super::Form;
use super::table::Page;
use crate::cli::Failed;
use crate::control::client::{self, AskFailed};

/// The shortest and the longest time between two looks.
const LIMITS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(1);

/// Reads `2`, `0.5` and `500ms`.
pub(super) fn interval(word: &str) -> Result<Duration, String> {
    let example = "write how many seconds, from 0.1 to 3600, as in `holdfast status --watch 2`";
    let seconds = word.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .or_else(|| humantime::parse_duration(word).ok())
        .filter(|interval| LIMITS.contains(interval))
        .ok_or_else(|| example.to_owned())
}

/// Shows the front's status until nobody looks.
pub(super) async fn watch(path: &Path, interval: Duration, form: Form) -> Result<ExitCode, Failed> {
    let live = form == Form::Tables && io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut answered, mut told) = (false, false);
    loop {
        ticks.tick().await;
        let shown = match client::status(path).await {
            Ok(status) => {
                (answered, told) = (true, false);
                form.of(&status)?
            }
            Err(failed @ (AskFailed::Unreadable { .. } | AskFailed::Refused { .. })) => {
                return Err(failed.into());
            }
            Err(failed) if !answered => return Err(failed.into()),
            Err(failed) => {
                let reason = format!("{}; still looking", chain(&failed));
                if live {
                    reason
                } else {
                    if !told {
                        // The next look tells as much.
                        let _ = writeln!(io::stderr(), "holdfast: {reason}");
                    }
                    told = true;
                    continue;
                }
            }
        };
        if show(&shown, live.then(Page::of_stdout)).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Prints it; over what was there, on a page.
fn show(text: &str, over: Option<Page>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match over {
        None => writeln!(stdout, "{text}")?,
        Some(page) => {
            // Home, each line to its end, the rest of the page (ECMA-48).
            write!(stdout, "\x1b[H")?;
            for line in text.lines().take(page.lines()) {
                write!(stdout, "{line}\x1b[K\r\n")?;
            }
            write!(stdout, "\x1b[J")?;
        }
    }
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_of_seconds_or_has_a_unit() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        for word in ["0", "-1", "soon", "nan", "inf", "2h", "0.01"] {
            assert!(interval(word).is_err_and(|error| error.contains("--watch 2")), "{word}");
        }
    }
}
