//! `holdfast prove`: has clients at work while the worker is replaced, and says what they lost.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use handoff::{Address, limits};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Control, Failed, configuration, duration, say, spoken, status};
use crate::control::client::{self, AskFailed};
use crate::control::document::Status;
use crate::prove::private::PrivateFront;
use crate::prove::report::Verdict;
use crate::prove::{self, Plan, Progress, Target};

/// Prove that nobody loses anything: clients at work, takeovers meanwhile, and a verdict.
///
/// Clients that never retry ask the running front for what its worker speaks: on new connections, on connections that they
/// keep, in streams, and over WebSockets by OpenClaw's protocol. What was not answered is counted by how. The running front
/// is really taken over, so it is asked first; with --private, or when none runs, a front of its own is started in a
/// directory for temporary files, on a free port. No model is asked but the built-in echo.
///
/// Exit code 0 when nothing was lost, 1 when something was or a takeover was not made. An interrupt ends it early, with the
/// verdict on what has come by then.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  holdfast prove --private\n  holdfast prove --yes --takeovers 3 --rate 50\n  holdfast prove --private --path / -- my-server"
)]
pub(super) struct Prove {
    /// How many takeovers to make, one after the other
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    takeovers: u32,
    /// How many HTTP connections to have at work
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// How many WebSockets to have at work, where the worker speaks OpenClaw's protocol
    #[arg(long = "ws", value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    websockets: u32,
    /// How many requests a second to make, all clients together
    #[arg(long, value_name = "N", default_value_t = 400)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long it may take. What is not done by then is left
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = limit)]
    limit: Duration,
    /// Ask for this path by plain GETs, and for nothing else: for programs that speak only HTTP
    // The control socket's path is a flag of all commands, and has that name.
    #[arg(long = "path", value_name = "PATH", value_parser = path)]
    plain: Option<String>,
    /// The file with the gateway's token [default: $HOLDFAST_TOKEN, $OPENCLAW_GATEWAY_TOKEN, or the file `token` in the
    /// state directory]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Start a front of its own, and leave the running one alone
    #[arg(long)]
    private: bool,
    /// Do not ask before the running front is taken over
    #[arg(long, conflicts_with = "private")]
    yes: bool,
    /// Print one JSON document instead of a page
    #[arg(long)]
    json: bool,
    /// The worker of a front of its own [default: the bundled holdfast-worker]; the same as --private
    #[arg(last = true, value_name = "WORKER ARGS", conflicts_with = "yes")]
    worker: Vec<String>,
}

fn path(word: &str) -> Result<String, String> {
    let good = word.starts_with('/') && word.chars().all(|c| c.is_ascii_graphic());
    if good {
        Ok(word.to_owned())
    } else {
        Err("write a path from its slash on, as /healthz".to_owned())
    }
}

fn limit(word: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(24 * 3600);
    match duration(word)? {
        Duration::ZERO => Err("nothing can be proved in no time".to_owned()),
        limit if limit > MOST => Err("at most 24h".to_owned()),
        limit => Ok(limit),
    }
}

/// Which front it is done to.
enum Stage {
    Running(Box<Status>),
    Private(PrivateFront),
}

