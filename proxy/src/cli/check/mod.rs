//! `holdfast check`: what `run` would say to the same words, and what it could not say before it is too late.
//!
//! **Invariants**
//! - Nothing is started, made or held, so it can be asked beside a front that runs: what is that front's own is no hindrance.
//! - Every finding that is not fine says what to do.

mod finding;
mod limits;
mod places;
mod ports;
mod times;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use handoff::{Address, chain};
use serde::Serialize;

use self::finding::{Finding, Grade, Subject};
use super::run::Run;
use super::{CONFIGURATION, Control, Failed, say};
use crate::colour::Colour;
use crate::control::client;
use crate::control::document::Status;
use crate::event::TakeoverOrder;
use crate::program::Program;
use crate::rights::{Rights, RightsRefused};

/// Say whether `run` could be started with these words, and what clients would notice of it.
///
/// Nothing is started and no port is taken, so it can be asked beside a front that runs. One finding a line: ok, warning or
/// error, with what to do. Exits 78 if there is an error.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: Run,
}

/// What `run` was told, as far as it can be looked into.
#[derive(Debug)]
pub(super) struct Asked {
    /// None when workers come by themselves.
    pub(super) program: Option<Program>,
    pub(super) worker: Worker,
    pub(super) rights: Result<Rights, RightsRefused>,
    /// None means the default ones.
    pub(super) listen: Vec<Address>,
    pub(super) shards: u32,
    /// Why the adapter may not be reached there.
    pub(super) exposed: Option<Failed>,
    pub(super) max_connections: Option<u64>,
    pub(super) log_file: Option<PathBuf>,
    pub(super) times: Times,
}

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worker {
    /// It shares a database between its generations.
    Bundled,
    OpenClaw,
    Other,
}

/// The deadlines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) order: TakeoverOrder,
    pub(super) ready: Duration,
    /// When the program is taken to be ready, if that is a matter of time alone.
    pub(super) ready_after: Option<Duration>,
    pub(super) soak: Duration,
    pub(super) drain: Duration,
    pub(super) stop: Duration,
    pub(super) hold: Duration,
}

/// What is printed for programs.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    usable: bool,
    findings: &'a [Finding],
}

/// How long a front that runs may take to say what is its own.
const PATIENCE: Duration = Duration::from_secs(2);

impl Check {
    pub(super) async fn perform(&self, control: &Control) -> Result<ExitCode, Failed> {
        let asked = self.run.asked()?;
        let path = control.path()?;
        let front = match tokio::time::timeout(PATIENCE, client::status(&path)).await {
            Ok(Ok(status)) => Some(status),
            Ok(Err(_)) | Err(_) => None,
        };
        let findings = findings(&asked, &path, front.as_ref());
        let usable = findings.iter().all(|finding| finding.grade != Grade::Error);
        if self.json {
            let document = Document { schema: 1, usable, findings: &findings };
            say(&serde_json::to_string(&document).unwrap_or_default());
        } else {
            let colour = Colour::of_stdout();
            findings.iter().for_each(|finding| say(&finding.line(colour)));
            say(if usable {
                "holdfast run can be started with this"
            } else {
                "holdfast run cannot be started with this"
            });
        }
        Ok(if usable { ExitCode::SUCCESS } else { ExitCode::from(CONFIGURATION) })
    }
}

/// In the order in which `run` would come to them.
fn findings(asked: &Asked, control: &std::path::Path, front: Option<&Status>) -> Vec<Finding> {
    let mut found = vec![program(asked.program.as_ref()), rights(&asked.rights)];
    found.push(places::control(control, front));
    found.extend(ports::of(asked, front));
    found.extend(places::state(super::state_directory().as_deref(), asked));
    found.extend(asked.log_file.as_deref().map(places::log_file));
    found.extend(limits::of(asked.max_connections, limits::Limits::of_this_process()));
    found.extend(times::of(&asked.times, asked.worker));
    found
}

fn program(program: Option<&Program>) -> Finding {
    let Some(program) = program else {
        return Finding::ok(Subject::Program, "none: workers attach themselves (--attach)");
    };
    match program.resolve() {
        Ok(path) => Finding::ok(Subject::Program, path.display().to_string()),
        Err(error) => Finding::error(
            Subject::Program,
            chain(&error).to_string(),
            "name a program that exists and may be executed, after `--`",
        ),
    }
}

fn rights(rights: &Result<Rights, RightsRefused>) -> Finding {
    match rights {
        Ok(rights) => match rights.owner() {
            Some((uid, gid)) => {
                Finding::ok(Subject::Rights, format!("workers run as user {uid}, group {gid}"))
            }
            None => Finding::ok(Subject::Rights, "workers run as the front's user"),
        },
        Err(error) => Finding::error(
            Subject::Rights,
            chain(error).to_string(),
            "start the front as root, or name a user and group that exist",
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::cli::{Cli, Command as Line, help};

    fn asked_by(words: &[&str]) -> Asked {
        let line = [&["holdfast", "check"], words].concat();
        let matches = help::command().try_get_matches_from(line).unwrap();
        match Cli::from_arg_matches(&matches).unwrap().command {
            Line::Check(check) => check.run.asked().unwrap(),
            _ => unreachable!("it is a check"),
        }
    }

    pub(super) fn asked() -> Asked {
        asked_by(&["--listen", "127.0.0.1:0"])
    }

    #[test]
    fn whose_program_it_is_is_known() {
        assert_eq!(asked().worker, Worker::Bundled);
        assert_eq!(asked_by(&["--", "/bin/true"]).worker, Worker::Other);
        let openclaw = asked_by(&["--profile", "openclaw", "--", "openclaw"]);
        assert_eq!(openclaw.worker, Worker::OpenClaw);
    }

    #[test]
    fn a_program_that_is_not_there_and_a_user_that_cannot_be_are_errors() {
        let missing = asked_by(&["--", "/nonexistent/program"]);
        assert_eq!(program(missing.program.as_ref()).grade, Grade::Error);
        assert_eq!(rights(&missing.rights).grade, Grade::Ok);
        let nobody = asked_by(&["--user", "nobody-has-this-name"]);
        assert_eq!(rights(&nobody.rights).grade, Grade::Error);
    }

    #[test]
    fn an_adapter_that_would_make_every_client_local_is_an_error() {
        let words = ["--adapter", "relay", "--listen", "0.0.0.0:0", "--", "/bin/true"];
        let found = ports::of(&asked_by(&words), None);
        assert_eq!(found[0].grade, Grade::Error, "{found:?}");
    }

    #[test]
    fn every_finding_that_is_not_fine_says_what_to_do() {
        let words = ["--listen", "192.0.2.1:1", "--log-file", "/nonexistent/x", "--soak", "0s"];
        let found = findings(&asked_by(&words), std::path::Path::new("/proc/x/control.sock"), None);
        let bad: Vec<_> = found.iter().filter(|finding| finding.grade != Grade::Ok).collect();
        assert!(bad.len() >= 4, "{found:?}");
        assert!(bad.iter().all(|finding| finding.advice.is_some()), "{bad:?}");
    }
}
