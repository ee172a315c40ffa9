//! Model fallback: an agent's models are asked one after the other, until one answers.
//!
//! ```text
//! agent's model reference ─► candidates ─┐
//! what a session chose ─────► chosen ────┴─► run: looks each up in the stock, asks it
//!                                             │ failed
//!                                             ▼
//!                               policy: the next one, the same one later, or give up ─► texts
//! ```

mod candidates;
mod chosen;
mod kept;
mod policy;
mod run;
mod stock;
mod texts;

use std::path::Path;
use std::sync::Arc;

pub(crate) use self::candidates::{ModelRef, first, named};
pub(crate) use self::chosen::{choose, chosen};
pub(crate) use self::kept::ATTRIBUTE;
pub(super) use self::kept::keep;
pub(crate) use self::run::{Decision, FallbackRun};
pub(crate) use self::stock::Stock;
use super::harness::{Echo, Past, Turn};

/// The models of an agent, in the order in which they are asked; without any it is `echo`'s.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    candidates: Arc<[ModelRef]>,
    stock: Arc<Stock>,
    workspace: Arc<Path>,
}

impl Chain {
    /// Begins a turn; nothing is asked until it is polled.
    pub(super) fn run(&self, turn: Turn, past: Past) -> FallbackRun {
        FallbackRun::new(self.clone(), turn, past)
    }

    /// What answers if there are no models.
    pub(super) fn echo(&self) -> Option<Echo> {
        self.candidates.is_empty().then(|| self.stock.echo())
    }

    /// The same agent, answered by this model alone.
    pub(super) fn alone(&self, model: ModelRef) -> Self {
        Self { candidates: [model].into(), ..self.clone() }
    }

    /// The one that answers unless it fails.
    pub(super) fn first(&self) -> ModelRef {
        self.candidates.first().cloned().unwrap_or_else(ModelRef::echo)
    }

    /// Where their agent works.
    pub(super) fn workspace(&self) -> &Path {
        &self.workspace
    }
}
