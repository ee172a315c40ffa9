//! A turn that several models are asked to answer, one after the other.
//!
//! ```text
//! asking ─► is its harness there? ─ no ─► 200 ms, three times ─► missing ─┐
//!   ▲              │ yes                                                  │
//!   │              ▼                                                      ▼
//!   │           running ─► pieces … ─► over              failed ─► what the policy says
//!   │              └──────────────────────────────────────┘                │
//!   └──────────── the next one, or the same one later ─────────────────────┴─► given up
//! ```
//!
//! **Invariants**
//! - Once part of an answer is out, nobody else is asked; what was said stays, and then the failure is told.
//! - Every decision is logged, once, in one line; a harness that is missing once, however many models want it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Sleep, sleep};
use tracing::{info, warn};

use super::Chain;
use super::candidates::ModelRef;
use super::policy::{Attempt, Next, Said, decide};
use super::stock::Found;
use super::texts;
use crate::agents::harness::{Failure, Past, Piece, Reason, Run, Turn, Usage};
use crate::metrics;

/// How often a harness that is missing is looked for again.
const LOOKS: u32 = 3;
/// The pause before each of them: a reload swaps harnesses in one go, and takes no longer.
const PAUSE: Duration = Duration::from_millis(200);

/// What was decided when a model had failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Decision {
    /// Which model.
    pub(crate) candidate: String,
    /// Why.
    pub(crate) reason: Reason,
    /// With which status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// In its words.
    pub(crate) detail: String,
    /// Which model was asked then; nothing when nobody was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// A turn under way.
#[derive(Debug)]
pub(crate) struct FallbackRun {
    chain: Chain,
    turn: Turn,
    past: Past,
    step: Step,
    attempts: Vec<Attempt>,
    decisions: Vec<Decision>,
    said: Said,
    text: String,
    usage: Option<Usage>,
    conversation: Option<(String, String)>,
    failure: Option<Failure>,
}

#[derive(Debug)]
enum Step {
    /// A candidate's harness is looked up, after a pause if there is one.
    Asking { candidate: usize, looks: u32, pause: Option<Pin<Box<Sleep>>> },
    /// It answers, or does not.
    Running { candidate: usize, run: Box<Run> },
    /// Nobody is asked any more.
    Over,
}

/// What a candidate that runs has to say.
enum Heard {
    Text,
    End,
    Failed(Failure),
}

