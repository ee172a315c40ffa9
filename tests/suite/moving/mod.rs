//! Connections that move to the successor while they live: what a client must not notice.

#![expect(clippy::unwrap_used, reason = "what the tests share is as much a test as they are")]

mod agents;
mod call_command;
mod calls;
mod clocks;
mod counting;
mod cron;
mod crowds;
mod devices;
mod examples;
mod fault_points;
mod faults;
mod half_closed;
mod handshakes;
mod in_flight;
mod plugins;
mod providers;
mod reported;
mod sessions;
mod soak;
mod strangers;
mod token;
mod turns;
mod upkeep;
mod websockets;

use handoff::{Connections, GenerationId};
use holdfast_tests::rig::{Front, Setup, Takeover};

use crate::quick;

/// Takeovers that are soon committed, of WebSockets that hear a lot.
fn lively(setup: Setup) -> Setup {
    quick(setup)
        .environment("HOLDFAST_TICK_INTERVAL", "50ms")
        .environment("HOLDFAST_PING_INTERVAL", "70ms")
}

/// What became of the incumbent's connections, as the takeover's last words tell it.
fn drained(takeover: &Takeover, way: &str) -> Connections {
    let event = takeover.event("drained").unwrap_or_else(|| panic!("no drain: {takeover:?}"));
    serde_json::from_value(event[way].clone()).expect("connections by kind")
}

const fn http(http: u64) -> Connections {
    Connections { http, websocket: 0 }
}

const fn websocket(websocket: u64) -> Connections {
    Connections { http: 0, websocket }
}

/// Ends once this generation holds this many connections and no other holds any.
async fn all_with(front: &Front, generation: GenerationId, connections: Connections) {
    front
        .until("all connections are with that generation", |status| {
            status.generation(generation).is_some_and(|g| g.connections == Some(connections))
                && status
                    .generations
                    .iter()
                    .filter(|g| g.generation != generation)
                    .all(|g| g.connections.is_none_or(|open| open == Connections::default()))
        })
        .await;
}
