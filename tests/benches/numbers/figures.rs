//! Medians and their like, of what was measured many times.

use std::time::Duration;

/// Durations of the same thing, measured many times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations {
    sorted: Vec<Duration>,
}

impl FromIterator<Duration> for Durations {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut sorted: Vec<_> = durations.into_iter().collect();
        sorted.sort_unstable();
        Self { sorted }
    }
}

impl Durations {
    /// Whether nothing was measured.
    pub(crate) const fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The one that half of them do not exceed.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The one that so many of a hundred do not exceed (nearest rank); zero when there is none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.permille(10 * percent)
    }

    /// The one that so many of a thousand do not exceed (nearest rank); zero when there is none.
    pub(crate) fn permille(&self, permille: usize) -> Duration {
        let rank = (self.sorted.len() * permille).div_ceil(1000).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// `median 3.1 ms, p99 5.0 ms, worst 7.2 ms (n 500)`.
    pub(crate) fn summary(&self) -> String {
        format!(
            "median {}, p99 {}, worst {} (n {})",
            in_ms(self.median()),
            in_ms(self.percentile(99)),
            in_ms(self.percentile(100)),
            self.sorted.len()
        )
    }

    /// `median 1.1 ms, p99 2.0 ms, p99.9 3.4 ms, worst 7.2 ms (n 40,000)`.
    pub(crate) fn tail(&self) -> String {
        format!(
            "median {}, p99 {}, p99.9 {}, worst {} (n {})",
            in_ms(self.median()),
            in_ms(self.percentile(99)),
            in_ms(self.permille(999)),
            in_ms(self.percentile(100)),
            grouped(self.sorted.len() as u64)
        )
    }
}

/// `3.1 ms`.
pub(crate) fn in_ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// Ratios of pairs.
#[derive(Clone, Debug)]
pub(crate) struct Ratios {
    sorted: Vec<f64>,
}

impl FromIterator<f64> for Ratios {
    fn from_iter<I: IntoIterator<Item = f64>>(ratios: I) -> Self {
        let mut sorted: Vec<_> = ratios.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Self { sorted }
    }
}

impl Ratios {
    /// The middle one, or the mean of the two in the middle; 0 when there is none.
    pub(crate) fn median(&self) -> f64 {
        let at = |index: usize| self.sorted.get(index).copied().unwrap_or_default();
        let middle = self.sorted.len() / 2;
        if self.sorted.len().is_multiple_of(2) {
            f64::midpoint(at(middle.saturating_sub(1)), at(middle))
        } else {
            at(middle)
        }
    }

    /// `0.99, 0.99, 1.01`: all of them, in order of size.
    pub(crate) fn all(&self) -> String {
        self.sorted.iter().map(|ratio| format!("{ratio:.3}")).collect::<Vec<_>>().join(", ")
    }
}

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
