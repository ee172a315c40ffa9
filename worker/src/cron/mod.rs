//! Scheduled jobs: what clients ask for, when it is due, and running it exactly where the writer lease is.
//!
//! ```text
//!  clients ─► jobs ─► store ◄─ driver ─► run (an agent's turn)
//!               └─ nudge ─────►│  ▲
//!                              ▼  │ plan: what is due, what was missed, until when to sleep
//!                    clock ─► planner (pure)
//! ```
//!
//! **Invariants**
//! - A run begins only in the generation that holds the writer lease, and after its claim is on disk: an instant that
//!   two generations see is claimed by one of them. A claimed run that its generation did not live
//!   to finish is recorded as an error and not repeated.
//! - A job runs at most once at a time. Instants that pass meanwhile, or while nobody could run it, are one.
//! - Without jobs nothing ticks.
//!
//! Times of day and time zones: `schedule`. Missed runs, jumps of the clock and sleep: `planner`. What becomes of a
//! job whose run has failed: `retry`.

pub(crate) mod clock;
pub(crate) mod driver;
pub(crate) mod events;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod handover;
mod intervals;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod lookup;
mod planner;
mod request;
mod retry;
pub(crate) mod schedule;
mod shapes;
