//! Work being done: agents, the harnesses that run them, and their runs.

pub(crate) mod harness;
mod lane;
mod neighbours;
mod runs;
mod session;
mod told;

pub(crate) use runs::{Asked, Begun, Outcome, Runs};
pub(crate) use session::SessionKey;

/// The agent that answers when none is named.
pub(crate) const DEFAULT_AGENT: &str = "main";
