//! What was decided when models failed, kept with the session: `sessions.get` shows it.
//!
//! **Invariants**
//! - Of a session's turns the latest one is kept in which a model failed; it says which run it was.

use std::error::Error;

use serde_json::json;
use tracing::warn;

use super::Decision;
use crate::agents::clock_ms;
use crate::agents::session::SessionKey;
use crate::state::store::Store;
use crate::state::store::sessions::SessionPatch;

/// The attribute of a session in which it is kept.
pub(crate) const ATTRIBUTE: &str = "modelFallback";

/// Keeps what was decided in a run, if anything was.
pub(in crate::agents) async fn keep(
    store: &Store,
    session: &SessionKey,
    run: &str,
    decisions: &[Decision],
) {
    if decisions.is_empty() {
        return;
    }
    let at_ms = clock_ms();
    let kept = json!({"runId": run, "at": at_ms, "decisions": decisions});
    let mut patch = SessionPatch::default();
    patch.attributes.insert(ATTRIBUTE.to_owned(), kept);
    if let Err(failed) = store.patch_session(session.as_str(), patch, at_ms).await {
        warn!(error = &failed as &dyn Error, "what was decided when a model failed is not kept");
    }
}
