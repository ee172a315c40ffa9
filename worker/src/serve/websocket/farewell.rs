//! How WebSockets end: every close that we begin has a code and a reason, and a drain tells its
//! clients one after the other.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use handoff::{Newcomers, Stance};
use tokio::sync::watch;

/// The longest reason that is sent, in bytes: a close frame holds 123 (RFC 6455, 5.5).
const LONGEST_REASON: usize = 120;
/// How far apart clients are told to come back, unless that would take more than half of the drain:
/// each of them makes a handshake with the successor.
const PACE: Duration = Duration::from_millis(25);
/// The golden ratio's fractional part. Its multiples, modulo 1, fall into the largest gap each time.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A close of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Close {
    code: u16,
    reason: Cow<'static, str>,
}

impl Close {
    /// The client is to come back; somebody else will be there.
    pub(super) const RESTART: Self = Self::fixed(1012, "service restart");
    /// This worker cannot serve yet, or not any more; the client may ask again soon.
    pub(super) const STARTING: Self = Self::fixed(1013, "gateway starting");
    /// The client did not connect in time.
    pub(super) const HANDSHAKE_TIMEOUT: Self = Self::fixed(1008, "handshake timeout");
    /// The client does not read.
    pub(super) const SLOW_CONSUMER: Self = Self::fixed(1008, "slow consumer");
    /// What the client was to be told could not be kept for it.
    pub(super) const LETTERS_LOST: Self = Self::fixed(1011, "messages were lost; reconnect");
    /// The client's device was removed, or its token was: it has to be paired, or to come with another.
    pub(super) const DEVICE_REMOVED: Self = Self::fixed(4001, "device removed");
    /// The shared token that the client has shown is not in force any more.
    pub(super) const AUTH_CHANGED: Self = Self::fixed(4001, "gateway auth changed");
    /// Whether the client's device may connect cannot be known; it may come back with what it has.
    pub(super) const DEVICES_UNUSABLE: Self = Self::fixed(1011, "device pairing is unavailable");
    /// The first message was JSON but no request.
    pub(super) const NOT_A_REQUEST: Self = Self::fixed(1008, "invalid request frame");
    /// The first message was no JSON at all.
    pub(super) const NOT_JSON: Self = Self::fixed(1008, "invalid request frame: not JSON");
    /// A message exceeds 25 MiB.
    pub(super) const TOO_LARGE: Self = Self::fixed(1009, "message exceeds 26214400 bytes");
    /// A message exceeds 64 KiB and comes from a client that has not connected.
    pub(super) const TOO_LARGE_TOO_EARLY: Self =
        Self::fixed(1009, "more than 65536 bytes before connect");
    /// Bytes that are no WebSocket frame.
    pub(super) const NOT_WEBSOCKET: Self = Self::fixed(1002, "invalid websocket frame");
    /// A message that is no text.
    pub(super) const NOT_UTF8: Self = Self::fixed(1007, "message is not UTF-8");

    const fn fixed(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// Against the rules, in these words.
    pub(super) fn policy(reason: &str) -> Self {
        Self::cut(1008, reason)
    }

    /// Not a protocol we speak.
    pub(super) fn protocol(reason: &str) -> Self {
        Self::cut(1002, reason)
    }

    fn cut(code: u16, reason: &str) -> Self {
        let end = reason.floor_char_boundary(LONGEST_REASON);
        Self { code, reason: Cow::Owned(reason[..end].to_owned()) }
    }

    pub(super) const fn code(&self) -> u16 {
        self.code
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

/// Ends when it is this connection's turn to be told of the drain that dismisses it. Cancel safe.
pub(super) async fn turn(mut stance: watch::Receiver<Stance>, number: u64, connections: usize) {
    let begun_at = Instant::now();
    let mut deadline = stance.borrow_and_update().deadline().unwrap_or(begun_at);
    loop {
        let window = window(deadline.saturating_duration_since(begun_at), connections);
        tokio::select! {
            () = tokio::time::sleep_until((begun_at + spread(number, window)).into()) => return,
            changed = stance.changed() => match changed {
                // The deadline came closer.
                Ok(()) => deadline = stance.borrow().deadline().unwrap_or(deadline),
                Err(_) => return,
            },
        }
    }
}

/// Within which time everybody is told: a steady pace, but never more than half of the drain.
fn window(drain: Duration, connections: usize) -> Duration {
    PACE.saturating_mul(u32::try_from(connections).unwrap_or(u32::MAX)).min(drain / 2)
}

/// A connection's turn within the window. Without knowing of one another, turns lie evenly.
fn spread(number: u64, window: Duration) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "after 2^53 connections turns lie less evenly")]
    let fraction = (number as f64 * GOLDEN).fract();
    window.mul_f64(fraction)
}

/// When a client that is told now will be served again, in ms: at once when another generation accepts,
/// and after about this long when the port has to wait for one.
pub(super) fn restart_expected_ms(stance: Stance) -> u64 {
    match stance {
        Stance::Draining { newcomers: Newcomers::Leave, .. } => 0,
        _ => 1500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_lie_evenly_over_the_window() {
        let window = Duration::from_secs(10);
        let mut turns: Vec<_> = (500..600).map(|number| spread(number, window)).collect();
        turns.sort_unstable();
        assert!(turns.iter().all(|turn| *turn < window));
        let largest_gap = turns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(largest_gap < Duration::from_millis(300), "{largest_gap:?}");
    }

    #[test]
    fn the_window_is_never_more_than_half_of_the_drain_and_short_for_few() {
        let drain = Duration::from_secs(30);
        assert_eq!(window(drain, 1), Duration::from_millis(25));
        assert_eq!(window(drain, 40), Duration::from_secs(1));
        assert_eq!(window(drain, 10_000), Duration::from_secs(15));
        assert_eq!(window(drain, usize::MAX), Duration::from_secs(15));
        assert_eq!(window(Duration::ZERO, 100), Duration::ZERO);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let close = Close::policy(&"ä".repeat(100));
        assert_eq!(close.reason().len(), 120);
        let close = Close::policy(&format!("x{}", "ä".repeat(100)));
        assert_eq!(close.reason().len(), 119);
    }
}
