//! `logs.tail`: the last lines of this generation's log, as [`crate::log_ring`] keeps them.

use std::sync::Arc;

use serde::Deserialize;

use super::{Call, Knowledge};
use crate::log_ring::Wanted;
use crate::shape::{Field, Shape};

pub(super) static PARAMS: Shape = Shape::Object(&[
    Field::optional("cursor", Shape::Integer { least: 0 }),
    Field::optional("limit", Shape::Within { least: 1, most: 5000 }),
    Field::optional("maxBytes", Shape::Within { least: 1, most: 1_000_000 }),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    cursor: Option<u64>,
    #[serde(default = "usual_limit")]
    limit: usize,
    #[serde(default = "usual_bytes")]
    max_bytes: u64,
}

const fn usual_limit() -> usize {
    500
}

const fn usual_bytes() -> u64 {
    250_000
}

pub(super) async fn tail(knowledge: Arc<Knowledge>, call: Call) {
    let tail = call.read().map(|Params { cursor, limit, max_bytes }| {
        knowledge.log.tail(Wanted { cursor, limit, max_bytes })
    });
    call.reply.outcome(tail);
}
