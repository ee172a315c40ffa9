//! Model fallback: an agent's models are asked one after the other, until one answers.
//!
//! ```text
//! agent's model reference ─► candidates ─► run: looks each up in the stock, asks it
//!                                            │ failed
//!                                            ▼
//!                              policy: the next one, the same one later, or give up ─► texts
//! ```

mod candidates;
mod kept;
mod policy;
mod run;
mod stock;
mod texts;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::candidates::ModelRef;
pub(crate) use self::kept::ATTRIBUTE;
pub(super) use self::kept::keep;
pub(crate) use self::run::{Decision, FallbackRun};
pub(crate) use self::stock::Stock;
use super::harness::{Past, Turn};

/// The models of an agent, in the order in which they are asked.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    candidates: Arc<[ModelRef]>,
    stock: Arc<Stock>,
    workspace: PathBuf,
}

impl Chain {
    /// Begins a turn; nothing is asked until it is polled.
    pub(super) fn run(&self, turn: Turn, past: Past) -> FallbackRun {
        FallbackRun::new(self.clone(), turn, past)
    }

    /// Where their agent works.
    pub(super) fn workspace(&self) -> &Path {
        &self.workspace
    }
}
