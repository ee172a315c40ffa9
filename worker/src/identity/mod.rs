//! Who is asking, and what they may ask for.
//!
//! The shared token is all there is yet; devices and their own tokens are admitted beside it.

mod locality;
mod scopes;
mod token;

pub(crate) use locality::Locality;
pub(crate) use scopes::{Needs, Scopes};
pub(crate) use token::{SharedToken, TokenSource, TokenUnusable};
