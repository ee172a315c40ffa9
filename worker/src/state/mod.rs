//! What is remembered between generations.

mod dir;

pub(crate) use dir::{DirUnusable, StateDir};
