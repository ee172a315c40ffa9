//! The control socket: how the operator's commands reach the front, and what it answers.
//!
//! ```text
//! holdfast takeover ── {"version":1,"command":{"type":"takeover",…}}\n ──► front
//!                   ◄── {"event":"requested",…}\n … {"event":"done",…}\n ──
//! ```
//!
//! **Invariants**
//! - The socket has mode 0600, and a caller is the front's own user or root (`SO_PEERCRED`).
//! - A request is one line of at most [`MAX_REQUEST`] bytes; a caller that is slow to send or to read is
//!   let go.

pub(crate) mod client;
pub(crate) mod document;
pub(crate) mod protocol;
#[cfg(test)]
mod schema;
pub(crate) mod server;
pub(crate) mod understood;

/// The largest request, in bytes: a program, its arguments and an environment file.
pub(crate) const MAX_REQUEST: usize = 256 * 1024;
