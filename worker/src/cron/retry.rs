//! What becomes of a job after a run: when one that failed is tried again.
//!
//! | job | went well | skipped | failed |
//! | --- | --- | --- | --- |
//! | recurs | as planned | as planned | not before 30 s, 1 min, 5 min, 15 min, then 60 min after its end |
//! | `at` | done, forgotten with `deleteAfterRun` | done | for a passing reason three times more: after 30 s, 1 min, 5 min |
//! | either, asked for | as planned | as planned | as planned |

use std::time::Duration;

use super::clock::Now;
use super::job::Job;
use super::planner::{ms, set};
use super::schedule::Schedule;
use crate::state::store::cron_afterwards::Afterwards;
use crate::state::store::cron_runs::{RunOutcome, Status};

/// After so many failures in a row a job is left alone for so long; after more, for as long as after the last.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
];
/// How often a job that runs once is tried again.
const TRIES: usize = 3;
/// What a failure says whose reason passes by itself.
const PASSING: [&str; 17] = [
    "rate limit",
    "rate_limit",
    "too many requests",
    "429",
    "resource has been exhausted",
    "tokens per day",
    "overloaded",
    "high demand",
    "capacity exceeded",
    "network",
    "econnreset",
    "econnrefused",
    "fetch failed",
    "socket",
    "timeout",
    "timed out",
    "etimedout",
];

/// What becomes of a job as it was when the run was claimed, which was due then unless somebody had asked for it.
pub(super) fn afterwards(
    job: &Job,
    outcome: &RunOutcome,
    due_at_ms: Option<i64>,
    now: Now,
) -> Afterwards {
    let failures = usize::try_from(job.stored.past.consecutive_errors).unwrap_or(0);
    let pause = PAUSES.get(failures).unwrap_or(&PAUSES[PAUSES.len() - 1]);
    let again = Afterwards::Postpone(set(now.wall_ms.saturating_add(ms(*pause)), now));
    let is_single = matches!(job.definition.schedule, Schedule::At { .. });
    match (outcome.status, is_single) {
        _ if due_at_ms.is_none() => Afterwards::Keep,
        (Status::Error, true) if failures < TRIES && passes(outcome.error.as_deref()) => again,
        (Status::Ok, true) if job.definition.delete_after_run == Some(true) => Afterwards::Remove,
        (_, true) => Afterwards::Disable,
        // One without a next run has come to its end.
        (Status::Error, false) if job.stored.next.is_some() => again,
        (_, false) => Afterwards::Keep,
    }
}

/// Whether a failure's reason may be gone soon.
fn passes(error: Option<&str>) -> bool {
    let error = error.unwrap_or_default().to_lowercase();
    let is_server_error = |word: &str| word.len() == 3 && word.starts_with('5');
    PASSING.iter().any(|reason| error.contains(reason))
        || error
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| is_server_error(word) && word.bytes().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::cron_jobs::{JobId, NextRun, Past, StoredJob};

    const NOW: Now = Now { wall_ms: 1_795_000_000_000, up: Duration::ZERO };

    fn job(schedule: &str, failures: i64, next: Option<NextRun>) -> Job {
        let definition = format!(
            r#"{{"name": "j", "schedule": {schedule}, "sessionTarget": "isolated", "wakeMode": "now",
                "payload": {{"kind": "agentTurn", "message": "m"}}, "deleteAfterRun": true}}"#
        );
        Job::read(StoredJob {
            id: JobId("j".to_owned()),
            definition,
            enabled: true,
            revision: 1,
            created_at_ms: 0,
            updated_at_ms: 0,
            next,
            requested: None,
            running: None,
            past: Past { consecutive_errors: failures, ..Past::default() },
        })
        .unwrap()
    }

    fn recurring(failures: i64) -> Job {
        let next = NextRun { at_ms: NOW.wall_ms + 1, set_at_ms: 0 };
        job(r#"{"kind": "every", "everyMs": 1000}"#, failures, Some(next))
    }

    fn single(failures: i64) -> Job {
        job(r#"{"kind": "at", "at": "2026-11-18T12:00:00Z"}"#, failures, None)
    }

    /// In how many seconds it is tried again.
    fn again(job: &Job, error: &str) -> Option<i64> {
        match afterwards(job, &RunOutcome::failed(error), Some(1), NOW) {
            Afterwards::Postpone(next) => Some((next.at_ms - NOW.wall_ms) / 1000),
            _ => None,
        }
    }

    #[test]
    fn a_job_that_fails_again_and_again_is_left_alone_for_longer_and_longer() {
        for (failures, seconds) in [(0, 30), (1, 60), (2, 300), (3, 900), (4, 3600), (99, 3600)] {
            assert_eq!(again(&recurring(failures), "no idea"), Some(seconds), "{failures}");
        }
    }

    #[test]
    fn a_job_that_runs_once_is_tried_again_for_a_reason_that_passes_and_only_so_often() {
        for (failures, seconds) in [(0, Some(30)), (1, Some(60)), (2, Some(300)), (3, None)] {
            assert_eq!(again(&single(failures), "timeout: it took longer than 1s"), seconds);
        }
        assert_eq!(again(&single(0), "no idea"), None);
    }

    #[test]
    fn reasons_that_pass_are_known_by_their_words() {
        for error in ["HTTP 503", "Rate limit exceeded", "ECONNRESET", "overloaded: x", "(502)"] {
            assert!(passes(Some(error)), "{error}");
        }
        for error in ["no idea", "5000 words", "HTTP 404", "54 of 5xx", ""] {
            assert!(!passes(Some(error)), "{error}");
        }
        assert!(!passes(None));
    }

    #[test]
    fn what_goes_well_or_was_asked_for_leaves_the_schedule_as_it_is() {
        let ok = RunOutcome::of(Status::Ok);
        let skipped = RunOutcome::of(Status::Skipped);
        let failed = RunOutcome::failed("timeout");
        let then = |job: &Job, outcome, due| afterwards(job, outcome, due, NOW);
        assert_eq!(then(&recurring(3), &ok, Some(1)), Afterwards::Keep);
        assert_eq!(then(&recurring(3), &skipped, Some(1)), Afterwards::Keep);
        assert_eq!(then(&recurring(3), &failed, None), Afterwards::Keep);
        assert_eq!(then(&single(0), &failed, None), Afterwards::Keep);
        assert_eq!(then(&single(0), &ok, Some(1)), Afterwards::Remove);
        assert_eq!(then(&single(0), &skipped, Some(1)), Afterwards::Disable);
        let over = job(r#"{"kind": "cron", "expr": "0 0 1 1 *"}"#, 0, None);
        assert_eq!(then(&over, &failed, Some(1)), Afterwards::Keep);
    }
}
