//! The takeovers: asked for one after the other, each followed to its end.

use std::path::Path;

use handoff::message::GenerationId;

use super::book::Book;
use crate::control::client::{AskFailed, Conversation};
use crate::control::protocol::{Answer, Command, Outcome, TakeoverRequest};

/// How a takeover ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The drain cut so many connections, whosever they were.
    Committed {
        cut: u64,
    },
    NotMade {
        reason: String,
    },
}

/// Asks for a takeover and follows it, also when the front becomes another image meanwhile.
pub(super) async fn take_over(control: &Path, book: &Book) -> Result<Taken, AskFailed> {
    let request = TakeoverRequest { wait: true, ..TakeoverRequest::default() };
    let mut front = Conversation::begin(control, Command::Takeover(request)).await?;
    let (mut followed, mut let_go) = (None, false);
    loop {
        let answer = match front.next().await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                let takeover = followed.filter(|_| !let_go).ok_or(AskFailed::Gone)?;
                front = Conversation::begin(control, Command::Follow { takeover }).await?;
                let_go = true;
                continue;
            }
            Err(AskFailed::Refused { reason }) => return Ok(Taken::NotMade { reason }),
            Err(error) => return Err(error),
        };
        match answer {
            Answer::Requested { takeover } => (followed, let_go) = (Some(takeover), false),
            // With `stop-first` the incumbent drains before the switch.
            Answer::Emptying { .. } => book.drain_begins(),
            Answer::Committed { incumbent, .. } => drains(incumbent, book),
            Answer::RolledBack { .. } => book.drain_ends(),
            Answer::Done { outcome, cut, reason } => {
                book.drain_ends();
                return Ok(match outcome {
                    Outcome::Committed => Taken::Committed { cut },
                    Outcome::RolledBack => {
                        let reason = reason.unwrap_or_default();
                        Taken::NotMade { reason: format!("rolled back: {reason}") }
                    }
                });
            }
            _ => {}
        }
    }
}

fn drains(incumbent: Option<GenerationId>, book: &Book) {
    if incumbent.is_some() {
        book.drain_begins();
    }
}
