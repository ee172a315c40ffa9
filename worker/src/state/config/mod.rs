//! The gateway's configuration: `openclaw.json`, shared with OpenClaw's own tools.
//!
//! ```text
//! text ─► parsed ─► variables filled in ─► checked ─► typed ─► settled: what is read, defaults and all
//!   ▲                                                              │
//!   └── rewritten, comments and all ◄── edit ◄── parsed            └─► state::reload compares two of these
//! ```
//!
//! **Invariants**
//! - A key that this gateway does not read is never an error and never lost by a write.
//! - A file is understood whole or not at all; the findings name all that is wrong with it.
//! - References to variables stay references in the file.

#![expect(dead_code, unused_imports, reason = "providers and heartbeats read the rest of it")]

mod budget;
mod current;
mod edit;
mod environment;
mod file;
mod findings;
mod key_path;
mod patch;
mod rewrite;
mod roster;
mod schema;
mod secret;
mod settled;
mod shape;
mod shown;
mod spans;
mod text;
mod watcher;
pub(crate) mod workspace;

pub(crate) use budget::{TooSoon, WriteBudget};
pub(crate) use current::{ConfigUnusable, CurrentConfig, Reloaded, Snapshot};
pub(crate) use edit::{Base, Edit, EditFailed, Edited, Written, edit};
pub(crate) use environment::Environment;
pub(crate) use file::{NAME, ReadFailed, hash, read, usual_path};
pub(crate) use findings::{Finding, Severity};
pub(crate) use key_path::{KeyPath, Step};
pub(crate) use patch::{EditRefused, patched, replaced};
pub(crate) use roster::{
    AgentChange, RosterRefused, agent_id, with_agent, with_changed_agent, without_agent,
};
#[cfg(test)]
pub(crate) use schema::keys as schema_keys;
pub(crate) use schema::{lookup, schema};
pub(crate) use secret::{Secret, hide};
pub(crate) use settled::{Settled, Understood, understand};
pub(crate) use shape::{AgentIdentity, Config, ModelChoice, Provider as ProviderConfig, Sealed};
pub(crate) use shown::shown;
pub(crate) use spans::{Inside, Spanned, spans};
pub(crate) use text::{NotJson5, Position, parse};
pub(crate) use watcher::follow;
