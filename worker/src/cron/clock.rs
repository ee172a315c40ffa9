//! What time it is: on the wall, and since the machine started.
//!
//! The wall clock can be set; the other one only grows, also while the machine sleeps (`CLOCK_BOOTTIME`,
//! clock_gettime(2)). Both are read together, so that their difference shows when the wall clock was set.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// An instant, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// On the wall, in ms since 1970.
    pub(crate) wall_ms: i64,
    /// Since the machine started, its sleep included.
    pub(crate) up: Duration,
}

/// Where the time comes from.
pub(crate) trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = clock_gettime(ClockId::Realtime);
        Now {
            wall_ms: wall.tv_sec.saturating_mul(1000).saturating_add(wall.tv_nsec / 1_000_000),
            up: since_start(clock_gettime(ClockId::Boottime)),
        }
    }
}

fn since_start(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Clocks that stand still until they are told.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct SetClock(std::sync::Mutex<Now>);

#[cfg(test)]
impl SetClock {
    pub(crate) fn at(wall_ms: i64) -> Self {
        Self(std::sync::Mutex::new(Now { wall_ms, up: Duration::from_secs(1000) }))
    }

    /// Time passes, on both.
    pub(crate) fn pass(&self, ms: i64) {
        let mut now = self.0.lock().unwrap();
        now.wall_ms += ms;
        now.up += Duration::from_millis(ms.unsigned_abs());
    }
}

#[cfg(test)]
impl Clock for SetClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clocks_tell_this_century_and_only_grow() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        assert!(first.wall_ms > 1_700_000_000_000);
        assert!(second.up >= first.up);
    }
}
