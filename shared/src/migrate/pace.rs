//! How many are asked to move at a time.
//!
//! A connection stands still for as long as everything takes that is on its way with it, so few go together. But a worker
//! that has more to do than it can takes as long over a few as over many: each step of a wave waits for all the rest
//! of its work, and a drain that goes on in small waves would end with connections that were never asked.

use std::time::Duration;

use super::wire::WAVE;

/// How many go together when all is well: with 16 and two offers a connection stands still for a third of the time
/// that it does with 64 and four, measured.
const FEW: usize = 16;
/// A wave that takes longer, from the question to its service in the successor, has waited and not worked: one of
/// [`FEW`] takes 1 to 3 ms.
const SLOW: Duration = Duration::from_millis(100);

/// The size of the next wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(FEW)
    }
}

impl Pace {
    /// How many to ask, and to offer together.
    pub(super) const fn wave(self) -> usize {
        self.0
    }

    /// A wave was served so long after it was asked.
    pub(super) fn took(&mut self, elapsed: Duration) {
        self.0 = if elapsed > SLOW { (self.0 * 2).min(WAVE) } else { (self.0 / 2).max(FEW) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_waves_become_larger_up_to_what_an_offer_may_have_and_smaller_again_when_they_are_fast()
    {
        let mut pace = Pace::default();
        assert_eq!(pace.wave(), 16);
        let mut sizes = Vec::new();
        for took in [1, 101, 100, 101, 101, 101, 100, 1, 1] {
            pace.took(Duration::from_millis(took));
            sizes.push(pace.wave());
        }
        assert_eq!(sizes, [16, 32, 16, 32, 64, 64, 32, 16, 16]);
    }
}
