//! Jobs that are due when so much time has passed, wherever the clock on the wall is by then.
//!
//! ```text
//! first seen ─► due by the time since the start ─► due
//!                  └─ the wall clock was set: its side of it is corrected in the store
//! ```
//!
//! **Invariants**
//! - An interval that was seen once follows the clock that only grows; the store's time on the wall is for those who
//!   see it for the first time: a successor, and a worker that was started again.

use std::collections::HashMap;
use std::time::Duration;

use super::clock::Now;
use super::planner::{Outlook, SLACK, ms, set, since};
use crate::state::store::cron_jobs::{JobId, NextRun, StoredJob};

/// Remembers by which time since the start each interval ends.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    known: HashMap<JobId, Interval>,
}

#[derive(Clone, Copy, Debug)]
struct Interval {
    revision: i64,
    at_ms: i64,
    /// What the store was asked to say instead, and does not say before that has gone well.
    corrected_ms: Option<i64>,
    due_up: Duration,
}

impl Intervals {
    /// How it stands with an interval whose next run the store says, and whether that was computed by a clock that
    /// was wrong. What is to be remembered of it is put into `seen`.
    pub(super) fn outlook(
        &self,
        now: Now,
        job: &StoredJob,
        (next, wrong): (NextRun, bool),
        seen: &mut Self,
    ) -> Outlook {
        let known = self.known.get(&job.id).filter(|known| {
            let as_known = known.at_ms == next.at_ms || known.corrected_ms == Some(next.at_ms);
            known.revision == job.revision && as_known
        });
        let Some(known) = known else {
            if wrong {
                // How much of the interval had passed is not known; all of it begins anew.
                let span = next.at_ms.saturating_sub(next.set_at_ms).max(0);
                return Outlook::Moved(Some(set(now.wall_ms.saturating_add(span), now)));
            }
            let ahead = since(now.wall_ms, next.at_ms);
            let interval = Interval {
                revision: job.revision,
                at_ms: next.at_ms,
                corrected_ms: None,
                due_up: now.up.saturating_add(ahead),
            };
            seen.known.insert(job.id.clone(), interval);
            return if ahead.is_zero() {
                Outlook::Due { late: since(next.at_ms, now.wall_ms) }
            } else {
                Outlook::In(ahead)
            };
        };
        if let Some(late) = now.up.checked_sub(known.due_up) {
            seen.known.insert(job.id.clone(), *known);
            return Outlook::Due { late };
        }
        let ahead = known.due_up.saturating_sub(now.up);
        let on_the_wall = now.wall_ms.saturating_add(ms(ahead));
        let was_set = on_the_wall.abs_diff(next.at_ms) > ms(SLACK).unsigned_abs();
        let corrected_ms = if was_set { Some(on_the_wall) } else { known.corrected_ms };
        let at_ms = if was_set { next.at_ms } else { known.at_ms };
        seen.known.insert(job.id.clone(), Interval { at_ms, corrected_ms, ..*known });
        if was_set { Outlook::Moved(Some(set(on_the_wall, now))) } else { Outlook::In(ahead) }
    }
}