impl FallbackRun {
    pub(super) fn new(chain: Chain, turn: Turn, past: Past) -> Self {
        Self {
            chain,
            turn,
            past,
            step: Step::Asking { candidate: 0, looks: 0, pause: None },
            attempts: Vec::new(),
            decisions: Vec::new(),
            said: Said::Nothing,
            text: String::new(),
            usage: None,
            conversation: None,
            failure: None,
        }
    }

    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Piece<'_>> {
        loop {
            match &mut self.step {
                Step::Asking { candidate, looks, pause } => {
                    let (candidate, looks) = (*candidate, *looks);
                    if let Some(pause) = pause {
                        ready!(pause.as_mut().poll(context));
                    }
                    self.ask(candidate, looks);
                }
                Step::Running { candidate, run } => {
                    let candidate = *candidate;
                    // The text is copied, so that what is told does not outlive the run it came from.
                    let heard = match ready!(run.poll_piece(context)) {
                        Piece::Text(text) => {
                            self.text.clear();
                            self.text.push_str(text);
                            Heard::Text
                        }
                        Piece::End => Heard::End,
                        Piece::Failed(failure) => Heard::Failed(failure.clone()),
                    };
                    if !matches!(heard, Heard::Text) {
                        let said = run.conversation();
                        let said = said.map(|(by, id)| (by.to_owned(), id.to_owned()));
                        self.conversation = said.or_else(|| self.conversation.take());
                    }
                    match heard {
                        Heard::Text => {
                            self.said = Said::Something;
                            return Poll::Ready(Piece::Text(&self.text));
                        }
                        Heard::End => {
                            self.usage = run.usage();
                            self.succeeded(candidate);
                        }
                        Heard::Failed(failure) => self.failed(candidate, failure),
                    }
                }
                Step::Over => {
                    return Poll::Ready(match &self.failure {
                        Some(failure) => Piece::Failed(failure),
                        None => Piece::End,
                    });
                }
            }
        }
    }

    /// What the answer cost, as the one says who gave it.
    pub(crate) const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// What the CLI agent that was asked last calls the conversation, and which backend's it is.
    pub(crate) fn conversation(&self) -> Option<(&str, &str)> {
        let known = self.conversation.as_ref();
        let known = known.map(|(backend, id)| (backend.as_str(), id.as_str()));
        match &self.step {
            Step::Running { run, .. } => run.conversation().or(known),
            Step::Asking { .. } | Step::Over => known,
        }
    }

    /// What was decided so far.
    pub(crate) fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Looks a candidate's harness up, and has it run if it is there.
    fn ask(&mut self, candidate: usize, looks: u32) {
        let Some(model) = self.chain.candidates.get(candidate) else {
            // There is none at all.
            self.give_up(Reason::Config);
            return;
        };
        match self.chain.stock.find(model) {
            Found::Here(harness) => {
                let run = harness.run(self.turn.clone(), self.past.clone());
                self.step = Step::Running { candidate, run: Box::new(run) };
            }
            Found::Missing if looks < LOOKS => {
                let pause = Some(Box::pin(sleep(PAUSE)));
                self.step = Step::Asking { candidate, looks: looks + 1, pause };
            }
            Found::Missing => {
                let words = format!("harness \"{}\" is not registered", model.harness);
                self.failed(candidate, Failure::new(Reason::HarnessMissing, &words));
            }
            Found::Unusable(failure) => self.failed(candidate, failure),
        }
    }

    fn succeeded(&mut self, candidate: usize) {
        self.step = Step::Over;
        if self.attempts.is_empty() {
            return;
        }
        info!(
            decision = "candidate_succeeded",
            requested = %self.name(0),
            candidate = %self.name(candidate),
            attempts = self.attempts.len() + 1,
            "model fallback decision"
        );
    }

    fn failed(&mut self, candidate: usize, failure: Failure) {
        let reason = failure.reason;
        metrics::model_failed(reason);
        self.attempts.push(Attempt { candidate, failure });
        let next = decide(&self.chain.candidates, &self.attempts, self.said);
        let next_name = match next {
            Next::Ask(next) => Some(self.name(next)),
            Next::Again(_) => Some(self.name(candidate)),
            Next::GiveUp => None,
        };
        self.note(candidate, next_name);
        match next {
            Next::Ask(candidate) => {
                self.step = Step::Asking { candidate, looks: 0, pause: None };
            }
            Next::Again(after) => {
                let pause = Some(Box::pin(sleep(after)));
                self.step = Step::Asking { candidate, looks: 0, pause };
            }
            Next::GiveUp => self.give_up(reason),
        }
    }

    /// Logs the last decision, and keeps it.
    fn note(&mut self, candidate: usize, next: Option<String>) {
        let Some(Attempt { failure, .. }) = self.attempts.last() else { return };
        let decision = Decision {
            candidate: self.name(candidate),
            reason: failure.reason,
            status: failure.status,
            detail: failure.detail.clone(),
            next,
        };
        warn!(
            decision = "candidate_failed",
            requested = %self.name(0),
            candidate = %decision.candidate,
            reason = decision.reason.name(),
            status = decision.status,
            next = decision.next.as_deref().unwrap_or("none"),
            detail = %decision.detail,
            "model fallback decision"
        );
        self.decisions.push(decision);
    }

    fn give_up(&mut self, reason: Reason) {
        let words = texts::failed(&self.chain.candidates, &self.attempts);
        self.failure = Some(Failure::summing_up(reason, &words));
        self.step = Step::Over;
    }

    fn name(&self, candidate: usize) -> String {
        self.chain.candidates.get(candidate).map(ModelRef::to_string).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;
    use crate::agents::fallback::Stock;
    use crate::agents::harness::Keeping;
    use crate::state::config::{Environment, Settled, understand};

    fn settled(text: &str) -> Settled {
        understand(text, &Environment::default()).unwrap().settled
    }

    fn run(candidates: &[(&str, &str)], message: &str) -> (FallbackRun, Arc<Stock>) {
        let stock = Arc::new(Stock::new("/state".into(), Keeping::default(), Duration::ZERO));
        let model = |(harness, model): &(&str, &str)| ModelRef {
            harness: (*harness).to_owned(),
            model: (*model).to_owned(),
        };
        let chain = Chain {
            candidates: candidates.iter().map(model).collect(),
            stock: Arc::clone(&stock),
            workspace: std::path::Path::new("/state").into(),
        };
        let turn = Turn { message: message.to_owned(), word_delay: None };
        (FallbackRun::new(chain, turn, Past::default()), stock)
    }

    /// What is said, and the words in which it fails if it does.
    async fn heard(run: &mut FallbackRun) -> (String, Option<String>) {
        let mut said = String::new();
        let failure = poll_fn(|context| {
            loop {
                match ready!(run.poll_piece(context)) {
                    Piece::Text(text) => said.push_str(text),
                    Piece::End => return Poll::Ready(None),
                    Piece::Failed(failure) => return Poll::Ready(Some(failure.to_string())),
                }
            }
        })
        .await;
        (said, failure)
    }

    #[tokio::test]
    async fn a_harness_that_a_reload_brings_is_not_missing() {
        let (mut run, stock) = run(&[("late", "m")], "hello");
        let first = poll_fn(|context| Poll::Ready(run.poll_piece(context).is_pending())).await;
        assert!(first, "it has not looked for it");
        stock.renew(&settled("{models: {providers: {late: {}}}}"), &Arc::default());
        let (_, failure) = heard(&mut run).await;
        let words =
            "no model answered: late/m: not asked: models.providers.late.baseUrl is not set";
        assert_eq!(failure.as_deref(), Some(words));
    }

    #[tokio::test]
    async fn a_harness_that_stays_missing_is_looked_for_three_times_and_passed_over() {
        let (mut run, _stock) = run(&[("gone", "a"), ("gone", "b"), ("echo", "")], "hello you");
        let begun_at = std::time::Instant::now();
        assert_eq!(heard(&mut run).await, ("hello you".to_owned(), None));
        assert!(begun_at.elapsed() >= PAUSE * LOOKS);
        assert_eq!(run.decisions().len(), 1, "{:?}", run.decisions());
        assert_eq!(run.decisions()[0].next.as_deref(), Some("echo"));
    }

    #[tokio::test]
    async fn what_fails_is_told_by_everybodys_words() {
        let (mut run, _stock) = run(&[("echo", "a"), ("echo", "b")], "/fail no idea");
        let words = "all 2 models failed: echo/a: no idea; echo/b: no idea";
        assert_eq!(heard(&mut run).await, (String::new(), Some(words.to_owned())));
        let again = poll_fn(|context| Poll::Ready(run.poll_piece(context).is_ready())).await;
        assert!(again, "it has no end");
    }

    #[tokio::test]
    async fn without_any_model_that_is_what_is_told() {
        let (mut run, _stock) = run(&[], "hello");
        assert_eq!(heard(&mut run).await.1.as_deref(), Some("no model is configured"));
    }
}
