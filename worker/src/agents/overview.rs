//! How many sessions there are and which were used last, as `health` says it without asking the database.
//!
//! **Invariants**
//! - After whatever changes it here it is refreshed before that is told; what the generation beside changes
//!   is seen when somebody looks for the second time, or when that generation is gone.

use std::error::Error;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::warn;

use super::DEFAULT_AGENT;
use crate::state::store::session_list::SessionFilter;
use crate::state::store::sessions::Session;
use crate::state::store::{Store, StoreFailed};

/// How many of the sessions that were used last are known.
const RECENT: u32 = 10;

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Overview {
    seen: ArcSwap<Seen>,
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

    /// Looks again.
    pub(crate) async fn refresh(&self, store: &Store) {
        match look(store).await {
            Ok(seen) => self.seen.store(Arc::new(seen)),
            Err(failed) => {
                warn!(error = &failed as &dyn Error, "how many sessions there are is not known");
            }
        }
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
