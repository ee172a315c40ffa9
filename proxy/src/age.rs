//! A moment on its way to another image of the front: as how long ago it was, in ms.
//!
//! `Instant` cannot be written down; the monotonic clock goes on over an exec, so its age can.

use std::time::{Duration, Instant};

use handoff::message::millis;
use serde::{Deserialize as _, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(millis(at.elapsed()))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
    let age = Duration::from_millis(u64::deserialize(deserializer)?);
    let now = Instant::now();
    // Older than the machine's start is as good as that.
    Ok(now.checked_sub(age).unwrap_or(now))
}
