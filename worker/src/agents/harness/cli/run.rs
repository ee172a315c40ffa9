//! A turn of a CLI agent, as whoever wants its answer pulls it.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::{Failure, Past, Piece, Usage};
use super::failure::CliFailure;
use super::pool::Pool;
use super::program::Asked;
use super::turn::Fragment;

/// How many fragments wait for whoever listens.
const FRAGMENTS: usize = 16;

/// A model of a CLI agent.
#[derive(Clone, Debug)]
pub(crate) struct Cli {
    pool: Pool,
    /// Which model; the program chooses when this is empty.
    model: String,
    /// How long a turn may take.
    timeout: Duration,
}

impl Cli {
    /// What this model of these programs answers, if it takes no longer than that.
    pub(super) const fn new(pool: Pool, model: String, timeout: Duration) -> Self {
        Self { pool, model, timeout }
    }

    /// A turn. Nothing happens until it is polled.
    pub(in super::super) fn run(&self, message: String, past: &Past) -> CliRun {
        let model = Some(self.model.clone()).filter(|model| !model.is_empty());
        let asked = Asked::of(past, self.pool.id(), message, model, self.timeout);
        let begins = Some(Box::new((self.pool.clone(), asked)));
        CliRun { begins, ..CliRun::default() }
    }
}

/// A turn of a CLI agent. Dropping it cancels it.
#[derive(Debug, Default)]
pub(crate) struct CliRun {
    /// Until it is polled first.
    begins: Option<Box<(Pool, Asked)>>,
    /// Who answers, since then.
    pool: Option<Pool>,
    fragments: Option<mpsc::Receiver<Fragment>>,
    /// What was said last.
    said: String,
    called: Option<String>,
    usage: Option<Usage>,
    failure: Option<Failure>,
}

impl CliRun {
    /// The next piece of the answer; not to be asked for again after its end.
    pub(in super::super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Piece<'_>> {
        if let Some(begins) = self.begins.take() {
            let (sender, receiver) = mpsc::channel(FRAGMENTS);
            let (pool, asked) = *begins;
            pool.begin(asked, sender);
            (self.pool, self.fragments) = (Some(pool), Some(receiver));
        }
        loop {
            let next = match &mut self.fragments {
                Some(fragments) => ready!(fragments.poll_recv(context)),
                None => None,
            };
            return Poll::Ready(match next {
                Some(Fragment::Called(conversation)) => {
                    self.called = Some(conversation);
                    continue;
                }
                Some(Fragment::Text(text)) => {
                    self.said = text;
                    Piece::Text(&self.said)
                }
                Some(Fragment::End { usage }) => {
                    self.usage = usage.map(Usage::from);
                    Piece::End
                }
                Some(Fragment::Failed(failure)) => self.failed(&failure),
                None => self.failed(&CliFailure::Closed),
            });
        }
    }

    fn failed(&mut self, failure: &CliFailure) -> Piece<'_> {
        let secrets = self.pool.as_ref().map(Pool::secrets).unwrap_or_default();
        Piece::Failed(self.failure.insert(failure.told(&secrets)))
    }

    /// What the answer has cost, if the program said so.
    pub(in super::super) const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Which backend runs it, and what its program calls the conversation, as soon as it has said so.
    pub(in super::super) fn conversation(&self) -> Option<(&str, &str)> {
        Some((self.pool.as_ref()?.id(), self.called.as_deref()?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::rig::{Rig, keeping, next_piece};
    use super::*;

    fn run(rig: &Rig, pool: &Pool, message: &str) -> CliRun {
        let cli = Cli::new(pool.clone(), String::new(), Duration::from_secs(60));
        cli.run(message.to_owned(), &rig.past("a"))
    }

    #[tokio::test]
    async fn a_run_says_the_answer_and_what_is_known_at_its_end() {
        let rig = Rig::new(json!({}));
        let pool = rig.pool(keeping());
        let mut run = run(&rig, &pool, "one");
        let mut said = String::new();
        while let Some(text) = next_piece(&mut run).await {
            said.push_str(&text.unwrap());
        }
        assert_eq!(said, "hello turn 1: one");
        let (backend, conversation) = run.conversation().unwrap();
        assert_eq!(backend, "claude-cli");
        assert!(conversation.starts_with("conversation-"), "{conversation}");
        let completion = u64::try_from(said.len()).unwrap();
        assert_eq!(run.usage(), Some(Usage { prompt: 3, completion }));
        pool.close().await;
    }

    #[tokio::test]
    async fn what_was_said_before_a_failure_is_said_and_no_secret_is() {
        let rig = Rig::new(json!({"env": {"KEY": "hunter2"}}));
        let pool = rig.pool(keeping());
        let mut run = run(&rig, &pool, "crash hunter2 again");
        assert_eq!(next_piece(&mut run).await, Some(Ok("I was about to ".to_owned())));
        let words = "it exited with 3 before it had answered: [redacted] again";
        assert_eq!(next_piece(&mut run).await, Some(Err(words.to_owned())));
        assert!(run.conversation().is_some());
    }

    #[tokio::test]
    async fn nothing_is_started_for_a_run_that_nobody_asks() {
        let rig = Rig::new(json!({}));
        let pool = rig.pool(keeping());
        drop(run(&rig, &pool, "one"));
        pool.close().await;
        assert_eq!(rig.starts().len(), 0);
    }
}
