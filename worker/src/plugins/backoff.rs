//! How long a plugin that has died rests before it is started again.
//!
//! **Invariants**
//! - The first rest is short; each further one twice as long, up to [`LONGEST`].
//! - One that has run for [`GOOD`] is forgiven what was before.

use std::time::Duration;

/// The first rest.
const SHORTEST: Duration = Duration::from_millis(250);
/// The longest rest.
const LONGEST: Duration = Duration::from_secs(30);
/// Who runs so long has started well.
const GOOD: Duration = Duration::from_secs(30);

/// The rests of one plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    /// How often it has died since it last ran well.
    deaths: u32,
}

impl Backoff {
    /// It has died after having run for so long; how long it is to rest.
    pub(super) fn died_after(&mut self, ran: Duration) -> Duration {
        if ran >= GOOD {
            self.deaths = 0;
        }
        let rest = SHORTEST.saturating_mul(2_u32.saturating_pow(self.deaths)).min(LONGEST);
        self.deaths = self.deaths.saturating_add(1);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::default();
        let rests: Vec<u128> =
            (0..9).map(|_| backoff.died_after(Duration::ZERO).as_millis()).collect();
        assert_eq!(rests, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        let ever = Backoff { deaths: u32::MAX }.died_after(Duration::ZERO);
        assert_eq!(ever, LONGEST);
    }

    #[test]
    fn one_that_has_run_well_rests_as_if_it_died_for_the_first_time() {
        let mut backoff = Backoff { deaths: 7 };
        assert_eq!(backoff.died_after(GOOD), SHORTEST);
        assert_eq!(backoff.died_after(GOOD.saturating_sub(SHORTEST)), SHORTEST * 2);
    }
}
