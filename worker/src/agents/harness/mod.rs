//! Harnesses: what turns a message into an answer.
//!
//! ```text
//! an agent ─► [`Harness::Chain`] ─► its models, one after the other: provider, CLI, plugin, echo
//!                    └── it has none ─► echo
//! ```

mod cli;
mod echo;
mod failure;
mod past;
mod provider;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub(crate) use cli::{CONVERSATIONS, Cli, CliAgents, CliRun, Conversations, Keeping};
pub(crate) use echo::Echo;
pub(crate) use failure::{Failure, Reason};
pub(crate) use past::{Earlier, Past, Role, Said};
pub(crate) use provider::{Connector, Model, Provider};

use super::fallback::{Chain, Decision, FallbackRun, ModelRef};
use crate::plugins::{PluginHarness, PluginRun};

/// One message for an agent to answer.
#[derive(Clone, Debug)]
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
    /// The answer is complete; what it cost is [`Run::usage`].
    End,
    /// There is no more of an answer, for this reason.
    Failed(&'a Failure),
}

/// What an answer cost, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// What was read.
    pub(crate) prompt: u64,
    /// What was said.
    pub(crate) completion: u64,
}

/// Something that can run a turn.
#[derive(Clone, Debug)]
pub(crate) enum Harness {
    /// Says what it was told.
    Echo(Echo),
    /// A plugin's.
    Plugin(PluginHarness),
    /// A model that an OpenAI-compatible provider serves.
    Model(Arc<Model>),
    /// An agent's: one model after the other, until one answers.
    Chain(Chain),
    /// A program that is an agent.
    Cli(Cli),
}

impl Harness {
    /// Begins a turn of a conversation. Nothing happens until the run is polled; dropping it cancels it.
    pub(crate) fn run(&self, turn: Turn, past: Past) -> Run {
        match self {
            Self::Echo(echo) => Run::Echo(echo.run(turn)),
            Self::Plugin(harness) => Run::Plugin(harness.run(turn.message)),
            Self::Model(model) => Run::Model(model.run(&turn, &past)),
            Self::Chain(chain) => match chain.echo() {
                Some(echo) => Run::Echo(echo.run(turn)),
                None => Run::Chain(Box::new(chain.run(turn, past))),
            },
            Self::Cli(cli) => Run::Cli(Box::new(cli.run(turn.message, &past))),
        }
    }

    /// Where the agent works whose past it wants to know; `None` when it asks for none.
    pub(super) fn workspace(&self) -> Option<&std::path::Path> {
        match self {
            Self::Echo(_) | Self::Plugin(_) | Self::Model(_) | Self::Cli(_) => None,
            Self::Chain(chain) => chain.echo().is_none().then(|| chain.workspace()),
        }
    }

    /// The model that answers an agent unless it fails; `None` of what is no agent's.
    pub(crate) fn model(&self) -> Option<ModelRef> {
        match self {
            Self::Echo(_) | Self::Plugin(_) | Self::Model(_) | Self::Cli(_) => None,
            Self::Chain(chain) => Some(chain.first()),
        }
    }

    /// The same agent, answered by this model alone; what is no agent's stays what it is.
    pub(super) fn alone(self, model: ModelRef) -> Self {
        match self {
            Self::Chain(chain) => Self::Chain(chain.alone(model)),
            other => other,
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
    /// Of a provider's model.
    Model(provider::ModelRun),
    /// Of several models.
    Chain(Box<FallbackRun>),
    /// Of a CLI agent.
    Cli(Box<CliRun>),
}

impl Run {
    /// The next piece of the answer; not to be asked for again after its end.
    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Piece<'_>> {
        match self {
            Self::Echo(run) => run.poll_piece(context),
            Self::Plugin(run) => run.poll_piece(context),
            Self::Model(run) => run.poll_piece(context),
            Self::Chain(run) => run.poll_piece(context),
            Self::Cli(run) => run.poll_piece(context),
        }
    }

    /// What the answer cost, once it is complete; `None` when nobody has said so.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Self::Echo(_) | Self::Plugin(_) => None,
            Self::Model(run) => run.usage(),
            Self::Chain(run) => run.usage(),
            Self::Cli(run) => run.usage(),
        }
    }

    /// What was decided when models failed, so far.
    pub(super) fn decisions(&self) -> &[Decision] {
        match self {
            Self::Echo(_) | Self::Plugin(_) | Self::Model(_) | Self::Cli(_) => &[],
            Self::Chain(run) => run.decisions(),
        }
    }

    /// The backend of the CLI agent that was asked last, and what that calls the conversation; `None` before it has
    /// said so, and of everybody else.
    pub(super) fn conversation(&self) -> Option<(&str, &str)> {
        match self {
            Self::Echo(_) | Self::Plugin(_) | Self::Model(_) => None,
            Self::Chain(run) => run.conversation(),
            Self::Cli(run) => run.conversation(),
        }
    }
}
