//! `holdfast takeover`: replaces the worker and tells how that goes.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use handoff::message::{Connections, GenerationId, OldestWork};

use super::{CUT, Control, Failed, absolute, say, spoken};
use crate::control::client::Conversation;
use crate::control::protocol::{Answer, Command, Outcome, TakeoverRequest};
use crate::program::parse_environment;

/// Replace the worker without losing a connection that waits or a request that runs.
///
/// Waits until the new worker is trusted and the old one has finished. A new worker that is not
/// ready in time, or fails while it is watched, is killed and the old one serves on: that is exit
/// code 1, with the reason. What the old one has not finished by the drain timeout is cut: that is
/// exit code 3, with how much.
#[derive(Debug, Args)]
#[command(visible_aliases = ["restart", "reload"])]
pub(super) struct Takeover {
    /// Run this program from now on, with the arguments of the present one
    #[arg(long = "program", value_name = "PATH", conflicts_with = "command")]
    program: Option<PathBuf>,
    /// Add the variables of this file to the workers' environment from now on, NAME=value a line
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Wait until the takeover is over; this is the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the front has heard
    #[arg(long)]
    no_wait: bool,
    /// Print each phase as a line of JSON
    #[arg(long)]
    json: bool,
    /// Run this program with these arguments from now on
    #[arg(last = true, value_name = "PROGRAM ARGS")]
    command: Vec<String>,
}

impl Takeover {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let request = self.request()?;
        let path = control.path()?;
        let mut front = Conversation::begin(&path, Command::Takeover(request)).await?;
        let (mut followed, mut let_go) = (None, false);
        let mut teller = Teller { json: self.json, live: std::io::stdout().is_terminal() };
        loop {
            let Some(answer) = front.next().await? else {
                if self.no_wait {
                    return Ok(ExitCode::SUCCESS);
                }
                let Some(takeover) = followed.filter(|_| !let_go) else {
                    let reason = "the front went away before the takeover was over".to_owned();
                    return Err(Failed::Refused { reason });
                };
                // A front that became another image lets go of its callers, and of nothing else.
                front = Conversation::begin(&path, Command::Follow { takeover }).await?;
                let_go = true;
                continue;
            };
            match answer {
                // Told already.
                Answer::Requested { .. } if let_go => {
                    let_go = false;
                    continue;
                }
                Answer::Requested { takeover } => followed = Some(takeover),
                _ => {}
            }
            teller.tell(&answer);
            match answer {
                Answer::Done { outcome: Outcome::RolledBack, reason, .. } => {
                    let reason = reason.unwrap_or_default();
                    return Err(Failed::Refused { reason: format!("rolled back: {reason}") });
                }
                Answer::Done { cut: 0, .. } => return Ok(ExitCode::SUCCESS),
                Answer::Done { .. } => return Ok(ExitCode::from(CUT)),
                _ => {}
            }
        }
    }

    fn request(&self) -> Result<TakeoverRequest, Failed> {
        let (program, arguments) = match (self.command.split_first(), &self.program) {
            (Some((program, arguments)), _) => {
                (Some(absolute(Path::new(program))?), Some(arguments.to_vec()))
            }
            (None, Some(program)) => (Some(absolute(program)?), None),
            (None, None) => (None, None),
        };
        let environment = self.env_file.as_deref().map(read_environment).transpose()?;
        Ok(TakeoverRequest { wait: !self.no_wait, program, arguments, environment })
    }
}

fn read_environment(path: &Path) -> Result<Vec<(String, String)>, Failed> {
    let meant = |reason: String| Failed::Usage {
        meant: format!("could not use {}: {reason}", path.display()),
    };
    let text = std::fs::read_to_string(path).map_err(|error| meant(error.to_string()))?;
    parse_environment(&text).map_err(|error| meant(error.to_string()))
}

/// Tells the takeover's story on stdout.
struct Teller {
    json: bool,
    /// Whether a line may be written over by the next.
    live: bool,
}

impl Teller {
    fn tell(&mut self, answer: &Answer) {
        if self.json {
            if let Ok(line) = serde_json::to_string(answer) {
                say(&line);
            }
            return;
        }
        if let Answer::Draining { generation, connections, in_flight, oldest } = answer {
            if self.live {
                let line = draining(*generation, *connections, *in_flight, oldest.as_ref());
                over(&line);
            }
            return;
        }
        let Some(line) = spoken_answer(answer) else { return };
        if self.live {
            over("");
        }
        say(&line);
    }
}

/// Writes over the line before. A terminal that is gone needs no line.
fn over(line: &str) {
    let mut terminal = std::io::stdout();
    let _ = write!(terminal, "\r\x1b[K{line}").and_then(|()| terminal.flush());
}

fn spoken_answer(answer: &Answer) -> Option<String> {
    Some(match answer {
        Answer::Waiting { r#for, within_ms } => {
            format!("waiting for {for} to drain, at most {}", spoken(*within_ms), r#for = r#for)
        }
        Answer::Emptying { generation } => format!("{generation} finishes its work first"),
        Answer::Started { successor } => format!("{successor} started"),
        Answer::Ready { successor, elapsed_ms } => {
            format!("{successor} ready after {}", spoken(*elapsed_ms))
        }
        Answer::Accepting { successor, elapsed_ms } => {
            format!("{successor} accepting after {}", spoken(*elapsed_ms))
        }
        Answer::Switched { successor, elapsed_ms } => {
            format!("switched to {successor} after {}", spoken(*elapsed_ms))
        }
        Answer::Committed { successor, elapsed_ms, .. } => {
            format!("{successor} committed after {}", spoken(*elapsed_ms))
        }
        // The reason follows on stderr.
        Answer::RolledBack { lost, .. } if lost.total() > 0 => {
            format!("rolled back: {} connections had moved, and were lost", lost.total())
        }
        Answer::Held { elapsed_ms, turned_away: 0 } => {
            format!("newcomers waited {} at most", spoken(*elapsed_ms))
        }
        Answer::Held { elapsed_ms, turned_away } => format!(
            "nobody accepted for {}: {turned_away} newcomers waited too long, and were closed",
            spoken(*elapsed_ms)
        ),
        Answer::Drained { generation, moved, sessions, finished, closed, cut, .. } => format!(
            "{generation} drained: moved {} · finished {} · closed {} · cut {}{}",
            moved.total(),
            finished.total(),
            closed.total(),
            cut.total(),
            sessions_moved(*sessions)
        ),
        _ => return None,
    })
}

/// Of most workers nobody wants to know that they have none.
pub(super) fn sessions_moved(sessions: u64) -> String {
    if sessions == 0 { String::new() } else { format!(" · sessions {sessions}") }
}

fn draining(
    generation: GenerationId,
    connections: Connections,
    in_flight: u64,
    oldest: Option<&OldestWork>,
) -> String {
    let mut line = format!(
        "{generation} draining: {} HTTP and {} WebSocket connections, {in_flight} in flight",
        connections.http, connections.websocket
    );
    if let Some(oldest) = oldest {
        line.push_str(&format!("; waits for {} ({})", oldest.what, spoken(oldest.age_ms)));
    }
    line
}
