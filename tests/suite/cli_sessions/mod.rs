//! Sessions of agents that are programs: they go on in the successor, or end and are resumed, and the client is told the truth.

#![expect(clippy::unwrap_used, reason = "what the tests share is as much a test as they are")]

mod deaths;
mod fault_points;
mod moving;
mod scene;
