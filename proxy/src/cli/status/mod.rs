//! `holdfast status`: everything the front knows, as tables or as JSON; again and again, or when something is so.

mod table;
mod wait;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::table::Page;
use self::wait::{Awaited, Wait};
use super::{Control, Failed, duration, say};
use crate::control::client;
use crate::control::document::Status as Document;

/// Show the front, its listeners, every generation, and how the last takeover went.
///
/// The document that --json prints is described by deploy/status.schema.json: fields are added to it, and none is
/// taken away.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  holdfast status --watch                              look again every second
  holdfast status --json --watch 5                     a line of JSON every five seconds
  holdfast status --wait serving --timeout 30s         once a worker serves, at the latest after 30 s
  holdfast status --wait committed --after 7           once a takeover after the 7th is committed")]
pub(super) struct Status {
    /// Print a JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Show it again every so many seconds, 1 unless told otherwise
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = watch::interval,
        conflicts_with = "wait"
    )]
    watch: Option<Duration>,
    /// Wait until it is so, and exit 1 if it is not in time: `ready` (a worker accepts), `serving` (one serves, and
    /// fails at nothing), `committed` (the same, and the last takeover is committed), `settled` (the same, and it is
    /// the only one)
    #[arg(long, value_name = "STATE", value_parser = Awaited::read)]
    wait: Option<Awaited>,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration, requires = "wait")]
    timeout: Duration,
    /// Wait for a takeover with a higher number than this, the `last_takeover.number` of before
    #[arg(long, value_name = "NUMBER", requires = "wait")]
    after: Option<u64>,
}

/// The status of the front behind a control socket.
pub(super) async fn ask(control: &Control) -> Result<Document, Failed> {
    Ok(client::status(&control.path()?).await?)
}

impl Status {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let path = control.path()?;
        if let Some(interval) = self.watch {
            return watch::watch(&path, interval, self.form()).await;
        }
        let status = match self.wait {
            Some(awaited) => {
                Wait { awaited, after: self.after }.until_so(&path, self.timeout).await?
            }
            None => client::status(&path).await?,
        };
        say(&self.form().of(&status)?);
        Ok(ExitCode::SUCCESS)
    }

    const fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Tables }
    }
}

/// How a status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Tables,
}

impl Form {
    /// The status, as one line or as many.
    fn of(self, status: &Document) -> Result<String, Failed> {
        match self {
            Self::Tables => Ok(table::drawn(status, Page::of_stdout())),
            Self::Json => serde_json::to_string(status).map_err(|source| Failed::Runtime {
                doing: "could not print",
                source: source.into(),
            }),
        }
    }
}