impl Prove {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let token_file = self.token_file.as_deref().map(read_token).transpose()?;
        let plan = self.plan();
        let limits = limits::raise_descriptor_limit().map_err(|source| Failed::Runtime {
            doing: "could not raise the limit of descriptors",
            source,
        })?;
        check_room(prove::descriptors(&plan), limits.current, "this command")?;
        let stage = self.stage(control, &plan).await?;
        let mut interrupts = Interrupts::listen()?;
        let target = match &stage {
            Stage::Running(status) => Target {
                control: control.path()?,
                address: address_of(status)?,
                token: token_file
                    .or_else(token_of_environment)
                    .or_else(|| token_beside(&control.path().ok()?)),
            },
            Stage::Private(front) => Target {
                control: front.control(),
                address: address_of(&client::status(&front.control()).await?)?,
                token: token_file.or_else(|| token_in(&front.state())),
            },
        };
        let bar = progress_bar(plan.takeovers);
        let tell = |progress: Progress| {
            bar.set_position(progress.takeovers.into());
            bar.set_message(format!("{} answered, {} not", progress.answered, progress.missed));
        };
        let outcome = prove::prove(&plan, &target, async || interrupts.next().await, tell).await;
        bar.finish_and_clear();
        let report = match outcome {
            Ok(report) => report,
            Err(not_proved) => {
                stage.end(Verdict::Held).await;
                return Err(Failed::Runtime {
                    doing: "could not prove anything",
                    source: std::io::Error::other(not_proved),
                });
            }
        };
        let (verdict, private) = (report.verdict(), matches!(stage, Stage::Private(_)));
        say(&if self.json { report.document(private).to_string() } else { report.page() });
        stage.end(verdict).await;
        Ok(match verdict {
            Verdict::Held => ExitCode::SUCCESS,
            Verdict::Failed => ExitCode::FAILURE,
        })
    }

    fn plan(&self) -> Plan {
        Plan {
            takeovers: self.takeovers,
            connections: self.connections,
            websockets: self.websockets,
            rate: self.rate,
            limit: self.limit,
            path: self.plain.clone(),
        }
    }

    /// The front that it is done to, once whoever runs it has agreed.
    async fn stage(&self, control: &Control, plan: &Plan) -> Result<Stage, Failed> {
        let wanted = self.private || !self.worker.is_empty();
        let running = if wanted { None } else { running(control).await? };
        let Some(status) = running else {
            if !wanted {
                let path = control.path()?;
                explain(&format!(
                    "no front answers on {}: this proves one of its own, as --private does",
                    path.display()
                ));
            }
            let worker = match self.worker.split_first() {
                None => "the bundled holdfast-worker".to_owned(),
                Some((program, _)) => program.clone(),
            };
            explain(&format!("a front of its own, on a free port, with {worker}"));
            let front = PrivateFront::start(&self.worker).await.map_err(configuration)?;
            return Ok(Stage::Private(front));
        };
        if let Some(limits) = status.front.limits {
            let held = status.generations.iter().filter_map(|generation| generation.connections);
            let held: u64 = held.map(|connections| connections.total()).sum();
            check_room(prove::descriptors(plan) + held, limits.descriptors, "the worker")?;
        }
        self.agree(&status, plan)?;
        Ok(Stage::Running(status))
    }

    /// Says what is about to happen to the running front, and asks.
    fn agree(&self, status: &Status, plan: &Plan) -> Result<(), Failed> {
        let others: u64 = status
            .generations
            .iter()
            .filter_map(|generation| generation.connections)
            .map(|connections| connections.total())
            .sum();
        let latest = spoken(handoff::message::millis(prove::latest_end(plan)));
        let times = match plan.takeovers {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        explain(&format!(
            "the front with pid {} is taken over {times}, and its worker started anew each time; it has {others} connections now",
            status.front.pid
        ));
        explain(&format!(
            "meanwhile {} HTTP connections and up to {} WebSockets make {} requests a second at most, for {latest} at most",
            plan.connections, plan.websockets, plan.rate
        ));
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            let meant = "nobody can be asked whether the running front may be taken over: say so with --yes, or leave it \
                         alone with --private, as in holdfast prove --private";
            return Err(Failed::Usage { meant: meant.to_owned() });
        }
        let mut terminal = std::io::stderr();
        // Who cannot read the question does not agree either.
        let _ = write!(terminal, "go on? [y/N] ").and_then(|()| terminal.flush());
        let mut answer = String::new();
        let heard = std::io::stdin().read_line(&mut answer).is_ok();
        if heard && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
            return Ok(());
        }
        Err(Failed::Refused { reason: "nothing was done".to_owned() })
    }
}

