//! What is due, decided without a clock, a store or a task.
//!
//! | schedule | due when | after a jump of the wall clock | after sleep or downtime |
//! | --- | --- | --- | --- |
//! | `every` | so much time has passed (`Now::up`) | not moved; its time on the wall is corrected | missed |
//! | `cron`, `at` | the wall clock says so | forwards: missed; backwards: not repeated | missed |
//!
//! - *Missed* is what could not begin within [`MISSED_AFTER`]: then the job's `missedRuns` decides, `once` or `skip`.
//! - However many instants pass before a run can begin, they are one run.
//! - A next run that was computed more than [`WRONG_BY`] after the present is of a clock that was wrong,
//!   and is computed again. Up to then an instant that has run does not run again because a clock went back.
//! - A machine whose clock says less than 2025 does not know the time yet; `cron` and `at` wait until it does.
//!
//! A successor, and a worker that was started again, know only the wall clock's side of it.

use std::time::Duration;

use super::clock::Now;
use super::intervals::Intervals;
use super::job::{Job, MissedRuns};
use crate::state::store::cron_jobs::{NextRun, RunId};

/// What begins later than this after its time was missed.
pub(crate) const MISSED_AFTER: Duration = Duration::from_secs(60);
/// At least so often the clocks are compared while there are jobs: a sleep follows neither a
/// wall clock that is set nor a machine that was suspended.
pub(super) const RECHECK: Duration = Duration::from_secs(15);
/// A clock that goes back by more than this was wrong before. It is Vixie cron's limit too.
const WRONG_BY: Duration = Duration::from_secs(3 * 60 * 60);
/// The wall clock and the time since the start may differ by so much from one look to the next.
pub(super) const SLACK: Duration = Duration::from_secs(2);
/// 1 January 2025. A clock before it was never set.
const SET_SINCE_MS: i64 = 1_735_689_600_000;

/// What to do now.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What is due, the earliest first. Each refers to a job by its place.
    pub(super) due: Vec<Due>,
    /// Which jobs have another time than the store says.
    pub(super) moved: Vec<(usize, Option<NextRun>)>,
    /// Until when nothing needs to be looked at; `None` when nothing is scheduled.
    pub(super) sleep: Option<Duration>,
}

/// A job that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Which, by its place.
    pub(super) job: usize,
    /// Why.
    pub(super) why: Why,
}

/// Why a job is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked.
    Requested(RunId),
    /// Its time has come.
    Time {
        /// When that was.
        at_ms: i64,
        /// When it is due again.
        next: Option<NextRun>,
        /// What to do about it.
        step: Step,
    },
}

/// What to do about an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Run.
    Run,
    /// Record that it was missed.
    Skip,
}

/// Plans.
#[derive(Debug, Default)]
pub(super) struct Planner {
    intervals: Intervals,
}

/// How it stands with a job.
pub(super) enum Outlook {
    /// It is due, and that late.
    Due { late: Duration },
    /// It is due in so long.
    In(Duration),
    /// Its next run is at another time, or never.
    Moved(Option<NextRun>),
}

impl Planner {
    /// What to do now about these jobs.
    pub(super) fn due(&mut self, now: Now, jobs: &[Job]) -> Plan {
        let mut plan = Plan::default();
        let mut seen = Intervals::default();
        for (place, job) in jobs.iter().enumerate() {
            let stored = &job.stored;
            if let (Some(run), None) = (&stored.requested, &stored.running) {
                plan.due.push(Due { job: place, why: Why::Requested(run.clone()) });
            }
            let (true, Some(next)) = (stored.enabled, stored.next) else { continue };
            let wait = match self.outlook(now, job, next, &mut seen) {
                Outlook::In(wait) => wait,
                Outlook::Moved(next) => {
                    plan.moved.push((place, next));
                    Duration::ZERO
                }
                Outlook::Due { .. } if stored.running.is_some() || stored.requested.is_some() => {
                    RECHECK
                }
                Outlook::Due { late } => {
                    plan.due.push(Due { job: place, why: instant(now, job, next, late) });
                    RECHECK
                }
            };
            plan.sleep = Some(plan.sleep.map_or(wait, |sleep| sleep.min(wait)).min(RECHECK));
        }
        // What was removed or disabled is forgotten.
        self.intervals = seen;
        plan.due.sort_by_key(|due| match &due.why {
            Why::Requested(_) => i64::MIN,
            Why::Time { at_ms, .. } => *at_ms,
        });
        plan
    }

