//! Asked twice, done once: what came of requests that carry an idempotency key.
//!
//! ```text
//! claim ─► New ─► (the run) ─► finish ─► claim ─► Done(result) … until it expires
//!      └─► InFlight(run) while somebody who lives is at it
//! ```
//!
//! **Invariants**
//! - Of all who claim a key at once, in however many processes, one is told `New`.
//! - A claim dies with its holder. Whoever asks again then is told `New`: what the first run had done by then is unknown,
//!   and a client that asks again wants an answer.
//! - Expired results are forgotten a few at a time, by whoever claims.

use rusqlite::{Connection, OptionalExtension as _};

use super::presence::Presence;
use super::{Store, StoreFailed};

/// How many expired results one claim forgets.
const SWEPT: u32 = 16;

/// What a claim found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nothing: the run is the caller's to begin.
    New,
    /// Somebody is at it.
    InFlight {
        /// Under this run.
        run_id: String,
    },
    /// It was done.
    Done {
        /// By this run.
        run_id: String,
        /// What was answered, as JSON.
        result: String,
    },
}

/// Why a result was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishFailed {
    /// The claim is not this run's any more.
    #[error("run {run_id} does not hold the idempotency key {key}")]
    NotClaimed {
        /// The run.
        run_id: String,
        /// The key.
        key: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

/// What is claimed: a key means something only together with what it was sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdempotencyKey {
    /// The method, and whose key it is.
    pub(crate) scope: String,
    /// The client's words.
    pub(crate) key: String,
}

impl Store {
    /// Claims `key` for `run_id`, until `expires_at_ms`.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn claim_key(
        &self,
        key: IdempotencyKey,
        run_id: &str,
        now_ms: i64,
        expires_at_ms: i64,
    ) -> Result<Claim, StoreFailed> {
        let presence = self.presence.clone();
        let run_id = run_id.to_owned();
        let work = move |connection: &Connection| {
            if let Some(claim) = found(connection, &presence, &key, now_ms)? {
                return Ok(Ok(claim));
            }
            let IdempotencyKey { scope, key } = &key;
            connection
                .prepare_cached(
                    "INSERT INTO idempotency (scope, key, run_id, holder, expires_at_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT (scope, key) DO UPDATE \
                     SET run_id = ?3, holder = ?4, result = NULL, expires_at_ms = ?5",
                )?
                .execute((scope, key, run_id, presence.holder().as_str(), expires_at_ms))?;
            connection
                .prepare_cached(
                    "DELETE FROM idempotency WHERE (scope, key) IN \
                     (SELECT scope, key FROM idempotency WHERE expires_at_ms <= ?1 LIMIT ?2)",
                )?
                .execute((now_ms, SWEPT))?;
            Ok(Ok::<_, super::Never>(Claim::New))
        };
        match self.write("claim an idempotency key", work).await? {
            Ok(claim) => Ok(claim),
            Err(never) => match never {},
        }
    }

    /// What is known of `key`: somebody who lives is at it, or it was done.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn claimed_key(
        &self,
        key: IdempotencyKey,
        now_ms: i64,
    ) -> Result<Option<Claim>, StoreFailed> {
        let presence = self.presence.clone();
        let work = move |connection: &Connection| found(connection, &presence, &key, now_ms);
        self.read("read an idempotency key", work).await
    }

    /// Keeps what came of a run, until `expires_at_ms`.
    ///
    /// # Errors
    /// [`FinishFailed`]
    pub(crate) async fn finish_key(
        &self,
        key: IdempotencyKey,
        run_id: &str,
        result: String,
        expires_at_ms: i64,
    ) -> Result<(), FinishFailed> {
        self.settle_key(key, run_id, Some((result, expires_at_ms))).await
    }

    /// Gives a claim back: the run never began, and whoever asks again may begin it.
    ///
    /// # Errors
    /// [`FinishFailed`]
    pub(crate) async fn release_key(
        &self,
        key: IdempotencyKey,
        run_id: &str,
    ) -> Result<(), FinishFailed> {
        self.settle_key(key, run_id, None).await
    }

    async fn settle_key(
        &self,
        key: IdempotencyKey,
        run_id: &str,
        result: Option<(String, i64)>,
    ) -> Result<(), FinishFailed> {
        let refused = FinishFailed::NotClaimed { run_id: run_id.to_owned(), key: key.key.clone() };
        let run_id = run_id.to_owned();
        let work = move |connection: &Connection| {
            let settled = match result {
                Some((result, expires_at_ms)) => {
                    keep(connection, &key, &run_id, &result, expires_at_ms)?
                }
                None => connection
                    .prepare_cached(
                        "DELETE FROM idempotency \
                         WHERE scope = ?1 AND key = ?2 AND run_id = ?3 AND result IS NULL",
                    )?
                    .execute((key.scope, key.key, run_id))?,
            };
            Ok(if settled == 1 { Ok(()) } else { Err(()) })
        };
        self.write("keep a result", work).await?.map_err(|()| refused)
    }
}