impl Stage {
    /// Ends the front that was started for this. What one has written that failed is kept.
    async fn end(self, verdict: Verdict) {
        let Self::Private(mut front) = self else { return };
        if verdict == Verdict::Failed {
            explain(&format!(
                "what the front and its workers said is in {}",
                front.keep_log().display()
            ));
        }
        front.end().await;
    }
}

/// The status of the running front; `None` when there is none.
async fn running(control: &Control) -> Result<Option<Box<Status>>, Failed> {
    match status::ask(control).await {
        Ok(status) => Ok(Some(Box::new(status))),
        Err(Failed::Ask { source: AskFailed::NoFront { .. } }) => Ok(None),
        Err(failed) => Err(failed),
    }
}

/// Where the front is reached from this machine: over TCP if it listens there.
fn address_of(status: &Status) -> Result<Address, Failed> {
    let known = status.listeners.iter().filter_map(|listener| listener.address.parse().ok());
    let mut known: Vec<Address> = known.collect();
    known.sort_by_key(|address| matches!(address, Address::Unix(_)));
    let none = || Failed::Refused { reason: "the front listens nowhere".to_owned() };
    let mut address = known.into_iter().next().ok_or_else(none)?;
    if let Address::Tcp(address) = &mut address
        && address.ip().is_unspecified()
    {
        let local = if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(local);
    }
    Ok(address)
}

fn check_room(needed: u64, limit: u64, whose: &str) -> Result<(), Failed> {
    if needed <= limit {
        return Ok(());
    }
    let meant = format!(
        "so many connections need {needed} descriptors, and {whose} may have {limit} (ulimit -n): ask for fewer, as in \
         holdfast prove --connections 50 --ws 50"
    );
    Err(Failed::Usage { meant })
}

fn read_token(path: &Path) -> Result<String, Failed> {
    let meant = |reason: String| Failed::Usage {
        meant: format!("could not use {}: {reason}", path.display()),
    };
    let text = std::fs::read_to_string(path).map_err(|error| meant(error.to_string()))?;
    match text.trim() {
        "" => Err(meant("it is empty".to_owned())),
        token => Ok(token.to_owned()),
    }
}

fn token_of_environment() -> Option<String> {
    ["HOLDFAST_TOKEN", "OPENCLAW_GATEWAY_TOKEN"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|token| !token.is_empty())
}

/// The token that a worker has generated for itself beside the front's control socket, or where the state is said to be.
fn token_beside(control: &Path) -> Option<String> {
    let named = std::env::var_os("HOLDFAST_STATE_DIR").filter(|path| !path.is_empty());
    let state =
        named.map_or_else(|| control.parent().map(Path::to_owned), |path| Some(path.into()));
    token_in(&state?)
}

fn token_in(state: &Path) -> Option<String> {
    read_token(&state.join("token")).ok()
}

/// For people, also when what is printed is for programs.
fn explain(line: &str) {
    // Who cannot read it has the exit code.
    let _ = writeln!(std::io::stderr(), "holdfast: {line}");
}

/// On a terminal alone.
fn progress_bar(takeovers: u32) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} takeovers · {msg} · {elapsed}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(takeovers.into()), target).with_style(style)
}

/// What ends it before its time.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> Result<Self, Failed> {
        let listen = |kind| {
            signal(kind)
                .map_err(|source| Failed::Runtime { doing: "could not listen for signals", source })
        };
        let (interrupt, terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate })
    }

    /// Ends with the next one. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_with_its_slash_and_is_one_word() {
        assert_eq!(path("/x?y=1"), Ok("/x?y=1".to_owned()));
        for wrong in ["x", "", "/a b", "/ä", "http://x/"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_some_time_and_at_most_a_day() {
        assert_eq!(limit("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["0s", "25h", "90"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }
}