    fn outlook(&self, now: Now, job: &Job, next: NextRun, seen: &mut Intervals) -> Outlook {
        let wrong = next.set_at_ms.saturating_sub(now.wall_ms) > ms(WRONG_BY);
        if !job.timetable.follows_the_wall() {
            return self.intervals.outlook(now, &job.stored, (next, wrong), seen);
        }
        if now.wall_ms < SET_SINCE_MS {
            return Outlook::In(RECHECK);
        }
        if wrong {
            let again = job.timetable.first(now.wall_ms);
            return Outlook::Moved(again.map(|at_ms| set(at_ms, now)));
        }
        match u64::try_from(next.at_ms.saturating_sub(now.wall_ms)) {
            Ok(0) => Outlook::Due { late: Duration::ZERO },
            Ok(ahead) => Outlook::In(Duration::from_millis(ahead)),
            Err(_) => Outlook::Due { late: since(next.at_ms, now.wall_ms) },
        }
    }
}

fn instant(now: Now, job: &Job, next: NextRun, late: Duration) -> Why {
    let at_ms = next.at_ms;
    let again = if job.timetable.follows_the_wall() {
        job.timetable.following(now.wall_ms.max(at_ms))
    } else {
        // The grid goes on from when it was due by what has passed, wherever the wall clock is by now.
        // A wall clock that was not set says the same, but for a rounding that would add up.
        let was_ms = now.wall_ms.saturating_sub(ms(late));
        let was_set = was_ms.abs_diff(at_ms) > ms(SLACK).unsigned_abs();
        job.timetable.continued(if was_set { was_ms } else { at_ms }, ms(late))
    };
    let step = match job.definition.missed_runs {
        MissedRuns::Skip if late > MISSED_AFTER => Step::Skip,
        MissedRuns::Skip | MissedRuns::Once => Step::Run,
    };
    Why::Time { at_ms, next: again.map(|at_ms| set(at_ms, now)), step }
}

/// A next run that was computed now.
pub(super) fn set(at_ms: i64, now: Now) -> NextRun {
    NextRun { at_ms, set_at_ms: now.wall_ms }
}

/// How long after `from_ms` is `to_ms`; zero if it is before.
pub(super) fn since(from_ms: i64, to_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0))
}

