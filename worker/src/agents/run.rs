//! One run being carried out, from its lane to its last event.
//!
//! ```text
//! waits ─► granted ─► begun in the transcript ─► started ─► pieces … ─► ended in the transcript ─► told
//!   └──── aborted, or its lane was cleared ──────────────────────────────────────────────────────────┘
//! ```
//!
//! **Invariants**
//! - Nobody is told that a run has ended before its transcript says so.
//! - What the database cannot keep fails the run, for that reason.
//! - One that ends while it waits for its lane leaves nothing in the transcript.

use std::future::poll_fn;

use tokio::sync::{oneshot, watch};

use super::harness::Piece;
use super::runs::{Asked, Ending, Outcome, Place};
use super::told::Told;
use super::transcript::{Opened, Transcript};

/// Carries a run out. Not cancel-safe: dropped, it leaves a run that never ends in the transcript.
pub(super) async fn carry_out(
    place: Place,
    asked: Asked,
    granted: oneshot::Receiver<()>,
    mut ended: watch::Receiver<Option<Ending>>,
) -> Outcome {
    let Asked { run, session, harness, turn, key } = asked;
    let runs = place.runs();
    let mut told = Told::new(runs.post().clone(), run.clone(), session.clone());
    let transcript = Transcript::new(runs.store().clone(), run, session, key);
    let ended_early = tokio::select! {
        biased;
        ending = until_ended(&mut ended) => Some(ending),
        _ = granted => None,
    };
    if let Some(ending) = ended_early {
        let outcome = match ending {
            Ending::Aborted => Outcome::Aborted,
            Ending::LaneCleared => Outcome::LaneCleared,
        };
        transcript.never_opened(&outcome).await;
        told.ended(&outcome);
        return outcome;
    }
    let opened = match transcript.open(&turn.message).await {
        Ok(opened) => opened,
        Err(outcome) => {
            told.ended(&outcome);
            return outcome;
        }
    };
    runs.overview().refresh(runs.store()).await;
    told.started();
    let mut run = harness.run(turn);
    let outcome = loop {
        let next = poll_fn(|context| {
            run.poll_piece(context).map(|piece| match piece {
                Piece::Text(text) => {
                    told.piece(text);
                    None
                }
                Piece::End => Some(None),
                Piece::Failed(reason) => Some(Some(reason.to_owned())),
            })
        });
        let piece = tokio::select! {
            biased;
            _ = until_ended(&mut ended) => break Outcome::Aborted,
            piece = next => piece,
        };
        match piece {
            None => {}
            Some(None) => break Outcome::Finished(told.text().to_owned()),
            Some(Some(reason)) => break Outcome::Failed(reason),
        }
    };
    let outcome = close(opened, outcome, told.text()).await;
    runs.overview().refresh(runs.store()).await;
    told.ended(&outcome);
    outcome
}

async fn close(opened: Opened, outcome: Outcome, text: &str) -> Outcome {
    match opened.close(&outcome, text).await {
        Ok(()) => outcome,
        Err(failed) => failed,
    }
}

async fn until_ended(ended: &mut watch::Receiver<Option<Ending>>) -> Ending {
    // The sender lives as long as the run's place.
    let ending = ended.wait_for(Option::is_some).await.map(|ending| *ending);
    match ending {
        Ok(Some(ending)) => ending,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}
