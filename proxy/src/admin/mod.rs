//! The status page and the metrics: a process of its own, which the front starts and which asks the front by its
//! control socket as any other caller does.
//!
//! ```text
//!  browser, Prometheus, probes ──HTTP──► holdfast admin ──control socket──► front
//!                                   │ ▲ the listening socket as stdin           │
//!                                   │ └─────────────────────────────────────────┘ keeper.rs
//!   server.rs ► answer.rs ► gate.rs (who may ask) ► look.rs (one look for all) ► metrics.rs, page/
//! ```
//!
//! **Invariants**
//! - The front speaks no HTTP: it opens the socket, keeps it, and never accepts from it.
//! - Whoever is not on this machine has to know a token; it is in no command line, log or answer.
//! - However many look, the front is asked once a second at most, and not at all while nobody looks.
//! - It writes no file.

mod answer;
pub(crate) mod flags;
mod gate;
pub(crate) mod keeper;
mod look;
mod metrics;
mod page;
pub(crate) mod server;
