//! A turn that a plugin's harness runs.
//!
//! **Invariants**
//! - Dropped before its end, the plugin is told that nobody listens any more.
//! - While it runs, the plugin is not ended.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;

use super::conversation::RunPlace;
use super::plugin::Plugin;
use super::spoken::Heard;
use crate::agents::harness::{Failure, Piece, Reason};

/// The harness of this name, in the plugin that has it.
#[derive(Clone, Debug)]
pub(crate) struct PluginHarness {
    name: String,
    plugin: Arc<Plugin>,
}

impl PluginHarness {
    /// This harness of this plugin.
    pub(crate) const fn new(name: String, plugin: Arc<Plugin>) -> Self {
        Self { name, plugin }
    }

    /// Begins a turn once it is polled.
    pub(crate) fn run(&self, message: String) -> PluginRun {
        let Self { name, plugin } = self.clone();
        let in_use = plugin.in_use();
        let beginning = Box::pin(async move {
            let place = plugin.begin(&name, &message).await?;
            Ok(Saying { place, _in_use: in_use })
        });
        PluginRun { step: Step::Beginning(beginning), piece: String::new() }
    }
}

/// A turn under way.
pub(crate) struct PluginRun {
    step: Step,
    /// What was said last.
    piece: String,
}

enum Step {
    Beginning(BoxFuture<'static, Result<Saying, String>>),
    Saying(Saying),
    Failed(Failure),
}

struct Saying {
    // Given up before the plugin may be ended.
    place: RunPlace,
    _in_use: super::plugin::InUse,
}

impl fmt::Debug for PluginRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginRun").finish_non_exhaustive()
    }
}

impl PluginRun {
    /// The next piece of the answer.
    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Piece<'_>> {
        if let Step::Beginning(beginning) = &mut self.step {
            self.step = match ready!(beginning.as_mut().poll(context)) {
                Ok(saying) => Step::Saying(saying),
                Err(reason) => Step::Failed(Failure::new(Reason::Unknown, &reason)),
            };
        }
        if let Step::Saying(saying) = &self.step {
            match ready!(saying.place.spoken.poll_hear(context, &mut self.piece)) {
                Heard::Text => return Poll::Ready(Piece::Text(&self.piece)),
                Heard::End(Ok(())) => return Poll::Ready(Piece::End),
                Heard::End(Err(reason)) => {
                    self.step = Step::Failed(Failure::new(Reason::Unknown, &reason));
                }
            }
        }
        match &self.step {
            Step::Failed(failure) => Poll::Ready(Piece::Failed(failure)),
            Step::Beginning(_) | Step::Saying(_) => Poll::Pending,
        }
    }
}
