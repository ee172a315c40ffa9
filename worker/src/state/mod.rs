//! What is remembered between generations.

pub(crate) mod config;
mod dir;
mod durable;
pub(crate) mod reload;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "methods and the lifecycle begin to use it with the next commits")
)]
pub(crate) mod store;

pub(crate) use dir::{DirUnusable, StateDir};
