//! How long answers took: counted, not kept, so that a long run needs no more memory than a short one.

use std::time::Duration;

/// What a line of the histogram ends below, in ms; the last one has no end.
pub(crate) const BANDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
/// So many places for each doubling: what is read from them is at most a sixteenth too much.
const PLACES: u64 = 16;
/// Enough of them for what fits into 64 bits.
const ALL: usize = 1024;

/// The latencies of many answers.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    places: Vec<u64>,
    /// One for each of [`BANDS_MS`], and one for what is longer.
    bands: [u64; BANDS_MS.len() + 1],
    count: u64,
    longest_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { places: vec![0; ALL], bands: [0; BANDS_MS.len() + 1], count: 0, longest_us: 0 }
    }
}

impl Latencies {
    pub(super) fn enter(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.places[place(us)] += 1;
        let band = BANDS_MS.iter().position(|end| us < *end * 1000);
        self.bands[band.unwrap_or(BANDS_MS.len())] += 1;
        self.count += 1;
        self.longest_us = self.longest_us.max(us);
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// How many there are in each band.
    pub(crate) const fn bands(&self) -> &[u64] {
        &self.bands
    }

    /// The longest one, in µs.
    pub(crate) const fn longest_us(&self) -> u64 {
        self.longest_us
    }

    /// What so many of a hundred did not exceed, in µs; `None` of no answers.
    pub(crate) fn percentile_us(&self, percent: u64) -> Option<u64> {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.places.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(end_of(found).min(self.longest_us))
    }
}

fn place(us: u64) -> usize {
    let index = if us < PLACES {
        us
    } else {
        let doubling = u64::from(us.ilog2()) - u64::from(PLACES.ilog2());
        (doubling + 1) * PLACES + ((us >> doubling) & (PLACES - 1))
    };
    usize::try_from(index).unwrap_or(ALL).min(ALL - 1)
}

/// The largest value that is counted there.
fn end_of(place: usize) -> u64 {
    let index = place as u64;
    if index < PLACES {
        return index;
    }
    let doubling = u32::try_from(index / PLACES - 1).unwrap_or(u32::MAX);
    // The end of the last place with something in it is 0, by one bit: nothing is larger than what is before that.
    (PLACES + index % PLACES + 1).checked_shl(doubling).map_or(u64::MAX, |end| end.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_at_most_a_sixteenth_too_much_and_never_more_than_the_longest() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile_us(50), None);
        for us in 1..=10_000 {
            latencies.enter(Duration::from_micros(us));
        }
        for (percent, exact) in [(1, 100), (50, 5_000), (99, 9_900)] {
            let found = latencies.percentile_us(percent).unwrap();
            assert!(found >= exact && found <= exact + exact / 16, "{percent}: {found}");
        }
        assert_eq!(latencies.percentile_us(100), Some(10_000));
        assert_eq!((latencies.count(), latencies.longest_us()), (10_000, 10_000));
    }

    #[test]
    fn each_latency_is_in_the_band_that_ends_above_it() {
        let mut latencies = Latencies::default();
        for ms in [0, 1, 4, 5_000, 60_000] {
            latencies.enter(Duration::from_millis(ms));
        }
        let expected = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(latencies.bands(), expected);
    }

    #[test]
    fn places_follow_one_another_and_end_where_they_say() {
        for us in (0..100_000).chain([u64::from(u32::MAX), 1 << 40]) {
            let end = end_of(place(us));
            assert!(end >= us && end <= us + us / PLACES, "{us}: {end}");
        }
    }
}
