//! What a program may cost before it is given up: how long it may be silent, and how much it may write.
//!
//! **Invariants**
//! - Limits are clamped to what a worker can afford, as the real gateway clamps them.
//! - A turn fails for its silence before it fails for its length.

use std::time::Duration;

use serde::Deserialize;

/// The longest output of a turn unless the configuration says otherwise, and what it may say, in bytes.
const TURN_BYTES: (usize, [usize; 2]) = (8 * 1024 * 1024, [1024, 64 * 1024 * 1024]);
/// The most lines of a turn, likewise.
const TURN_LINES: (usize, [usize; 2]) = (20_000, [100, 100_000]);
/// How long without output is too long: what part of the turn's timeout, and within which bounds.
const FRESH_SILENCE: (f64, [Duration; 2]) =
    (0.8, [Duration::from_secs(180), Duration::from_secs(600)]);
/// The same of a program that resumes a conversation.
const RESUMED_SILENCE: (f64, [Duration; 2]) =
    (0.3, [Duration::from_secs(60), Duration::from_secs(180)]);
/// No program is given less time than this to say something.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);

/// What a program may cost before it is given up.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Reliability {
    /// What it may write.
    pub(crate) output_limits: OutputLimits,
    /// How long it may be silent.
    pub(crate) watchdog: Watchdog,
}

/// What a turn may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OutputLimits {
    /// In bytes.
    pub(crate) max_turn_raw_chars: Option<usize>,
    /// In lines.
    pub(crate) max_turn_lines: Option<usize>,
}

impl OutputLimits {
    /// The most bytes of a turn, and so of a line.
    pub(super) fn bytes(self) -> usize {
        limit(self.max_turn_raw_chars, TURN_BYTES)
    }

    /// The most lines of a turn.
    pub(super) fn lines(self) -> usize {
        limit(self.max_turn_lines, TURN_LINES)
    }
}

fn limit(configured: Option<usize>, (default, [least, most]): (usize, [usize; 2])) -> usize {
    configured.unwrap_or(default).clamp(least, most)
}

/// How long a program may be silent, by how it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Watchdog {
    /// With a new conversation.
    pub(crate) fresh: Silence,
    /// To go on with one.
    pub(crate) resume: Silence,
}

/// How long a program may be silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Silence {
    /// This long, in ms, whatever else is said.
    pub(crate) no_output_timeout_ms: Option<u64>,
    /// This part of the turn's timeout.
    pub(crate) no_output_timeout_ratio: Option<f64>,
    /// But at least this long, in ms.
    pub(crate) min_ms: Option<u64>,
    /// And at most this long, in ms.
    pub(crate) max_ms: Option<u64>,
}

/// How a conversation begins for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Anew.
    Fresh,
    /// Where it was left.
    Resumed,
}

impl Watchdog {
    /// How long a turn with this timeout may be silent. It fails for silence before it fails for its length.
    pub(super) fn no_output_timeout(self, beginning: Beginning, timeout: Duration) -> Duration {
        let (silence, (ratio, [least, most])) = match beginning {
            Beginning::Fresh => (self.fresh, FRESH_SILENCE),
            Beginning::Resumed => (self.resume, RESUMED_SILENCE),
        };
        let cap = timeout.saturating_sub(Duration::from_secs(1)).max(SHORTEST_SILENCE);
        let configured =
            |ms: Option<u64>| ms.map(|ms| Duration::from_millis(ms).max(SHORTEST_SILENCE));
        if let Some(fixed) = configured(silence.no_output_timeout_ms) {
            return fixed.min(cap);
        }
        let ratio = silence.no_output_timeout_ratio.unwrap_or(ratio).clamp(0.05, 0.95);
        let (one, other) = (
            configured(silence.min_ms).unwrap_or(least),
            configured(silence.max_ms).unwrap_or(most),
        );
        let bounded = timeout.mul_f64(ratio).clamp(one.min(other), one.max(other));
        bounded.min(cap)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn limits_are_clamped() {
        for (configured, bytes, lines) in [
            (json!({}), 8 << 20, 20_000),
            (json!({"maxTurnRawChars": 1, "maxTurnLines": 1}), 1024, 100),
            (json!({"maxTurnRawChars": 1 << 30, "maxTurnLines": 1 << 30}), 64 << 20, 100_000),
            (json!({"maxTurnRawChars": 5000, "maxTurnLines": 500}), 5000, 500),
        ] {
            let limits: OutputLimits = serde_json::from_value(configured).unwrap();
            assert_eq!((limits.bytes(), limits.lines()), (bytes, lines));
        }
    }

    #[test]
    fn how_long_it_may_be_silent_follows_its_timeout_within_bounds() {
        use Beginning::{Fresh, Resumed};
        for (configured, beginning, timeout, expected) in [
            (json!({}), Fresh, s(600), s(480)),
            (json!({}), Fresh, s(60), s(59)),
            (json!({}), Fresh, s(200), s(180)),
            (json!({}), Fresh, s(3600), s(600)),
            (json!({}), Resumed, s(600), s(180)),
            (json!({}), Resumed, s(300), s(90)),
            (json!({}), Resumed, s(100), s(60)),
            (json!({}), Resumed, s(1), s(1)),
            (json!({"resume": {"noOutputTimeoutMs": 5000}}), Resumed, s(600), s(5)),
            (json!({"resume": {"noOutputTimeoutMs": 5000}}), Fresh, s(600), s(480)),
            (json!({"fresh": {"noOutputTimeoutMs": 1}}), Fresh, s(600), s(1)),
            (json!({"fresh": {"noOutputTimeoutRatio": 0.5}}), Fresh, s(600), s(300)),
            (json!({"fresh": {"minMs": 9000, "maxMs": 2000}}), Fresh, s(600), s(9)),
        ] {
            let watchdog: Watchdog = serde_json::from_value(configured.clone()).unwrap();
            let silence = watchdog.no_output_timeout(beginning, timeout);
            assert_eq!(silence, expected, "{configured} {beginning:?} {timeout:?}");
        }
    }
}
