//! The command line: one file a command.
//!
//! Exit codes: 0 done · 1 it failed, and stderr says why · 3 a takeover was committed and its drain
//! cut something · 64 the command line is wrong · 78 the configuration cannot be used (sysexits(3)).

mod adapter;
mod admin;
mod attach;
mod check;
mod completions;
mod drain;
mod healthcheck;
mod help;
mod init;
mod logs;
mod man;
mod pause;
mod prove;
mod reexec;
mod resume;
mod run;
mod status;
mod stop;
mod takeover;
mod top;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, FromArgMatches as _, Parser, Subcommand};
use handoff::attach::TURNED_AWAY;
use handoff::chain;

use crate::adapter::AdapterFailed;
use crate::adapter::stage::Stage;
use crate::control::client::AskFailed;
use crate::rights;
use crate::spoken::time as spoken;

/// The exit code of a command line that cannot be understood: EX_USAGE.
const USAGE: u8 = 64;
/// The exit code of a configuration that cannot be used: EX_CONFIG.
const CONFIGURATION: u8 = 78;
/// The exit code of a takeover whose drain cut something.
const CUT: u8 = 3;

/// Holds a port while the gateway behind it is replaced, again and again, and no client can tell.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version = crate::VERSION, propagate_version = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    control: Control,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Check(Box<check::Check>),
    Takeover(takeover::Takeover),
    Drain(drain::Drain),
    Reexec(reexec::Reexec),
    Pause(pause::Pause),
    Resume(resume::Resume),
    Status(status::Status),
    Top(top::Top),
    Stop(stop::Stop),
    Healthcheck(healthcheck::Healthcheck),
    Logs(logs::Logs),
    Init(init::Init),
    Completions(completions::Completions),
    Man(man::Man),
    Prove(Box<prove::Prove>),
    Adapter(Box<adapter::Adapter>),
    Admin(Box<admin::Admin>),
    #[command(hide = true)]
    AdapterStage(Stage),
    /// What a front asks of the binary it is to become.
    #[command(hide = true, name = crate::reexec::check::COMMAND)]
    ReexecCheck,
    #[command(hide = true)]
    WorkerStage(rights::Stage),
}

/// Where the front's control socket is.
#[derive(Debug, Args)]
struct Control {
    /// The front's control socket [default: $HOLDFAST_STATE_DIR/control.sock, or
    /// ~/.holdfast/control.sock]
    #[arg(long = "control", value_name = "PATH", env = "HOLDFAST_CONTROL", global = true)]
    path: Option<PathBuf>,
}

impl Control {
    fn path(&self) -> Result<PathBuf, Failed> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        state_directory()
            .map(|directory| directory.join("control.sock"))
            .ok_or(Failed::NoControlPath)
    }
}

/// Where everything is kept, if anything says so.
fn state_directory() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    named("HOLDFAST_STATE_DIR")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(named("HOME")?).join(".holdfast")))
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("neither HOLDFAST_STATE_DIR nor HOME is set; name the control socket with --control")]
    NoControlPath,
    #[error("could not ask the front")]
    Ask {
        #[source]
        source: AskFailed,
    },
    #[error("{reason}")]
    Refused { reason: String },
    #[error("the configuration cannot be used")]
    Configuration {
        #[source]
        source: Box<dyn std::error::Error>,
    },
    #[error("{doing}")]
    Runtime {
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{meant}")]
    Usage { meant: String },
    #[error("could not show the log")]
    Logs {
        #[source]
        source: logs::ReadFailed,
    },
    #[error(transparent)]
    Adapter { source: AdapterFailed },
}

impl From<AskFailed> for Failed {
    fn from(source: AskFailed) -> Self {
        match source {
            // What the front refuses is its own sentence.
            AskFailed::Refused { reason } => Self::Refused { reason },
            source => Self::Ask { source },
        }
    }
}

impl Failed {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::NoControlPath | Self::Configuration { .. } => CONFIGURATION,
            Self::Usage { .. } | Self::Adapter { source: AdapterFailed::NoFront } => USAGE,
            Self::Adapter { source } if source.may_try_again() => TURNED_AWAY,
            Self::Ask { .. }
            | Self::Refused { .. }
            | Self::Runtime { .. }
            | Self::Logs { .. }
            | Self::Adapter { .. } => 1,
        }
    }
}

