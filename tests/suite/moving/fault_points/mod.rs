//! Processes that fail at a certain step of a takeover or of a move: each connection is served by one of
//! them or ends, and is accounted for; the port accepts throughout.

mod arming;
mod links;
mod migration;
mod scene;
mod steps;
mod versions;
