//! Clients of connections that move: what they say is numbered, so that whatever is lost, doubled or
//! out of order shows.
//!
//! **Invariants**
//! - No client here ever connects again: a connection that ends is lost, and counted.
//! - No client waits for ever: each gets an answer or an end within [`super::PATIENCE`], or its test
//!   fails.

mod callers;
mod clients;
mod frames;
mod posters;

pub use clients::{Account, Accounts, Clients};
pub use frames::{BareWebSocket, Frame, Part, UPGRADE, call, connect_call, frame};
