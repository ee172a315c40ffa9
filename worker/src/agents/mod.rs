//! Work being done: agents, and the harnesses that run them.

pub(crate) mod harness;

/// The agent that answers when none is named.
pub(crate) const DEFAULT_AGENT: &str = "main";
