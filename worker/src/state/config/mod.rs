//! The gateway's configuration: `openclaw.json`, shared with OpenClaw's own tools.
//!
//! ```text
//! text ─► parsed ─► variables filled in ─► checked ─► typed ─► settled: what is read, defaults and all
//! ```
//!
//! **Invariants**
//! - A key that this gateway does not read is never an error and never lost by a write.
//! - A file is understood whole or not at all; the findings name all that is wrong with it.
//! - References to variables stay references in the file.

#![expect(dead_code, unused_imports, reason = "`check` reads it; the gateway is wired to it next")]

mod environment;
mod file;
mod findings;
mod key_path;
mod schema;
mod secret;
mod settled;
mod shape;
mod spans;
mod text;

pub(crate) use environment::Environment;
pub(crate) use file::{ReadFailed, hash, read, usual_path};
pub(crate) use findings::{Finding, Severity};
pub(crate) use key_path::{KeyPath, Step};
#[cfg(test)]
pub(crate) use schema::keys as schema_keys;
pub(crate) use schema::{lookup, schema};
pub(crate) use secret::{Secret, hide};
pub(crate) use settled::{Settled, Understood, understand};
