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
//! - Whoever follows it hears its end last.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{oneshot, watch};
use tokio::task::coop::consume_budget;

use super::ending::{Ending, Outcome};
use super::fallback;
use super::follow::{Ear, Followed};
use super::harness::{Past, Piece, Run, Usage};
use super::runs::{Asked, Place, Runs};
use super::told::Told;
use super::transcript::{Opened, Transcript};
use crate::metrics;

/// So many pieces are told before it is looked whether the run was ended.
const AT_ONCE: usize = 64;

/// What may end a run from outside.
pub(super) struct Ends {
    /// Somebody ends it.
    pub(super) ended: watch::Receiver<Option<Ending>>,
    /// The one it goes on for alone.
    pub(super) followed: Option<Followed>,
}

/// Carries a run out. Not cancel-safe: dropped, it leaves a run that never ends in the transcript.
pub(super) async fn carry_out(
    place: Place,
    asked: Asked,
    granted: oneshot::Receiver<()>,
    mut ends: Ends,
) -> Outcome {
    let session = asked.session.clone();
    let outcome = carried_out(&place, asked, granted, &mut ends).await;
    metrics::run(&outcome);
    if let Some(followed) = ends.followed {
        followed.ended(&outcome, &session);
    }
    outcome
}

async fn carried_out(
    place: &Place,
    asked: Asked,
    granted: oneshot::Receiver<()>,
    ends: &mut Ends,
) -> Outcome {
    let Asked { run, session, harness, turn, earlier, key } = asked;
    let runs = place.runs();
    let mut told = Told::new(runs.post().clone(), run.clone(), session.clone());
    let transcript = Transcript::new(runs.store().clone(), run.clone(), session.clone(), key);
    let ended_early = tokio::select! {
        biased;
        ending = ends.until_ended() => Some(ending),
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
    see(&runs, ends).await;
    told.keep(runs.store().hears(opened.speaker()));
    told.started();
    let harness = match opened.chosen() {
        Some(model) => harness.alone(model),
        None => harness,
    };
    let past = match Past::before(&run, &harness, opened.found(), earlier, runs.store()).await {
        Ok(past) => past,
        Err(unreadable) => {
            let outcome = Outcome::Failed(handoff::chain(&unreadable).to_string());
            let outcome = close(opened, outcome, told.text(), None).await;
            see(&runs, ends).await;
            told.ended(&outcome);
            return outcome;
        }
    };
    let (life, conversations) = (past.life().to_owned(), past.conversations().clone());
    let mut answering = harness.run(turn, past);
    let ear = ends.followed.as_ref().map(Followed::ear);
    let outcome = loop {
        // An answer that is all there does not keep others from their turn.
        consume_budget().await;
        let next = poll_fn(|context| poll_pieces(&mut answering, &mut told, ear.as_ref(), context));
        let said = tokio::select! {
            biased;
            _ = ends.until_ended() => break Outcome::Aborted,
            said = next => said,
        };
        match said {
            Said::Some => {}
            Said::All => break Outcome::Finished(told.text().to_owned()),
            Said::Failed(reason) => break Outcome::Failed(reason),
        }
    };
    let usage = answering.usage();
    if let Some(ear) = &ear {
        ear.cost(usage);
    }
    let outcome = close(opened, outcome, told.text(), usage).await;
    if let Some(conversation) = answering.conversation() {
        conversations.keep(conversation, &session, &life, runs.store()).await;
    }
    fallback::keep(runs.store(), &session, &run, answering.decisions()).await;
    see(&runs, ends).await;
    told.ended(&outcome);
    outcome
}

/// What came of listening to a run for a while.
enum Said {
    Some,
    All,
    Failed(String),
}

/// Tells what a run has to say now: a word that is there costs less than a look at everything else that may happen.
fn poll_pieces(
    run: &mut Run,
    told: &mut Told,
    ear: Option<&Ear>,
    context: &mut Context<'_>,
) -> Poll<Said> {
    let mut said = 0;
    let outcome = loop {
        match run.poll_piece(context) {
            Poll::Ready(Piece::Text(text)) => {
                told.piece(text);
                if let Some(ear) = ear {
                    ear.piece(text);
                }
                said += 1;
                if said == AT_ONCE {
                    break Poll::Ready(Said::Some);
                }
            }
            Poll::Ready(Piece::End) => break Poll::Ready(Said::All),
            Poll::Ready(Piece::Failed(failure)) => {
                metrics::run_failed(failure.reason);
                break Poll::Ready(Said::Failed(failure.to_string()));
            }
            Poll::Pending => break Poll::Pending,
        }
    };
    if let Some(ear) = ear.filter(|_| said > 0) {
        ear.wake();
    }
    outcome
}

impl Ends {
    /// Ends when somebody has ended the run, or nobody follows it any more who should.
    async fn until_ended(&mut self) -> Ending {
        let Self { ended, followed } = self;
        let left = async {
            match followed {
                Some(followed) => followed.gone().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ending = until_ended(ended) => ending,
            () = left => Ending::Aborted,
        }
    }
}

/// Has the overview see what this run has changed.
async fn see(runs: &Arc<Runs>, ends: &Ends) {
    if ends.followed.is_none() {
        runs.overview().refresh(runs.store()).await;
    } else {
        let runs = Arc::clone(runs);
        tokio::spawn(async move { runs.overview().refresh_soon(runs.store()).await });
    }
}

async fn close(opened: Opened, outcome: Outcome, text: &str, usage: Option<Usage>) -> Outcome {
    match opened.close(&outcome, text, usage).await {
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
