//! What is remembered between generations.

pub(crate) mod config;
mod dir;
mod durable;

pub(crate) use dir::{DirUnusable, StateDir};
