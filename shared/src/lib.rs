//! What the front of Holdfast and a worker say to one another, and all a Rust server needs to be
//! such a worker.
//!
//! The front owns the listening sockets; a worker accepts from them while the front allows it. They
//! speak over a *link*: a `SOCK_SEQPACKET` socket that the worker finds as its descriptor 0, with
//! `HOLDFAST_LINK=stdin` in its environment. One packet is one JSON [`message`], descriptors
//! attached where it speaks of them.
//!
//! ```text
//! front                        successor (g8)                 incumbent (g7)
//!   │ Hello + sockets ───────────►│                               │ serving all the time
//!   │◄─────────────────── Ready   │                               │
//!   │ MigrateFrom + link ────────►│                               │ MigrateTo + link
//!   │ Admit ─────────────────────►│                               │
//!   │◄─────────────── Accepting   │                               │
//!   │ StopAccepting ──────────────┼──────────────────────────────►│
//!   │◄────────────────────────────┼───────────────────── Stopped  │   ← switched
//!   │                             │◄═ a few idle connections ═════│
//!   │     soak: g8 serves and stays healthy; else g7 is sent Admit again
//!   │ Drain ──────────────────────┼──────────────────────────────►│   ← committed
//!   │ Lease ─────────────────────►│◄═ every other connection ═════│
//!   │◄────────────────────────────┼───────────────────── Drained  │   exits 0
//! ```
//!
//! The end of the link means the other side is gone: a worker that was never admitted exits, an
//! admitted one goes on accepting and serving, and the next front finds it by its [`rescue`] socket.
//!
//! Start with [`Worker::start`]; `examples/hyper.rs` and `examples/axum.rs` are whole servers, whose connections
//! are finished by the worker that accepted them. [`Worker::movable`] has them move instead:
//! `examples/movable_hyper.rs` and `examples/movable_axum.rs`, by way of [`migrate`].

mod acceptor;
pub mod attach;
mod chain;
pub mod fault;
pub mod fd_passing;
pub mod filesystem;
mod generation_id;
pub mod limits;
pub mod link;
pub mod message;
pub mod migrate;
mod places;
pub mod rescue;
pub mod signals;
pub mod socket;
mod stance;
pub mod worker;

pub use acceptor::{Acceptor, Peer, Stream};
pub use attach::Attach;
pub use chain::chain;
pub use message::{
    Connections, Drain, Drained, GenerationId, Newcomers, OrphanEnded, Ready, Report,
};
pub use socket::Address;
pub use stance::Stance;
pub use worker::{Arrival, Migration, Mover, StartFailed, Worker};
