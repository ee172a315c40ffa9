//! CLI agents: `claude-cli`, and any program that is configured in its manner.
//!
//! ```text
//! Cli ─ run ─► CliRun ◄═ fragments ═ keeper (pool.rs) ─ turn.rs ─► session.rs ═ pipes ═► the program
//!                                        └─ launch.rs: mcp.rs, scratch/, program/, child.rs     └─ POST /mcp ─► mcp.rs
//! ```
//!
//! **Invariants**
//! - A run that is dropped ends its program's whole process group, politely first.
//! - A session at rest moves to another owner whole: its [keeper](pool::Pool) takes it apart, and goes on with what others took apart.
//! - A program's directory is there for as long as the program is, and no longer.

mod agents;
mod backend;
mod child;
mod codec;
mod crossing;
mod departures;
mod failure;
mod kept;
mod launch;
mod mcp;
mod orphans;
mod pool;
mod program;
mod reliability;
#[cfg(test)]
mod rig;
mod run;
mod scratch;
mod session;
mod shelf;
mod turn;

pub(crate) use agents::CliAgents;
pub(crate) use kept::{ATTRIBUTE as CONVERSATIONS, Conversations};
pub(crate) use pool::Keeping;
pub(crate) use run::{Cli, CliRun};