/// In whole ms.
pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::state::store::cron_jobs::{JobId, Past, Running, StoredJob};

    const START: i64 = 1_795_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn at(wall_ms: i64, up_ms: i64) -> Now {
        Now { wall_ms, up: Duration::from_millis(up_ms.unsigned_abs()) }
    }

    fn job(schedule: &str, missed: &str, next_ms: i64, set_at_ms: i64) -> Job {
        let definition = format!(
            r#"{{"name": "j", "schedule": {schedule}, "sessionTarget": "isolated", "wakeMode": "now",
                "payload": {{"kind": "agentTurn", "message": "m"}}, "missedRuns": "{missed}"}}"#
        );
        Job::read(StoredJob {
            id: JobId("j".to_owned()),
            definition,
            enabled: true,
            revision: 1,
            created_at_ms: START,
            updated_at_ms: START,
            next: Some(NextRun { at_ms: next_ms, set_at_ms }),
            requested: None,
            running: None,
            past: Past::default(),
        })
        .unwrap()
    }

    fn hourly(missed: &str) -> Job {
        job(r#"{"kind": "every", "everyMs": 3600000}"#, missed, START + HOUR, START)
    }

    /// Every hour on the hour, in UTC. The first one after the start is half an hour or so away.
    fn on_the_hour(missed: &str) -> (Job, i64) {
        let schedule = r#"{"kind": "cron", "expr": "0 * * * *", "tz": "UTC"}"#;
        let first = (START / HOUR + 1) * HOUR;
        (job(schedule, missed, first, START), first)
    }

    fn due(plan: &Plan) -> Option<(i64, i64, Step)> {
        match plan.due.as_slice() {
            [] => None,
            [Due { why: Why::Time { at_ms, next, step }, .. }] => {
                Some((*at_ms, next.map_or(0, |next| next.at_ms), *step))
            }
            other => panic!("one at most: {other:?}"),
        }
    }

    fn moved(job: &mut Job, plan: &Plan) -> i64 {
        job.stored.next = plan.moved[0].1;
        job.stored.next.unwrap().at_ms
    }

    #[test]
    fn an_interval_does_not_drift_by_what_its_clocks_round() {
        let job = hourly("once");
        let mut planner = Planner::default();
        planner.due(at(START, 1_000_000), from_ref(&job));
        let up =
            Duration::from_millis(1_000_000 + HOUR.unsigned_abs()) + Duration::from_micros(200);
        let plan = planner.due(Now { wall_ms: START + HOUR + 1, up }, from_ref(&job));
        assert_eq!(due(&plan), Some((START + HOUR, START + 2 * HOUR, Step::Run)));
    }

    #[test]
    fn without_jobs_there_is_nothing_to_wake_up_for() {
        assert_eq!(Planner::default().due(at(START, 0), &[]).sleep, None);
        let mut disabled = hourly("once");
        disabled.stored.enabled = false;
        assert_eq!(Planner::default().due(at(START, 0), from_ref(&disabled)).sleep, None);
    }

    #[test]
    fn a_job_is_due_at_its_time_and_not_before() {
        for (job, first) in [(hourly("once"), START + HOUR), on_the_hour("once")] {
            let mut planner = Planner::default();
            let early = planner.due(at(first - 1, first - 1 - START), from_ref(&job));
            assert_eq!((due(&early), early.sleep), (None, Some(Duration::from_millis(1))));
            let far = Planner::default().due(at(START, 0), from_ref(&job));
            assert_eq!(far.sleep, Some(RECHECK), "a sleep is never long");
            let plan = planner.due(at(first, first - START), from_ref(&job));
            assert_eq!(due(&plan), Some((first, first + HOUR, Step::Run)));
        }
    }

    #[test]
    fn instants_that_pass_while_nobody_is_there_are_one_run_or_none_as_the_job_says() {
        let later = START + 5 * HOUR + HOUR / 4;
        for (missed, step) in [("once", Step::Run), ("skip", Step::Skip)] {
            let plan = Planner::default().due(at(later, 7), from_ref(&hourly(missed)));
            assert_eq!(due(&plan), Some((START + HOUR, START + 6 * HOUR, step)));
            let (job, first) = on_the_hour(missed);
            let plan = Planner::default().due(at(first + 5 * HOUR + 61_000, 7), from_ref(&job));
            assert_eq!(due(&plan), Some((first, first + 6 * HOUR, step)));
        }
        let (job, first) = on_the_hour("skip");
        let plan = Planner::default().due(at(first + 60_000, 7), from_ref(&job));
        assert_eq!(due(&plan), Some((first, first + HOUR, Step::Run)), "a minute is not late");
    }

    #[test]
    fn an_interval_is_what_has_passed_whatever_the_wall_clock_does() {
        for jump in [-400 * 24 * HOUR, -HOUR, 2 * HOUR, 400 * 24 * HOUR] {
            let mut planner = Planner::default();
            let mut hourly = hourly("skip");
            planner.due(at(START, 0), from_ref(&hourly));
            // Twenty minutes later the clock is set.
            let passed = HOUR / 3;
            let plan = planner.due(at(START + passed + jump, passed), from_ref(&hourly));
            assert_eq!(due(&plan), None, "jump {jump}");
            assert_eq!(
                moved(&mut hourly, &plan),
                START + HOUR + jump,
                "the wall's side is corrected"
            );
            let almost = planner.due(at(START + HOUR - 1 + jump, HOUR - 1), from_ref(&hourly));
            assert_eq!((due(&almost), almost.moved.len()), (None, 0));
            let plan = planner.due(at(START + HOUR + jump, HOUR), from_ref(&hourly));
            let expected = (START + HOUR + jump, START + 2 * HOUR + jump, Step::Run);
            assert_eq!(due(&plan), Some(expected), "jump {jump}");
        }
    }

    #[test]
    fn a_correction_that_was_not_written_is_tried_again() {
        let mut planner = Planner::default();
        let mut hourly = hourly("skip");
        planner.due(at(START, 0), from_ref(&hourly));
        for passed in [1000, 2000] {
            let plan = planner.due(at(START + passed + 5 * HOUR, passed), from_ref(&hourly));
            assert_eq!((due(&plan), plan.moved.len()), (None, 1));
        }
        hourly.stored.next = Some(NextRun { at_ms: START + 6 * HOUR, set_at_ms: START });
        let plan = planner.due(at(START + 3000 + 5 * HOUR, 3000), from_ref(&hourly));
        assert_eq!((due(&plan), plan.moved.len()), (None, 0));
    }

    #[test]
    fn a_machine_that_slept_has_missed_what_it_slept_through() {
        for (missed, step) in [("once", Step::Run), ("skip", Step::Skip)] {
            let mut planner = Planner::default();
            let hourly = hourly(missed);
            planner.due(at(START, 0), from_ref(&hourly));
            // Both clocks went on: CLOCK_BOOTTIME counts sleep.
            let slept = 5 * HOUR + 1000;
            let plan = planner.due(at(START + slept, slept), from_ref(&hourly));
            assert_eq!(due(&plan), Some((START + HOUR, START + 6 * HOUR, step)));
        }
    }

    #[test]
    fn a_wall_clock_that_jumps_forwards_over_an_instant_has_missed_it() {
        for (missed, step) in [("once", Step::Run), ("skip", Step::Skip)] {
            let (job, first) = on_the_hour(missed);
            let mut planner = Planner::default();
            planner.due(at(START, 0), from_ref(&job));
            let plan = planner.due(at(first + 2 * HOUR + 90_000, 1000), from_ref(&job));
            assert_eq!(due(&plan), Some((first, first + 3 * HOUR, step)));
        }
    }

    #[test]
    fn a_wall_clock_that_goes_back_repeats_nothing_unless_it_was_wrong() {
        let (mut job, first) = on_the_hour("once");
        // It has run at `first`, and is due an hour later; then the clock goes back by two.
        job.stored.next = Some(NextRun { at_ms: first + HOUR, set_at_ms: first });
        let plan = Planner::default().due(at(first - 2 * HOUR, 0), from_ref(&job));
        assert_eq!((due(&plan), plan.moved.len()), (None, 0));
        // It goes back by a year: what was computed before means nothing.
        let year = 365 * 24 * HOUR;
        let plan = Planner::default().due(at(first - year - 1, 0), from_ref(&job));
        assert_eq!(moved(&mut job, &plan), first - year);
        // And so for an interval that nobody has watched.
        let mut hourly = hourly("once");
        let plan = Planner::default().due(at(START - year, 0), from_ref(&hourly));
        assert_eq!(moved(&mut hourly, &plan), START - year + HOUR);
    }

    #[test]
    fn a_clock_that_was_never_set_makes_calendars_wait_and_intervals_not() {
        let (job, _) = on_the_hour("once");
        let plan = Planner::default().due(at(5 * HOUR, 0), from_ref(&job));
        assert_eq!((due(&plan), plan.moved.len(), plan.sleep), (None, 0, Some(RECHECK)));
        let hourly = job_made_in_1970();
        let mut planner = Planner::default();
        planner.due(at(0, 0), from_ref(&hourly));
        assert!(due(&planner.due(at(HOUR, HOUR), from_ref(&hourly))).is_some());
    }

    fn job_made_in_1970() -> Job {
        job(r#"{"kind": "every", "everyMs": 3600000, "anchorMs": 0}"#, "once", HOUR, 0)
    }

    #[test]
    fn a_single_instant_runs_once_and_has_no_next() {
        let schedule = r#"{"kind": "at", "at": "2026-11-18T12:00:00Z"}"#;
        let noon = 1_795_003_200_000;
        let job = job(schedule, "once", noon, START);
        let plan = Planner::default().due(at(noon + 5, 0), from_ref(&job));
        let Why::Time { next: None, at_ms, .. } = plan.due[0].why else { panic!("{plan:?}") };
        assert_eq!(at_ms, noon);
    }

    #[test]
    fn a_running_job_is_not_due_again_and_a_requested_one_is_due_at_once() {
        let mut running = hourly("once");
        let holder = "g7".to_owned();
        let run_id = RunId("r".to_owned());
        running.stored.running = Some(Running { run_id: run_id.clone(), holder, at_ms: START });
        let plan = Planner::default().due(at(START + 2 * HOUR, 0), from_ref(&running));
        assert_eq!((plan.due.len(), plan.sleep), (0, Some(RECHECK)));
        let mut asked = hourly("once");
        asked.stored.enabled = false;
        asked.stored.requested = Some(run_id.clone());
        let plan = Planner::default().due(at(START, 0), from_ref(&asked));
        assert_eq!(plan.due, [Due { job: 0, why: Why::Requested(run_id) }]);
    }
}
