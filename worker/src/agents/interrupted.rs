//! Runs that were interrupted: their generation was killed, and this one finds what they had said.
//!
//! **Invariants**
//! - What was told of them is in the history, once, and everybody is told that there is no more.
//! - Whoever asks again under the same key has the run begun again.

use std::error::Error;
use std::sync::Arc;

use tracing::{info, warn};

use super::ending::Outcome;
use super::runs::Runs;
use super::session::SessionKey;
use super::told::Told;
use super::transcript::{clock_ms, message};
use crate::state::store::said::Interrupted;

/// Why there is no more of an answer.
const INTERRUPTED: &str = "interrupted: the worker ended before the run did";

/// Ends the runs that dead generations have left.
pub(crate) async fn recover(runs: &Arc<Runs>) {
    let store = runs.store().clone();
    // A panic there has said why, and leaves them to the next worker.
    let Ok(found) = tokio::task::spawn_blocking(move || store.interrupted()).await else { return };
    for interrupted in found {
        end(runs, interrupted).await;
    }
}

async fn end(runs: &Runs, interrupted: Interrupted) {
    let Interrupted { speaker, text, seq, .. } = interrupted.clone();
    let (run, store) = (speaker.run, runs.store());
    let answer = (!text.is_empty()).then(|| message(&run, "assistant", &text));
    match store.recover(interrupted, answer, clock_ms()).await {
        Ok(true) => {
            info!(run, session = speaker.session, "a run was interrupted by the end of its worker");
            runs.overview().refresh(store).await;
            let (post, session) = (runs.post().clone(), SessionKey::named(&speaker.session));
            let mut told = Told::resumed(post, run, session, (seq, text));
            told.ended(&Outcome::Failed(INTERRUPTED.to_owned()));
        }
        Ok(false) => {}
        Err(failed) => {
            warn!(error = &failed as &dyn Error, "what an interrupted run had said waits");
        }
    }
}
