//! Moments that leave this process: as how long ago they were, in ms, or by the clock that everybody on the machine has.
//!
//! `Instant` cannot be written down; the monotonic clock goes on over an exec, so its age can.

use std::time::{Duration, Instant};

use handoff::message::millis;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize as _, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(millis(at.elapsed()))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
    u64::deserialize(deserializer).map(|ms| ago(Duration::from_millis(ms)))
}

/// The moment that was so long ago.
pub(crate) fn ago(age: Duration) -> Instant {
    let now = Instant::now();
    // Older than an `Instant` can be is as good as now.
    now.checked_sub(age).unwrap_or(now)
}

/// What the machine's monotonic clock shows, to every process alike (clock_gettime(2)).
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // It begins at 0, and its nanoseconds are less than a second.
    Duration::from_secs(now.tv_sec.unsigned_abs())
        + Duration::from_nanos(now.tv_nsec.unsigned_abs())
}
