//! `holdfast logs`: the end of what the front's workers write, and what comes, whatever becomes of the file.
//!
//! ```text
//! status ─► --log-file ─────────────────────────────► its end, then what is written
//!        └► none: where does the front's stderr go? ─► a file: the same · else: who has it, and how it is read
//! ```

mod follow;
mod whereabouts;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

pub(super) use self::follow::ReadFailed;
use self::follow::{Followed, Written};
use self::whereabouts::Whereabouts;
use super::{Control, Failed, status};

/// Show what the workers of the running front have written
///
/// That is what `run --log-file` names; without it, the front's own log and its workers' output go to its stderr, and this shows
/// it if that is a file, and otherwise says who has it.
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Go on with what is written from now on, also after the file was rotated
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    lines: usize,
    /// The front's own log instead, which it writes to its stderr
    #[arg(long)]
    front: bool,
}

/// How often the file is looked at.
const GLANCE: Duration = Duration::from_millis(200);

impl Logs {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let front = status::ask(control).await?.front;
        let of_workers = front.log_file.filter(|_| !self.front);
        let place = match of_workers {
            Some(path) => Whereabouts::File(path.into()),
            None => Whereabouts::of_stderr(front.pid),
        };
        match place {
            Whereabouts::File(path) => self.show(&path).await,
            elsewhere => Err(Failed::Refused { reason: elsewhere.to_string() }),
        }
    }

    async fn show(&self, path: &Path) -> Result<ExitCode, Failed> {
        let failed = |source: ReadFailed| Failed::Logs { source };
        let mut output = std::io::stdout();
        let mut followed = Followed::open(path, self.lines).map_err(failed)?;
        if !self.follow {
            followed.finish(&mut output).map_err(failed)?;
            return Ok(ExitCode::SUCCESS);
        }
        loop {
            match followed.go_on(&mut output).map_err(failed)? {
                // The reader has read enough.
                Written::ToNobody => return Ok(ExitCode::SUCCESS),
                Written::All => tokio::time::sleep(GLANCE).await,
            }
        }
    }
}
