//! When a job runs: once, every so often, or as a cron expression says.
//!
//! What cron expressions mean when the clocks change (tested for Berlin and New York below):
//!
//! | expression | in spring, 02:00–03:00 does not exist | in autumn, 02:00–03:00 exists twice |
//! | --- | --- | --- |
//! | names an hour and a minute: `30 2 * * *` | runs at 03:00, when the gap ends | runs once, the first time |
//! | has a `*` or `/` in its time of day: `*/30 * * * *` | runs whenever the clock on the wall matches | runs in both hours |
//!
//! So a daily job runs once on every day of the year, and a half-hourly one every half hour of real time. They are
//! Vixie cron's rules (cron(8), "Daylight Saving Time and other time changes").
//!
//! **Invariants**
//! - Instants of a schedule are strictly increasing; none is before the one that was asked from.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned, civil};
use serde::{Deserialize, Serialize};

/// When a job runs, in the words of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Schedule {
    /// Once.
    At {
        /// ISO 8601; in UTC unless it says otherwise.
        at: String,
    },
    /// Again and again.
    Every {
        /// How often.
        every_ms: i64,
        /// Counted from when. From when the job was made, unless told.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        anchor_ms: Option<i64>,
    },
    /// By the calendar.
    Cron {
        /// Five fields, or six with seconds first, or seven with years last.
        expr: String,
        /// An IANA time zone. The machine's, unless told.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        tz: Option<String>,
        /// Within how many ms after its time a job may run. Each job has its own place there, always the same.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        stagger_ms: Option<i64>,
    },
}

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScheduleInvalid {
    /// No date.
    #[error("at /schedule/at: must be an ISO 8601 time (got {at:?})")]
    Instant {
        /// What was there.
        at: String,
    },
    /// No time zone.
    #[error("at /schedule/tz: unknown time zone {tz:?}")]
    Zone {
        /// What was there.
        tz: String,
    },
    /// No expression.
    #[error("at /schedule/expr: {reason} (got {expr:?})")]
    Expression {
        /// What was there.
        expr: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A schedule, understood.
#[derive(Clone, Debug)]
pub(crate) enum Timetable {
    /// Once.
    Once {
        /// When.
        at_ms: i64,
    },
    /// Again and again.
    Interval {
        /// How often; at least 1.
        every_ms: i64,
        /// Counted from when.
        anchor_ms: i64,
    },
    /// By the calendar.
    Calendar {
        /// The expression.
        cron: Box<croner::Cron>,
        /// Where.
        zone: TimeZone,
        /// How long after each match.
        offset_ms: i64,
    },
}

impl Schedule {
    /// Understands the schedule of the job `id`, which was made at `created_at_ms`.
    ///
    /// # Errors
    /// [`ScheduleInvalid`]
    pub(crate) fn timetable(
        &self,
        id: &str,
        created_at_ms: i64,
    ) -> Result<Timetable, ScheduleInvalid> {
        match self {
            Self::At { at } => {
                let at_ms =
                    instant(at).ok_or_else(|| ScheduleInvalid::Instant { at: at.clone() })?;
                Ok(Timetable::Once { at_ms })
            }
            Self::Every { every_ms, anchor_ms } => Ok(Timetable::Interval {
                every_ms: (*every_ms).max(1),
                anchor_ms: anchor_ms.unwrap_or(created_at_ms).max(0),
            }),
            Self::Cron { expr, tz, stagger_ms } => Ok(Timetable::Calendar {
                cron: Box::new(expression(expr)?),
                zone: zone(tz.as_deref())?,
                offset_ms: place(id, stagger_ms.unwrap_or(0)),
            }),
        }
    }
}

impl Timetable {
    /// The first instant after `after_ms`; for `at`, its instant, also when that has passed.
    pub(crate) fn first(&self, after_ms: i64) -> Option<i64> {
        match self {
            Self::Once { at_ms } => Some(*at_ms),
            Self::Interval { .. } | Self::Calendar { .. } => self.following(after_ms),
        }
    }

    /// The first instant after `after_ms`.
    pub(crate) fn following(&self, after_ms: i64) -> Option<i64> {
        match self {
            Self::Once { at_ms } => (*at_ms > after_ms).then_some(*at_ms),
            Self::Interval { every_ms, anchor_ms } => {
                if after_ms < *anchor_ms {
                    return Some(*anchor_ms);
                }
                let begun = after_ms.checked_sub(*anchor_ms)? / every_ms;
                anchor_ms.checked_add(begun.checked_add(1)?.checked_mul(*every_ms)?)
            }
            Self::Calendar { cron, zone, offset_ms } => {
                let after = Timestamp::from_millisecond(after_ms.checked_sub(*offset_ms)?).ok()?;
                let mut from = after.to_zoned(zone.clone());
                // An instant just before a second is before that second. A second try would do; a
                // third says that something is wrong, and then there is no next instant.
                for _ in 0..3 {
                    let found = cron.find_next_occurrence(&from, false).ok()?;
                    if found.timestamp() > after {
                        return found.timestamp().as_millisecond().checked_add(*offset_ms);
                    }
                    from = found;
                }
                None
            }
        }
    }

    /// The first instant of an interval's grid that is more than `late_ms` after `due_ms`, which is on
    /// the grid. `None` for anything but an interval.
    pub(crate) fn continued(&self, due_ms: i64, late_ms: i64) -> Option<i64> {
        let Self::Interval { every_ms, .. } = self else { return None };
        due_ms.checked_add((late_ms.max(0) / every_ms).checked_add(1)?.checked_mul(*every_ms)?)
    }

    /// Whether it keeps time by the clock on the wall, rather than by what has passed.
    pub(crate) const fn follows_the_wall(&self) -> bool {
        !matches!(self, Self::Interval { .. })
    }
}

/// The instant that `text` names, in ms.
pub(super) fn instant(text: &str) -> Option<i64> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Some(zoned.timestamp().as_millisecond());
    }
    let utc = |civil: civil::DateTime| civil.to_zoned(TimeZone::UTC).ok();
    utc(text.parse().ok()?).map(|zoned| zoned.timestamp().as_millisecond())
}

