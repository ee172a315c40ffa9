//! The worker's promises, on real processes: each test starts its own, in its own directory, on its own
//! Unix socket, and waits for conditions with a deadline.

#![expect(clippy::unwrap_used, reason = "what a test cannot unwrap is what it has found")]

mod agents;
mod call;
mod chat;
mod check;
mod cli;
mod completions;
mod config;
mod cron;
mod devices;
mod drain;
mod half_closed;
mod http;
mod limits;
mod link;
mod metrics;
mod plugins;
mod providers;
mod rig;
mod sessions;
mod start;
mod token;
mod turns;
mod upkeep;
mod websocket;