fn found(
    connection: &Connection,
    presence: &Presence,
    IdempotencyKey { scope, key }: &IdempotencyKey,
    now_ms: i64,
) -> rusqlite::Result<Option<Claim>> {
    let found: Option<(String, String, Option<String>)> = connection
        .prepare_cached(
            "SELECT run_id, holder, result FROM idempotency \
             WHERE scope = ?1 AND key = ?2 AND expires_at_ms > ?3",
        )?
        .query_row((scope, key, now_ms), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(match found {
        Some((run_id, _, Some(result))) => Some(Claim::Done { run_id, result }),
        Some((run_id, holder, None)) if presence.is_alive(&holder) => {
            Some(Claim::InFlight { run_id })
        }
        Some(_) | None => None,
    })
}

/// Keeps what came of a run, and says how many claims that has settled: one or none.
pub(super) fn keep(
    connection: &Connection,
    IdempotencyKey { scope, key }: &IdempotencyKey,
    run_id: &str,
    result: &str,
    expires_at_ms: i64,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "UPDATE idempotency SET result = ?4, expires_at_ms = ?5 \
             WHERE scope = ?1 AND key = ?2 AND run_id = ?3 AND result IS NULL",
        )?
        .execute((scope, key, run_id, result, expires_at_ms))
}

#[cfg(test)]
mod tests {
    use super::super::shared::Shared;
    use super::*;

    fn key(key: &str) -> IdempotencyKey {
        IdempotencyKey { scope: "chat.send".to_owned(), key: key.to_owned() }
    }

    #[tokio::test]
    async fn a_key_is_new_once_then_in_flight_then_done_until_it_expires() {
        let shared = Shared::new();
        let (g7, g8) = (shared.open("g7").await, shared.open("g8").await);
        assert_eq!(g7.claim_key(key("k"), "r1", 0, 100).await.unwrap(), Claim::New);
        let in_flight = Claim::InFlight { run_id: "r1".to_owned() };
        assert_eq!(g8.claim_key(key("k"), "r2", 1, 100).await.unwrap(), in_flight);
        let stranger = g8.finish_key(key("k"), "r2", "{}".to_owned(), 100).await.unwrap_err();
        assert!(matches!(stranger, FinishFailed::NotClaimed { .. }));
        g7.finish_key(key("k"), "r1", "{\"a\":1}".to_owned(), 200).await.unwrap();
        let done = Claim::Done { run_id: "r1".to_owned(), result: "{\"a\":1}".to_owned() };
        assert_eq!(g8.claim_key(key("k"), "r3", 199, 300).await.unwrap(), done);
        assert_eq!(g8.claim_key(key("k"), "r3", 200, 300).await.unwrap(), Claim::New);
    }

    #[tokio::test]
    async fn a_claim_dies_with_its_holder_and_a_result_does_not() {
        let shared = Shared::new();
        let (g7, g8) = (shared.open("g7").await, shared.open("g8").await);
        g7.claim_key(key("lost"), "r1", 0, 100).await.unwrap();
        g7.claim_key(key("kept"), "r2", 0, 100).await.unwrap();
        g7.finish_key(key("kept"), "r2", "1".to_owned(), 100).await.unwrap();
        drop(g7);
        assert_eq!(g8.claim_key(key("lost"), "r3", 1, 100).await.unwrap(), Claim::New);
        let kept = g8.claim_key(key("kept"), "r4", 1, 100).await.unwrap();
        assert!(matches!(kept, Claim::Done { .. }));
    }

    #[tokio::test]
    async fn what_was_released_may_be_claimed_and_what_expired_is_swept_away() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        for n in 0..40 {
            store.claim_key(key(&format!("k{n}")), "r", 0, 10).await.unwrap();
        }
        store.release_key(key("k0"), "r").await.unwrap();
        assert_eq!(store.claim_key(key("k0"), "r2", 1, 10).await.unwrap(), Claim::New);
        for n in 0..4 {
            store.claim_key(key(&format!("l{n}")), "r", 50, 60).await.unwrap();
        }
        assert_eq!(shared.count("idempotency"), 4);
    }

    #[tokio::test]
    async fn of_all_who_claim_at_once_one_is_told_that_it_is_new() {
        let shared = Shared::new();
        let stores = [shared.open("g7").await, shared.open("g8").await];
        for round in 0..20 {
            let claims = (0..8).map(|n| {
                let store = stores[n % 2].clone();
                let key = key(&format!("k{round}"));
                tokio::spawn(async move {
                    store.claim_key(key, &format!("r{n}"), 0, 100).await.unwrap()
                })
            });
            let claims = futures_util::future::join_all(claims).await;
            let new = claims.iter().filter(|claim| *claim.as_ref().unwrap() == Claim::New);
            assert_eq!(new.count(), 1);
        }
    }
}
