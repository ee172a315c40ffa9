//! Workers that the front has not started: they attach themselves, take over, lose their link, are refused.

mod adapters;
mod containers;
mod example;
mod loss;
mod refused;
mod update_script;
mod updates;

use holdfast_tests::rig::{Attached, Front, Setup, Status};

use crate::{generation, quick};

/// A front that starts no workers itself.
fn attachable(setup: Setup) -> Setup {
    quick(setup).attachable()
}

/// The same with a worker that serves as the first generation.
async fn served() -> (Front, Attached) {
    let front = Front::with(attachable).await;
    let worker = front.attach(&[], &[]);
    until_serves(&front, 1).await;
    (front, worker)
}

/// Waits until this generation serves, and nobody else is left.
async fn until_serves(front: &Front, number: u64) -> Status {
    let serves = |status: &Status| {
        let serving = status.serving().map(|serving| serving.generation);
        serving == Some(generation(number)) && status.is_settled()
    };
    front.until("the worker serves", serves).await
}
