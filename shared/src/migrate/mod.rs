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

mod blob;
#[cfg(test)]
mod fuzzed;
#[cfg(feature = "http1")]
pub mod http1;
#[cfg(feature = "websocket")]
mod journal_io;
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
pub use snapshot::{Frozen, Kind, MAX_CARRIED, NotASnapshot, Snapshot};
pub use source::{Home, Source};
pub use target::{Heir, Target};
