//! Moving live connections from one worker to another: same TCP connection, same session, next
//! message served by another process.
//!
//! ```text
//! incumbent: roster ── wanted ──► connection ── Frozen ──► source ══ Offer + fds ══► target :successor
//!                                                             ◄════ Prepared ════════
//!                                                             ═════ Commit ═════════► resume
//!                                                             ◄════ Started ═════════
//! ```
//!
//! Who reads and writes the connection at each step; there is never more than one:
//!
//! | step | owner |
//! | --- | --- |
//! | `Offer(seq, n) + fds` | nobody: it is frozen in the incumbent |
//! | `Prepared(seq)`, some of it perhaps rejected | nobody; what was rejected thaws in the incumbent |
//! | `Commit(seq)`: ownership passes with this one send | the successor |
//! | `Started(seq)` | the successor; the incumbent has closed its copies |
//! | `Abort(seq)`, after the offer was revoked in the memory both share | the incumbent |
//! | the incumbent dies after `Prepared` | the successor, once the link has ended **and** the front has reaped the incumbent |
//!
//! Calls that are still running do not hold a connection up, and what is said to everybody reaches those
//! that are on their way: both write letters, by the [`Post`].
//!
//! **Invariants**
//! - The owner ends a connection by `shutdown(2)`, then close; whoever is not the owner only ever closes. A surviving
//!   copy would suppress the FIN, and a `shutdown` by a non-owner would end the connection for the owner.
//! - Everything that crosses is versioned and limited before it is allocated.
//!
//! # What a server does
//! - It gives [`Worker::movable`](crate::Worker::movable) a [`Mover`](crate::Mover) before it says that it is
//!   ready: the incumbent's connections come as soon as the worker accepts.
//! - Each connection's task takes a [`Seat`] in the [`Roster`], and polls [`Seat::poll_wanted`] beside its own
//!   work. Wanted and at rest, it takes itself apart and [gives](Seat::give) itself as a [`Frozen`]; wanted and
//!   at work, it says [`Seat::busy`] and does so later. For HTTP/1.1 that is `http1::drive`, for WebSockets
//!   `websocket::MovableWebSocket`, by the features of those names.
//! - Its state crosses in words of its own with a version of its own. A version that the successor does not know
//!   is refused by [`Mover::judge`](crate::Mover::judge), for that connection alone.
//! - What [comes back](crate::Arrival::Returned) is served as if it had never left; what was
//!   [refused](crate::Arrival::Rejected) takes no seat, or it would be offered without end.
//! - What is no connection and moves all the same, as a program that runs on, takes a
//!   [seat of its own kind](Roster::session_seat), and has as many descriptors as it needs; it comes by
//!   [`Mover::resume_session`](crate::Mover::resume_session). What its owner keeps of it until then is its [`Guard`].
//! - What cannot move is told so while there is time: [`Migration::halt`](crate::Migration::halt), then a
//!   last answer. A worker leaves once [`Roster::emptied`] has ended, and [`Post::flushed`] if it writes letters.
//!
//! # A whole server
//! `examples/movable/server.rs`; `movable_hyper.rs` gives it a `service_fn`, `movable_axum.rs` a `Router`. The
//! suite takes both over, with connections that stay open.
//!
//! ````text
#![doc = include_str!("../../examples/movable/server.rs")]
//! ````

mod blob;
#[cfg(test)]
mod fuzzed;
#[cfg(feature = "http1")]
pub mod http1;
#[cfg(feature = "websocket")]
mod journal_io;
mod offer;
mod post;
mod prefixed;
mod progress;
mod roster;
mod snapshot;
mod source;
mod target;
#[cfg(feature = "websocket")]
pub mod websocket;
mod wire;

pub use post::{Delivery, Mailbox, Neighbour, Post, Recipient};
pub use prefixed::Prefixed;
pub use progress::{Extent, Links, Moved, Returned};
pub use roster::{Roster, Seat};
pub use snapshot::{Frozen, Guard, Kind, MAX_CARRIED, NotASnapshot, Snapshot};
pub use source::{Home, Source};
pub use target::{Heir, Target};
