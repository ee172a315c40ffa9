//! The suite that proves Holdfast's promise on real processes and sockets, and what it needs.
//!
//! [`rig`] starts fronts, drives them and watches them; `fixture-worker` is a worker that
//! misbehaves in whichever way it is told; `suite/` holds the claims.

pub mod rig;