fn expression(expr: &str) -> Result<croner::Cron, ScheduleInvalid> {
    let refused = |reason: String| ScheduleInvalid::Expression { expr: expr.to_owned(), reason };
    let cron: croner::Cron = expr.parse().map_err(|error| refused(format!("{error}")))?;
    // What matches nothing (30 February) would be searched for through the centuries at each pass.
    let from = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    match cron.find_next_occurrence(&from, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(refused("it never comes true".to_owned())),
    }
}

fn zone(tz: Option<&str>) -> Result<TimeZone, ScheduleInvalid> {
    match tz {
        None => Ok(TimeZone::try_system().unwrap_or(TimeZone::UTC)),
        Some(tz) => TimeZone::get(tz).map_err(|_| ScheduleInvalid::Zone { tz: tz.to_owned() }),
    }
}

/// A job's own place in its stagger window: FNV-1a of its id, so that it is the same in every process.
fn place(id: &str, window_ms: i64) -> i64 {
    let Ok(window) = u64::try_from(window_ms) else { return 0 };
    if window == 0 {
        return 0;
    }
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::try_from(hash % window).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        instant(text).unwrap()
    }

    fn cron(expr: &str, tz: &str) -> Timetable {
        let tz = Some(tz.to_owned());
        let schedule = Schedule::Cron { expr: expr.to_owned(), tz, stagger_ms: None };
        schedule.timetable("job", 0).unwrap()
    }

    /// All instants after `from` and until `to`, as the clock on the wall shows them.
    fn between(table: &Timetable, from: &str, to: &str, tz: &str) -> Vec<String> {
        let (mut at, end) = (ms(from), ms(to));
        let zone = TimeZone::get(tz).unwrap();
        let mut all = Vec::new();
        while let Some(next) = table.following(at) {
            assert!(next > at, "instants increase");
            if next > end {
                break;
            }
            let zoned = Timestamp::from_millisecond(next).unwrap().to_zoned(zone.clone());
            all.push(zoned.strftime("%d. %H:%M %Z").to_string());
            at = next;
        }
        all
    }

    #[test]
    fn in_spring_a_daily_job_in_the_gap_runs_when_the_gap_ends() {
        let berlin = cron("30 2 * * *", "Europe/Berlin");
        let (from, to) = ("2026-03-27T23:00Z", "2026-03-30T22:00Z");
        assert_eq!(
            between(&berlin, from, to, "Europe/Berlin"),
            ["28. 02:30 CET", "29. 03:00 CEST", "30. 02:30 CEST"]
        );
        let new_york = cron("30 2 * * *", "America/New_York");
        let (from, to) = ("2026-03-07T05:00Z", "2026-03-10T03:00Z");
        assert_eq!(
            between(&new_york, from, to, "America/New_York"),
            ["07. 02:30 EST", "08. 03:00 EDT", "09. 02:30 EDT"]
        );
    }

    #[test]
    fn in_autumn_a_daily_job_in_the_repeated_hour_runs_once_the_first_time() {
        let berlin = cron("30 2 * * *", "Europe/Berlin");
        let (from, to) = ("2026-10-23T22:00Z", "2026-10-26T22:00Z");
        assert_eq!(
            between(&berlin, from, to, "Europe/Berlin"),
            ["24. 02:30 CEST", "25. 02:30 CEST", "26. 02:30 CET"]
        );
        let new_york = cron("30 1 * * *", "America/New_York");
        let (from, to) = ("2026-10-31T04:00Z", "2026-11-03T04:00Z");
        assert_eq!(
            between(&new_york, from, to, "America/New_York"),
            ["31. 01:30 EDT", "01. 01:30 EDT", "02. 01:30 EST"]
        );
    }

    #[test]
    fn a_half_hourly_job_runs_every_half_hour_of_real_time_whatever_the_clocks_do() {
        for (tz, from, to) in [
            ("Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z"),
            ("Europe/Berlin", "2026-10-24T12:00Z", "2026-10-25T12:00Z"),
            ("America/New_York", "2026-03-07T12:00Z", "2026-03-08T12:00Z"),
            ("America/New_York", "2026-10-31T12:00Z", "2026-11-01T12:00Z"),
        ] {
            let table = cron("*/30 * * * *", tz);
            let mut at = ms(from);
            let mut runs = 0;
            while at < ms(to) {
                let next = table.following(at).unwrap();
                assert_eq!(next - at, 30 * 60 * 1000, "{tz} after {at}");
                (at, runs) = (next, runs + 1);
            }
            assert_eq!(runs, 48, "{tz}");
        }
    }

    #[test]
    fn a_job_of_one_hour_with_a_wildcard_has_no_runs_in_the_gap_and_twice_as_many_in_the_fold() {
        let table = cron("*/20 2 * * *", "Europe/Berlin");
        let spring = between(&table, "2026-03-28T22:00Z", "2026-03-29T22:00Z", "Europe/Berlin");
        assert!(spring.is_empty(), "{spring:?}");
        let autumn = between(&table, "2026-10-24T22:00Z", "2026-10-25T22:00Z", "Europe/Berlin");
        let expected =
            ["02:00 CEST", "02:20 CEST", "02:40 CEST", "02:00 CET", "02:20 CET", "02:40 CET"];
        assert_eq!(autumn, expected.map(|time| format!("25. {time}")));
    }

    #[test]
    fn every_day_of_years_of_changes_has_one_run_of_a_daily_job() {
        for tz in ["Europe/Berlin", "America/New_York"] {
            for expr in ["30 2 * * *", "0 3 * * *", "59 1 * * *"] {
                let table = cron(expr, tz);
                let runs = between(&table, "2024-01-01T12:00Z", "2028-01-01T12:00Z", tz);
                assert_eq!(runs.len(), 4 * 365 + 1, "{expr} in {tz}");
            }
        }
    }

    #[test]
    fn an_interval_keeps_to_its_anchor() {
        let table =
            Schedule::Every { every_ms: 100, anchor_ms: None }.timetable("j", 1050).unwrap();
        for (after, next) in [(0, 1050), (1049, 1050), (1050, 1150), (1149, 1150), (9999, 10050)] {
            assert_eq!(table.following(after), Some(next));
        }
        assert_eq!(table.following(i64::MAX), None, "no overflow");
    }

    #[test]
    fn a_single_instant_is_never_repeated() {
        let at = "2026-05-01T10:00:00+02:00".to_owned();
        let table = Schedule::At { at }.timetable("j", 0).unwrap();
        let instant = ms("2026-05-01T08:00:00Z");
        assert_eq!(table.first(instant + 5), Some(instant), "missed is not forgotten");
        assert_eq!(table.following(instant - 1), Some(instant));
        assert_eq!(table.following(instant), None);
        assert_eq!(ms("2026-05-01T08:00:00"), instant, "UTC unless it says otherwise");
        assert_eq!(ms("2026-05-01T10:00:00[Europe/Berlin]"), instant);
        assert_eq!(ms("2026-05-01"), instant - 8 * 3_600_000);
    }

    #[test]
    fn a_stagger_moves_a_job_to_its_own_place_in_the_window() {
        let schedule = Schedule::Cron {
            expr: "0 * * * *".to_owned(),
            tz: Some("UTC".to_owned()),
            stagger_ms: Some(300_000),
        };
        let hour = ms("2026-05-01T08:00:00Z");
        let mut offsets = Vec::new();
        for id in ["a", "b", "c"] {
            let table = schedule.timetable(id, 0).unwrap();
            let first = table.following(hour - 1).unwrap();
            let offset = first - hour;
            assert!((0..300_000).contains(&offset));
            assert_eq!(table.following(first), Some(first + 3_600_000));
            offsets.push(offset);
        }
        offsets.dedup();
        assert_eq!(offsets.len(), 3);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let complaint = |schedule: Schedule| schedule.timetable("j", 0).unwrap_err().to_string();
        let cron = |expr: &str, tz: Option<&str>| Schedule::Cron {
            expr: expr.to_owned(),
            tz: tz.map(str::to_owned),
            stagger_ms: None,
        };
        assert!(complaint(cron("61 * * * *", None)).starts_with("at /schedule/expr: "));
        assert!(complaint(cron("", None)).starts_with("at /schedule/expr: "));
        assert_eq!(
            complaint(cron("0 0 30 2 *", None)),
            "at /schedule/expr: it never comes true (got \"0 0 30 2 *\")"
        );
        assert_eq!(
            complaint(cron("* * * * *", Some("Mars/Olympus"))),
            "at /schedule/tz: unknown time zone \"Mars/Olympus\""
        );
        assert_eq!(
            complaint(Schedule::At { at: "soon".to_owned() }),
            "at /schedule/at: must be an ISO 8601 time (got \"soon\")"
        );
    }
}
