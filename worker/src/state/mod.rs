//! What is remembered between generations.

pub(crate) mod config;
mod dir;
pub(crate) mod durable;
pub(crate) mod reload;
pub(crate) mod store;
pub(crate) mod workspace;

pub(crate) use dir::{DirUnusable, StateDir};
