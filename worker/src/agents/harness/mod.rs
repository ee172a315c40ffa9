//! Harnesses: what turns a message into an answer.

mod echo;

use std::task::{Context, Poll};
use std::time::Duration;

pub(crate) use echo::Echo;

use crate::plugins::{PluginHarness, PluginRun};

/// One message for an agent to answer.
#[derive(Debug)]
pub(crate) struct Turn {
    /// What the user said.
    pub(crate) message: String,
    /// How long to think before each word; only `echo` knows how slow it is to be.
    pub(crate) word_delay: Option<Duration>,
}

/// What a run has to say next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// More of the answer.
    Text(&'a str),
    /// The answer is complete.
    End,
    /// There will be no answer, for this reason.
    Failed(&'a str),
}

/// Something that can run a turn.
#[derive(Clone, Debug)]
pub(crate) enum Harness {
    /// Says what it was told.
    Echo(Echo),
    /// A plugin's.
    Plugin(PluginHarness),
}

impl Harness {
    /// Begins a turn. Nothing happens until the run is polled; dropping it cancels it.
    pub(crate) fn run(&self, turn: Turn) -> Run {
        match self {
            Self::Echo(echo) => Run::Echo(echo.run(turn)),
            Self::Plugin(harness) => Run::Plugin(harness.run(turn.message)),
        }
    }
}

/// A turn being run: pulled by whoever carries it out.
#[derive(Debug)]
pub(crate) enum Run {
    /// Of the echo harness.
    Echo(echo::EchoRun),
    /// Of a plugin's.
    Plugin(PluginRun),
}

impl Run {
    /// The next piece of the answer; not to be asked for again after its end.
    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Piece<'_>> {
        match self {
            Self::Echo(run) => run.poll_piece(context),
            Self::Plugin(run) => run.poll_piece(context),
        }
    }
}
