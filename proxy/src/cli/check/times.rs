//! Deadlines that cannot work together, or that clients notice.

use std::time::Duration;

use humantime::format_duration as spoken;

use super::finding::{Finding, Subject};
use super::{Times, Worker};
use crate::event::TakeoverOrder;

/// What OpenClaw's gateway takes to be ready, and somewhat more.
const OPENCLAW_READY: Duration = Duration::from_secs(20);

/// What is found of the deadlines.
pub(super) fn of(times: &Times, worker: Worker) -> Vec<Finding> {
    let mut found: Vec<_> = [
        never_ready(times),
        long_hold(times),
        too_short_for_openclaw(times, worker),
        no_soak(times),
        no_drain(times),
        no_stop(times),
    ]
    .into_iter()
    .flatten()
    .collect();
    if found.is_empty() {
        found.push(Finding::ok(Subject::Times, "they work together"));
    }
    found
}

fn never_ready(times: &Times) -> Option<Finding> {
    let Times { ready, ready_after, .. } = *times;
    if ready.is_zero() {
        let advice =
            "give --ready-timeout the time that the program needs, 60s unless you know better";
        return Some(Finding::error(Subject::Times, "nobody is ready within no time", advice));
    }
    let after = ready_after.filter(|after| *after >= ready)?;
    let says = format!(
        "the program is taken to be ready after {} (--ready-after) and killed after {} (--ready-timeout)",
        spoken(after),
        spoken(ready)
    );
    Some(Finding::error(Subject::Times, says, "make --ready-timeout the longer one"))
}

fn long_hold(times: &Times) -> Option<Finding> {
    let Times { order, ready, drain, hold, .. } = *times;
    if order != TakeoverOrder::StopFirst || drain + ready <= hold {
        return None;
    }
    let says = format!(
        "with one instance at a time clients may wait for {} in a takeover: the old program has {} to stop \
         (--drain-timeout) and the new one {} to be ready (--ready-timeout), and after {} they are turned away \
         (--hold-timeout)",
        spoken(drain + ready),
        spoken(drain),
        spoken(ready),
        spoken(hold)
    );
    Some(Finding::warning(Subject::Times, says, "shorten the first two to what the program needs"))
}

fn too_short_for_openclaw(times: &Times, worker: Worker) -> Option<Finding> {
    let short =
        worker == Worker::OpenClaw && times.ready < OPENCLAW_READY && !times.ready.is_zero();
    short.then(|| {
        let says = format!(
            "OpenClaw's gateway takes some ten seconds to be ready, more on a busy machine, and has {}",
            spoken(times.ready)
        );
        Finding::warning(Subject::Times, says, "write --ready-timeout 2m")
    })
}

fn no_soak(times: &Times) -> Option<Finding> {
    times.soak.is_zero().then(|| {
        let says = "a new worker that fails right after it is ready is not rolled back";
        Finding::warning(Subject::Times, says, "give --soak some time, 1s unless you know better")
    })
}

fn no_drain(times: &Times) -> Option<Finding> {
    times.drain.is_zero().then(|| {
        let says = "what runs when a worker is replaced, and cannot move, is cut at once";
        Finding::warning(Subject::Times, says, "give --drain-timeout what a request may take")
    })
}

fn no_stop(times: &Times) -> Option<Finding> {
    (times.stop.is_zero() && !times.drain.is_zero()).then(|| {
        let says = "what runs when the front is stopped is cut at once";
        let advice = "give --stop-timeout some seconds less than whoever stops the front waits";
        Finding::warning(Subject::Times, says, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn plain() -> Times {
        Times {
            order: TakeoverOrder::StartFirst,
            ready: s(60),
            ready_after: None,
            soak: s(1),
            drain: s(30),
            stop: s(30),
            hold: s(60),
        }
    }

    fn only(times: &Times, worker: Worker) -> (Grade, String) {
        let [finding] = &of(times, worker)[..] else { panic!("one finding for {times:?}") };
        (finding.grade, finding.says.clone())
    }

    #[test]
    fn the_defaults_work_together() {
        assert_eq!(only(&plain(), Worker::Bundled).0, Grade::Ok);
        assert_eq!(only(&plain(), Worker::OpenClaw).0, Grade::Ok);
    }

    #[test]
    fn one_instance_at_a_time_may_have_clients_wait_longer_than_they_are_held() {
        let exclusive = Times { order: TakeoverOrder::StopFirst, ..plain() };
        let (grade, says) = only(&exclusive, Worker::Other);
        assert!(grade == Grade::Warning && says.contains("1m 30s"), "{says}");
        let short = Times { drain: s(10), ready: s(20), ..exclusive };
        assert_eq!(only(&short, Worker::Other).0, Grade::Ok);
    }

    #[test]
    fn a_program_that_is_killed_before_it_is_taken_to_be_ready_is_an_error() {
        for times in [
            Times { ready_after: Some(s(60)), ..plain() },
            Times { ready: Duration::ZERO, ..plain() },
        ] {
            assert_eq!(only(&times, Worker::Other).0, Grade::Error, "{times:?}");
        }
        assert_eq!(
            only(&Times { ready_after: Some(s(59)), ..plain() }, Worker::Other).0,
            Grade::Ok
        );
    }

    #[test]
    fn openclaw_needs_more_time_than_others() {
        let short = Times { ready: s(10), ..plain() };
        assert_eq!(only(&short, Worker::OpenClaw).0, Grade::Warning);
        assert_eq!(only(&short, Worker::Other).0, Grade::Ok);
    }

    #[test]
    fn a_soak_a_drain_or_a_stop_of_no_time_is_noticed() {
        for times in [
            Times { soak: Duration::ZERO, ..plain() },
            Times { drain: Duration::ZERO, ..plain() },
            Times { stop: Duration::ZERO, ..plain() },
        ] {
            assert_eq!(only(&times, Worker::Bundled).0, Grade::Warning, "{times:?}");
        }
    }
}
