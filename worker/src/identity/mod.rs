//! Who is asking, and what they may ask for.
//!
//! A client knows the shared token, or it is a device that was approved and has a token of its own.

mod device;
mod locality;
mod rights;
mod scopes;
mod token;

pub(crate) use locality::Locality;
pub(crate) use scopes::{Needs, Scopes};
pub(crate) use token::{SharedToken, TokenSource, TokenUnusable};
