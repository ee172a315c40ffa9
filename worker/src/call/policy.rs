//! Whether a call is made again. Pure: no socket, no clock.
//!
//! ```text
//! what it means   nothing sent        sent, harmless again   sent, harmful again
//! Restart         after a pause       after a pause          never
//! Starting(t)     after t             after t                never
//! Over            never               never                  never
//! ```

use std::time::Duration;

use super::exchange::Sent;
use super::repeat::Repeat;

/// The pauses before the second attempt and the following: a restart takes 0.5 to 2 s.
pub(super) const PAUSES: [Duration; 4] = [
    Duration::from_millis(150),
    Duration::from_millis(350),
    Duration::from_millis(750),
    Duration::from_millis(1500),
];
/// The shortest and the longest pause that a gateway which starts can ask for.
const STARTING: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What the end of an attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The gateway restarts, or may.
    Restart,
    /// The gateway starts, and wants to be asked again after this time.
    Starting(Duration),
    /// Asking again changes nothing, or there is no time.
    Over,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is tried again after the next of [`PAUSES`], if there is one.
    AfterPause,
    /// It is tried again after this time.
    After(Duration),
    /// It is not tried again.
    Never,
}

/// What is done after an attempt.
pub(super) fn next(meaning: Meaning, sent: Sent, repeat: Repeat) -> Next {
    match (meaning, sent, repeat) {
        (Meaning::Over, _, _) | (_, Sent::Request, Repeat::Harmful) => Next::Never,
        (Meaning::Restart, Sent::Nothing, _)
        | (Meaning::Restart, Sent::Request, Repeat::Reads | Repeat::Keyed) => Next::AfterPause,
        (Meaning::Starting(wish), Sent::Nothing, _)
        | (Meaning::Starting(wish), Sent::Request, Repeat::Reads | Repeat::Keyed) => {
            Next::After(wish.clamp(STARTING.0, STARTING.1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_in_each_situation_is_followed_by_what_the_table_says() {
        use Meaning::{Over, Restart, Starting};
        let wish = Duration::from_millis(500);
        for (meaning, nothing, harmless, harmful) in [
            (Restart, Next::AfterPause, Next::AfterPause, Next::Never),
            (Starting(wish), Next::After(wish), Next::After(wish), Next::Never),
            (Over, Next::Never, Next::Never, Next::Never),
        ] {
            for repeat in [Repeat::Reads, Repeat::Keyed, Repeat::Harmful] {
                assert_eq!(next(meaning, Sent::Nothing, repeat), nothing, "{meaning:?} {repeat:?}");
            }
            for repeat in [Repeat::Reads, Repeat::Keyed] {
                assert_eq!(
                    next(meaning, Sent::Request, repeat),
                    harmless,
                    "{meaning:?} {repeat:?}"
                );
            }
            assert_eq!(next(meaning, Sent::Request, Repeat::Harmful), harmful, "{meaning:?}");
        }
    }

    #[test]
    fn a_gateway_that_starts_is_asked_again_neither_at_once_nor_much_later() {
        for (wish, expected) in [(0, 100), (99, 100), (700, 700), (2001, 2000), (u64::MAX, 2000)] {
            let starting = Meaning::Starting(Duration::from_millis(wish));
            let expected = Next::After(Duration::from_millis(expected));
            assert_eq!(next(starting, Sent::Nothing, Repeat::Harmful), expected);
        }
    }
}
