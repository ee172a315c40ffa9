//! How many sessions there are and which were used last, as `health` says it without asking the database.
//!
//! **Invariants**
//! - After whatever changes it here it is refreshed before that is told; after a completion over HTTP, of which there
//!   may be thousands a second, within a quarter of a second. What the generation beside changes is seen with the next
//!   change here, or when that generation is gone.
//! - However many ask for it at a time, the database is asked by one of them: a look that begins after a change sees it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tracing::warn;

use super::DEFAULT_AGENT;
use crate::state::store::session_list::SessionFilter;
use crate::state::store::sessions::Session;
use crate::state::store::{Store, StoreFailed};

/// How many of the sessions that were used last are known.
const RECENT: u32 = 10;
/// How long what changes often may go unseen: counting takes the longer the more sessions there are.
const SOON: Duration = Duration::from_millis(250);

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Overview {
    seen: ArcSwap<Seen>,
    /// How often it was asked for.
    asked: AtomicU64,
    /// Up to which of these it was seen.
    answered: Mutex<u64>,
    /// A look that is to come sees what has changed by then.
    comes_soon: AtomicBool,
}

/// What was seen at one time.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Of all agents.
    pub(crate) count: u64,
    /// Of the default agent.
    pub(crate) count_of_default: u64,
    /// The latest used first.
    pub(crate) recent: Vec<Session>,
}

impl Overview {
    /// What was seen last.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        self.seen.load_full()
    }

    /// Looks again in a while, once for all that ask by then.
    pub(super) async fn refresh_soon(&self, store: &Store) {
        if self.comes_soon.swap(true, Ordering::SeqCst) {
            return;
        }
        tokio::time::sleep(SOON).await;
        self.comes_soon.store(false, Ordering::SeqCst);
        self.refresh(store).await;
    }

    /// Looks again, or waits for somebody else's look that begins from now on.
    pub(crate) async fn refresh(&self, store: &Store) {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answered = self.answered.lock().await;
        if *answered >= number {
            return;
        }
        let asked = self.asked.load(Ordering::SeqCst);
        match look(store).await {
            Ok(seen) => self.seen.store(Arc::new(seen)),
            Err(failed) => {
                warn!(error = &failed as &dyn Error, "how many sessions there are is not known");
            }
        }
        *answered = asked;
    }
}

async fn look(store: &Store) -> Result<Seen, StoreFailed> {
    let filter = SessionFilter {
        include_global: true,
        include_unknown: true,
        limit: Some(RECENT),
        ..SessionFilter::default()
    };
    let page = store.sessions(filter).await?;
    let count_of_default = store.session_count(Some(DEFAULT_AGENT)).await?;
    Ok(Seen { count: page.total, count_of_default, recent: page.sessions })
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::state::store::shared::Shared;
    use crate::state::store::turns::NewTurn;

    #[tokio::test]
    async fn everybody_who_looks_after_a_change_sees_it_also_when_many_look_at_once() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        let overview = Overview::default();
        join_all((0..50).map(|number| {
            let (store, overview) = (&store, &overview);
            async move {
                let session = super::super::SessionKey::named(&format!("s{number}"));
                let message = crate::state::store::messages::NewMessage {
                    role: "user".to_owned(),
                    content: "[]".to_owned(),
                    run_id: None,
                };
                let session = super::super::new_session(&session);
                let key = session.key.clone();
                store.begin_turn(NewTurn { session, message, at_ms: number }).await.unwrap();
                overview.refresh(store).await;
                let seen = overview.seen();
                let is_here = seen.recent.iter().any(|session| session.key == key);
                let later = seen.recent.iter().filter(|s| s.updated_at_ms > number).count();
                assert!(is_here || later == seen.recent.len(), "{key} is not seen");
            }
        }))
        .await;
        assert_eq!(overview.seen().count, 50);
    }
}
