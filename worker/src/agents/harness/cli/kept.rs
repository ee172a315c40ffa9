//! What programs call the conversations of a session, kept with it: whoever runs its next turn goes on with them.
//!
//! **Invariants**
//! - What was kept of one life of a session is of no use to the next: a reset begins another.

use std::collections::BTreeMap;
use std::error::Error;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::warn;

use crate::agents::clock_ms;
use crate::agents::session::SessionKey;
use crate::state::store::Store;
use crate::state::store::sessions::{Session, SessionPatch};

/// The attribute of a session in which they are kept.
pub(crate) const ATTRIBUTE: &str = "cliSessions";

/// What the programs of each backend call a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conversations(BTreeMap<String, String>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    session_id: String,
    conversations: BTreeMap<String, String>,
}

impl Conversations {
    /// Those of this life of a session.
    pub(in super::super) fn read(session: &Session) -> Self {
        let kept = session.attributes.get(ATTRIBUTE);
        let kept = kept.and_then(|kept| Kept::deserialize(kept).ok());
        let kept = kept.filter(|kept| kept.session_id == session.session_id);
        Self(kept.map(|kept| kept.conversations).unwrap_or_default())
    }

    /// What the programs of this backend call it.
    pub(super) fn of(&self, backend: &str) -> Option<&str> {
        self.0.get(backend).map(String::as_str)
    }

    /// Keeps what one of them calls it by now, if that is news.
    pub(in crate::agents) async fn keep(
        mut self,
        (backend, conversation): (&str, &str),
        session: &SessionKey,
        life: &str,
        store: &Store,
    ) {
        if self.of(backend) == Some(conversation) {
            return;
        }
        self.0.insert(backend.to_owned(), conversation.to_owned());
        let kept = Kept { session_id: life.to_owned(), conversations: self.0 };
        let mut patch = SessionPatch::default();
        patch.attributes.insert(ATTRIBUTE.to_owned(), json!(kept));
        if let Err(failed) = store.patch_session(session.as_str(), patch, clock_ms()).await {
            let error = &failed as &dyn Error;
            warn!(error, "what a CLI calls its conversation is not kept");
        }
    }
}
