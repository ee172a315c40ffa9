//! A takeover as `holdfast takeover --json` tells it.

use std::process::Stdio;
use std::time::Duration;

use handoff::GenerationId;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

use super::patience::{PATIENCE, soon};

/// How long a whole takeover may take: a drain that never ends tells of itself all the time.
const TAKEOVER_DEADLINE: Duration = PATIENCE.saturating_mul(2);

/// A takeover whose end is still to come.
#[derive(Debug)]
pub struct RunningTakeover {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    events: Vec<Value>,
    deadline: Instant,
}

/// A takeover that has ended.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// The exit code of the command.
    pub code: i32,
    /// One object per step.
    pub events: Vec<Value>,
    /// What the command said on stderr.
    pub errors: String,
}

impl RunningTakeover {
    pub(super) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("holdfast can be started");
        let stdout = child.stdout.take().expect("its stdout is a pipe");
        Self {
            child,
            lines: BufReader::new(stdout).lines(),
            events: Vec::new(),
            deadline: Instant::now() + TAKEOVER_DEADLINE,
        }
    }

    /// Ends when the takeover has told of this event.
    ///
    /// # Panics
    /// When the takeover ends without it.
    pub async fn until(&mut self, event: &str) -> Value {
        while let Some(told) = self.next().await {
            if told["event"] == event {
                return told;
            }
        }
        let mut errors = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            // What cannot be read cannot be shown.
            let _ = soon("the end of stderr", stderr.read_to_string(&mut errors)).await;
        }
        panic!("the takeover ended without {event:?}: {:?}\n{errors}", self.events);
    }

    /// Ends with the takeover.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(mut self) -> Takeover {
        while self.next().await.is_some() {}
        let output = soon("the end of a takeover command", self.child.wait_with_output()).await;
        let output = output.expect("its end can be waited for");
        Takeover {
            code: output.status.code().unwrap_or(-1),
            events: self.events,
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout_at(self.deadline, self.lines.next_line()).await;
        let last = self.events.last();
        let line = line.unwrap_or_else(|_| {
            panic!("a takeover did not end within {TAKEOVER_DEADLINE:?}; its last word: {last:?}")
        });
        let line = line.expect("its stdout can be read")?;
        let event: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("this is no event: {error}: {line:?}"));
        self.events.push(event.clone());
        Some(event)
    }
}

impl Takeover {
    /// The names of the events, in order.
    #[must_use]
    pub fn story(&self) -> Vec<&str> {
        self.events.iter().filter_map(|event| event["event"].as_str()).collect()
    }

    /// The first event of this name.
    #[must_use]
    pub fn event(&self, name: &str) -> Option<&Value> {
        self.events.iter().find(|event| event["event"] == name)
    }

    /// The generation that was started.
    ///
    /// # Panics
    /// When none was.
    #[must_use]
    pub fn successor(&self) -> GenerationId {
        let started = self.event("started").unwrap_or_else(|| panic!("none started: {self:?}"));
        let word = started["successor"].as_str().expect("a successor has a name");
        word.parse().expect("a successor is a generation")
    }

    /// Why it was rolled back.
    ///
    /// # Panics
    /// When it was not.
    #[must_use]
    pub fn reason(&self) -> &str {
        let told = self.event("rolled-back").unwrap_or_else(|| panic!("none: {self:?}"));
        told["reason"].as_str().expect("a rollback has a reason")
    }

    /// # Panics
    /// Unless it committed and nothing was cut.
    #[track_caller]
    pub fn assert_committed(&self) -> &Self {
        assert_eq!(self.code, 0, "{self:?}");
        self.assert_done("committed")
    }

    /// # Panics
    /// Unless it committed and the drain's deadline cut this many connections.
    #[track_caller]
    pub fn assert_cut(&self, connections: u64) -> &Self {
        assert_eq!(self.code, 3, "{self:?}");
        self.assert_done("committed");
        assert_eq!(self.event("done").expect("just seen")["cut"], connections, "{self:?}");
        self
    }

    /// # Panics
    /// Unless it was rolled back, and the reason was given for programs and for people.
    #[track_caller]
    pub fn assert_rolled_back(&self) -> &Self {
        assert_eq!(self.code, 1, "{self:?}");
        self.assert_done("rolled-back");
        assert!(!self.reason().is_empty(), "{self:?}");
        assert!(self.errors.contains(self.reason()), "not on stderr: {self:?}");
        self
    }

    #[track_caller]
    fn assert_done(&self, outcome: &str) -> &Self {
        let last = self.events.last().unwrap_or_else(|| panic!("nothing was told: {self:?}"));
        assert_eq!(last["event"], "done", "{self:?}");
        assert_eq!(last["outcome"], outcome, "{self:?}");
        self
    }
}
