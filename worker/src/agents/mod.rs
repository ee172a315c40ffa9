//! Work being done: agents, the harnesses that run them, and their runs.

mod ending;
mod ends;
pub(crate) mod fallback;
mod follow;
pub(crate) mod harness;
mod interrupted;
mod lane;
mod neighbours;
mod overview;
mod releases;
mod run;
mod runs;
mod session;
mod told;
mod transcript;

pub(crate) use ending::{Ending, Outcome};
pub(crate) use follow::{Follower, Heard};
pub(crate) use interrupted::recover;
pub(crate) use neighbours::tell_of_jobs;
pub(crate) use runs::{Asked, Begun, IN_CENSUS, Novelty, Runs};
pub(crate) use session::SessionKey;
pub(crate) use told::lane_cleared;
pub(crate) use transcript::{Ended, clock_ms, new_session};

/// The agent that answers when none is named.
pub(crate) const DEFAULT_AGENT: &str = "main";
