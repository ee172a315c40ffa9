//! What is remembered between generations.

pub(crate) mod config;
mod dir;
#[cfg_attr(not(test), expect(dead_code, reason = "the configuration is edited with it next"))]
mod durable;

pub(crate) use dir::{DirUnusable, StateDir};
