//! The look at a new binary before the front becomes it: it reads a copy of the state, as a process of its own.
//!
//! **Invariants**
//! - Whatever the binary is and does, the front serves on: it is given [`LIMIT`], then it is ended.
//! - A binary that is no front does not pass, however politely it exits.

use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::image::memory_file;
use super::state::State;
use crate::event::Exit;
use crate::spawn;

/// How long a binary may take to read the state.
const LIMIT: Duration = Duration::from_secs(2);
/// How long its exit may take to be heard of, once it has said its last word.
const EXIT_LIMIT: Duration = Duration::from_millis(500);
/// The most it may say.
const LONGEST_ANSWER: u64 = 4096;
/// The word that has a binary look at a state.
pub(crate) const COMMAND: &str = "reexec-check";

/// What a binary says that would go on with the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checked {
    /// Its version, in a field that no other program writes.
    #[serde(rename = "holdfast")]
    pub(crate) version: String,
}

/// Why the front does not become a binary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckFailed {
    #[error("could not be given the state")]
    State { source: io::Error },
    #[error("could not be started")]
    Start { source: io::Error },
    #[error("did not read the state within {LIMIT:?}")]
    TimedOut,
    #[error("does not go on with the state{}", said(.exit.as_ref(), .words))]
    Refused { exit: Option<Exit>, words: String },
    #[error("is no front: it was given the state and said nothing of it")]
    NoFront,
    #[error("could not be looked at, the front is stopping")]
    Abandoned,
    #[error("could not be executed: {reason}")]
    Exec { reason: String },
}

fn said(exit: Option<&Exit>, words: &str) -> String {
    match (exit, words) {
        (None, "") => String::new(),
        (Some(exit), "") => format!(": it {exit}"),
        (_, words) => format!(": it {words}"),
    }
}

/// A binary that is reading a copy of the state.
pub(super) struct Candidate {
    pub(super) pid: Pid,
    answer: OwnedFd,
}

/// Starts `binary` on a copy of the state.
pub(super) fn start(binary: &Path, copy: &[u8]) -> Result<Candidate, CheckFailed> {
    let state = || -> io::Result<_> {
        let mut file = memory_file()?;
        file.write_all(copy)?;
        file.rewind()?;
        let (answer, said) = io::pipe()?;
        Ok((file, answer, said))
    };
    let (file, answer, said) = state().map_err(|source| CheckFailed::State { source })?;
    let mut command = Command::new(binary);
    command.arg(COMMAND).stdin(file).stdout(said).process_group(0).stderr(Stdio::inherit());
    spawn::keep_what_is_the_fronts(&mut command);
    let child = command.spawn().map_err(|source| CheckFailed::Start { source })?;
    // `child` is only a number from here on: reap.rs waits for every child alike.
    Ok(Candidate { pid: Pid::from_raw(child.id().cast_signed()), answer: answer.into() })
}

/// What a binary answers: that it would go on, or why not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Verdict {
    Fine(Checked),
    Refusal { refused: String },
}

impl Candidate {
    /// What comes of it; `exit` is how the front hears of its end.
    pub(super) async fn outcome(
        self,
        exit: oneshot::Receiver<Exit>,
    ) -> Result<Checked, CheckFailed> {
        let Ok(answer) = pipe::Receiver::from_owned_fd(self.answer) else {
            spawn::kill_group(self.pid);
            return Err(CheckFailed::TimedOut);
        };
        let mut text = String::new();
        let mut answer = answer.take(LONGEST_ANSWER);
        let read = timeout(LIMIT, answer.read_to_string(&mut text)).await;
        if read.is_err() {
            spawn::kill_group(self.pid);
            return Err(CheckFailed::TimedOut);
        }
        let exit = timeout(EXIT_LIMIT, exit).await.ok().and_then(Result::ok);
        if exit.is_none() {
            spawn::kill_group(self.pid);
        }
        match serde_json::from_str(&text) {
            Ok(Verdict::Fine(checked)) if exit == Some(Exit::Code(0)) => Ok(checked),
            Ok(Verdict::Fine(_)) => Err(CheckFailed::Refused { exit, words: String::new() }),
            Ok(Verdict::Refusal { refused }) => {
                let words = refused.chars().take(500).collect();
                Err(CheckFailed::Refused { exit, words })
            }
            Err(_) if exit == Some(Exit::Code(0)) => Err(CheckFailed::NoFront),
            Err(_) => Err(CheckFailed::Refused { exit, words: String::new() }),
        }
    }
}

/// The other side: this binary reads the state on stdin, and says on stdout whether it would go on with it.
pub(crate) fn answer() -> io::Result<bool> {
    let stdin = io::stdin();
    let file = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
    let verdict = match State::read(&file.into()) {
        Ok(_) => Verdict::Fine(Checked { version: crate::VERSION.to_owned() }),
        Err(error) => Verdict::Refusal { refused: ::handoff::chain(&error) },
    };
    let mut stdout = io::stdout();
    stdout.write_all(&serde_json::to_vec(&verdict)?)?;
    stdout.flush()?;
    Ok(matches!(verdict, Verdict::Fine(_)))
}