/// Reads the command line, does what it says, and tells how that went.
pub(crate) fn run() -> ExitCode {
    let read =
        help::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let mut cli = match read {
        Ok(cli) => cli,
        // With a variable set, clap takes saying nothing for a mistake.
        Err(error) if error.kind() == ErrorKind::MissingSubcommand => {
            let _ = write!(std::io::stderr(), "{}", help::command().render_help());
            return ExitCode::from(USAGE);
        }
        Err(error) => {
            // The printer itself failing means there is nobody to tell.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::from(USAGE),
                _ => {
                    tell_example();
                    ExitCode::from(USAGE)
                }
            };
        }
    };
    match cli.command {
        // A runtime would take the numbers of the descriptors that the program is to have.
        Command::AdapterStage(stage) => return stage.perform(),
        Command::WorkerStage(stage) => return stage.perform(),
        _ => {}
    }
    if let Command::Run(run) = &mut cli.command
        && let Err(failed) = run.inherit()
    {
        return end(&failed);
    }
    let outcome = match crate::runtime::build() {
        Ok(runtime) => runtime.block_on(cli.command.perform(&cli.control)),
        Err(source) => Err(Failed::Runtime { doing: "could not start", source }),
    };
    outcome.unwrap_or_else(|failed| end(&failed))
}

/// Says why nothing came of it.
fn end(failed: &Failed) -> ExitCode {
    // The exit code tells it too.
    let _ = writeln!(std::io::stderr(), "holdfast: {}", chain(failed));
    if failed.exit_code() == USAGE {
        tell_example();
    }
    ExitCode::from(failed.exit_code())
}

/// Shows what could have been meant.
fn tell_example() {
    if let Some(example) = help::example_for(std::env::args_os().skip(1)) {
        let _ = writeln!(std::io::stderr(), "\nFor example: {example}");
    }
}

impl Command {
    async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        match self {
            Self::Run(run) => run.perform(control).await,
            Self::Check(check) => check.perform(control).await,
            Self::Takeover(takeover) => takeover.perform(control).await,
            Self::Drain(drain) => drain.perform(control).await,
            Self::Pause(pause) => pause.perform(control).await,
            Self::Resume(resume) => resume.perform(control).await,
            Self::Status(status) => status.perform(control).await,
            Self::Top(top) => top.perform(control).await,
            Self::Stop(stop) => stop.perform(control).await,
            Self::Logs(logs) => logs.perform(control).await,
            Self::Init(init) => init.perform(),
            Self::Completions(completions) => completions.perform(),
            Self::Man(man) => man.perform(),
            Self::Healthcheck(healthcheck) => healthcheck.perform(control).await,
            Self::Prove(prove) => Box::pin(prove.perform(control)).await,
            // As a task: each time the runtime's own future is woken costs a write to its eventfd.
            Self::Adapter(adapter) => match tokio::task::spawn_local(adapter.perform()).await {
                Ok(outcome) => outcome,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            },
            Self::Admin(admin) => admin.perform(control).await,
            Self::AdapterStage(stage) => Ok(stage.perform()),
            Self::Reexec(reexec) => reexec.perform(control).await,
            Self::ReexecCheck => crate::reexec::check::answer()
                .map(|goes_on| if goes_on { ExitCode::SUCCESS } else { ExitCode::FAILURE })
                .map_err(|source| Failed::Runtime { doing: "could not read a state", source }),
            Self::WorkerStage(stage) => Ok(stage.perform()),
        }
    }
}

/// Writes a line of a command's output. A reader that is gone has read enough.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a whole output of a command.
fn print(text: &[u8]) {
    let mut output = std::io::stdout();
    let _ = output.write_all(text).and_then(|()| output.flush());
}

/// Reads `20ms`, `3s`, `1m 30s`; a unit is always needed.
pub(crate) fn duration(word: &str) -> Result<Duration, String> {
    humantime::parse_duration(word).map_err(|error| format!("{error}; write 20ms, 3s or 1m"))
}

/// The path as the front can find it, whose working directory is another; a bare name is looked up
/// in the front's PATH at each start.
fn absolute(path: &Path) -> Result<String, Failed> {
    let meant = |meant: String| Failed::Usage { meant };
    let found = if path.components().count() == 1 && path.is_relative() {
        path.to_owned()
    } else {
        std::path::absolute(path)
            .map_err(|error| meant(format!("could not use {}: {error}", path.display())))?
    };
    found
        .into_os_string()
        .into_string()
        .map_err(|_| meant(format!("{} is not UTF-8", path.display())))
}

fn configuration(source: impl std::error::Error + 'static) -> Failed {
    Failed::Configuration { source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        help::command().debug_assert();
    }

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert!(duration("20").is_err_and(|error| error.contains("20ms")));
    }
}
