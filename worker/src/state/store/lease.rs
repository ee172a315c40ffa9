//! The writer lease: which generation may run the schedule.
//!
//! ```text
//! front ── Lease{grant 4} ──► g7: take(4) ─► epoch 11 ─► claim(epoch 11) … claim(epoch 11)
//! front ── Lease{grant 5} ──► g8: take(5) ─► epoch 12 ─► claim(epoch 12) …
//!                             g7: claim(epoch 11) ─► refused: the lease is g8's
//! ```
//!
//! The front's grants grow while that front lives, and begin anew with the next one. The epoch is the database's own, and
//! never begins anew.
//!
//! **Invariants**
//! - At most one holder's epoch is current.
//! - A write under another epoch is refused and changes nothing.
//! - A late `take` takes nothing from a living holder who was granted the lease after it.

use rusqlite::{Connection, OptionalExtension as _};

use super::{Store, StoreFailed};

/// One tenure of the writer lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(i64);

/// A write came from somebody who does not hold the lease any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer lease is {holder}'s since epoch {}", epoch.0)]
pub(crate) struct StaleEpoch {
    holder: String,
    epoch: Epoch,
}

/// Why the lease was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeRefused {
    /// Its holder lives and was granted it later, or it is another front's.
    #[error("{holder} is alive and holds the writer lease under grant {grant}")]
    Held {
        /// Who.
        holder: String,
        /// Under which grant.
        grant: i64,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

impl Store {
    /// Takes the writer lease, as the front has granted it. Asking twice is harmless.
    ///
    /// # Errors
    /// [`TakeRefused`]. What is held can be had once its holder is gone.
    pub(crate) async fn take_lease(&self, grant: u64) -> Result<Epoch, TakeRefused> {
        let presence = self.presence.clone();
        let grant = i64::try_from(grant).unwrap_or(i64::MAX);
        let work = move |connection: &Connection| {
            let ours = presence.holder().as_str();
            let row = connection
                .prepare_cached(
                    "SELECT holder, front_grant, epoch FROM lease WHERE name = 'writer'",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let epoch = match row {
                None => 1,
                Some((holder, held, epoch)) => {
                    let holder: String = holder;
                    if holder == ours && held == grant {
                        return Ok(Ok(Epoch(epoch)));
                    }
                    if held >= grant && presence.is_alive(&holder) {
                        return Ok(Err((holder, held)));
                    }
                    epoch + 1
                }
            };
            connection
                .prepare_cached(
                    "INSERT INTO lease (name, holder, front_grant, epoch) VALUES ('writer', ?1, ?2, ?3)
                     ON CONFLICT (name) DO UPDATE SET holder = ?1, front_grant = ?2, epoch = ?3",
                )?
                .execute((ours, grant, epoch))?;
            Ok(Ok(Epoch(epoch)))
        };
        let taken = self.write("take the writer lease", work).await?;
        taken.map_err(|(holder, grant)| TakeRefused::Held { holder, grant })
    }
}

/// Whether `holder` still has the lease under `epoch`. Part of each of the schedule's transactions.
pub(super) fn check(
    connection: &Connection,
    holder: &str,
    epoch: Epoch,
) -> rusqlite::Result<Result<(), StaleEpoch>> {
    let row: Option<(String, i64)> = connection
        .prepare_cached("SELECT holder, epoch FROM lease WHERE name = 'writer'")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match row {
        Some((current, at)) if current == holder && at == epoch.0 => Ok(()),
        Some((holder, at)) => Err(StaleEpoch { holder, epoch: Epoch(at) }),
        None => Err(StaleEpoch { holder: "nobody".to_owned(), epoch: Epoch(0) }),
    })
}

impl Epoch {
    /// As the database has it.
    pub(super) fn number(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::super::cron_afterwards::Afterwards;
    use super::super::cron_jobs::{Edit, JobId, NextRun, RescheduleFailed, RunId, Which};
    use super::super::cron_runs::{Cause, ClaimFailed, RunClaim};
    use super::super::shared::Shared;
    use super::*;

    #[tokio::test]
    async fn a_later_grant_takes_the_lease_and_an_earlier_one_does_not_take_it_back() {
        let shared = Shared::new();
        let (g7, g8) = (shared.open("g7").await, shared.open("g8").await);
        let first = g7.take_lease(4).await.unwrap();
        assert_eq!(g7.take_lease(4).await.unwrap(), first, "asking twice is harmless");
        let second = g8.take_lease(5).await.unwrap();
        assert!(second > first);
        let late = g7.take_lease(4).await.unwrap_err();
        assert!(matches!(late, TakeRefused::Held { grant: 5, .. }), "{late}");
    }

    #[tokio::test]
    async fn a_new_front_whose_grants_begin_anew_gets_it_once_the_holder_is_gone() {
        let shared = Shared::new();
        let g7 = shared.open("g7").await;
        let first = g7.take_lease(40).await.unwrap();
        let g1 = shared.open("g1").await;
        assert!(matches!(g1.take_lease(1).await.unwrap_err(), TakeRefused::Held { .. }));
        drop(g7);
        assert!(g1.take_lease(1).await.unwrap() > first);
    }

    #[tokio::test]
    async fn a_write_of_the_schedule_under_an_earlier_epoch_is_refused_and_changes_nothing() {
        let shared = Shared::new();
        let (g7, g8) = (shared.open("g7").await, shared.open("g8").await);
        let next = Some(NextRun { at_ms: 10, set_at_ms: 5 });
        let edit = Edit { definition: "{}".to_owned(), enabled: true, next };
        let job = g7.add_job(JobId("j".to_owned()), edit, 5).await.unwrap();
        let stale = g7.take_lease(1).await.unwrap();
        let current = g8.take_lease(2).await.unwrap();
        let claim = |run_id: &str| RunClaim {
            job: job.id.clone(),
            revision: job.revision,
            cause: Cause::Due { at_ms: 10, next: None },
            run_id: RunId(run_id.to_owned()),
            now_ms: 10,
        };
        let refused = g7.claim_run(stale, claim("r1")).await.unwrap_err();
        assert!(matches!(refused, ClaimFailed::Stale(_)), "{refused}");
        let refused = g7.skip_run(stale, claim("r1"), "", Afterwards::Remove).await.unwrap_err();
        assert!(matches!(refused, ClaimFailed::Stale(_)), "{refused}");
        let refused = g7.reschedule_job(stale, &job, None).await.unwrap_err();
        assert!(matches!(refused, RescheduleFailed::Stale(_)), "{refused}");
        let refused = g7.abandon_runs(stale, 10).await.unwrap_err();
        assert!(matches!(refused, ClaimFailed::Stale(_)), "{refused}");
        // Not even with the right number: it is another's.
        let refused = g7.claim_run(current, claim("r1")).await.unwrap_err();
        assert!(matches!(refused, ClaimFailed::Stale(_)), "{refused}");
        assert_eq!(g8.jobs(Which::All).await.unwrap(), from_ref(&job));
        assert_eq!(shared.count("cron_runs"), 0);
        g8.claim_run(current, claim("r1")).await.unwrap();
        let again = g8.claim_run(current, claim("r2")).await.unwrap_err();
        assert!(matches!(again, ClaimFailed::Running { .. }), "{again}");
    }
}
