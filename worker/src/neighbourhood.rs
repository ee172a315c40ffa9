//! What this generation and the one beside it tell each other about themselves, over the migration link.
//!
//! ```text
//! accounts ── AccountWanted ──► the generation beside
//!          ◄── Account ──────── or nothing within half a second: then its numbers are not known
//! ```
//!
//! **Invariants**
//! - A word that is not known here is somebody else's: it is handed on, and skipped by whoever does not know it
//!   either.
//! - An account is of one generation: nothing in it was heard from another.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handoff::migrate::{Neighbour, Post};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::attendance::Present;

/// How long the other generation may take; one of an earlier version never answers.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a generation has under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Engaged {
    /// Runs that wait for their lane.
    pub(crate) waiting: u64,
    /// Runs that go on.
    pub(crate) running: u64,
    /// Answers that somebody waits for.
    pub(crate) replies: u64,
}

impl Engaged {
    /// What both have.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            waiting: self.waiting.saturating_add(other.waiting),
            running: self.running.saturating_add(other.running),
            replies: self.replies.saturating_add(other.replies),
        }
    }
}

/// What a generation says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    #[serde(default)]
    pub(crate) engaged: Engaged,
    /// Who is connected to it.
    #[serde(default)]
    pub(crate) present: Vec<Present>,
}

/// One word.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Word {
    /// Give an account of yourself.
    AccountWanted { ask: u64 },
    /// Here it is.
    Account { ask: u64, account: Account },
}

/// The generations beside.
#[derive(Debug)]
pub(crate) struct Neighbourhood {
    post: Post,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    answers: HashMap<u64, oneshot::Sender<Account>>,
    asks: u64,
}

impl Neighbourhood {
    /// Reached by this post.
    pub(crate) fn new(post: Post) -> Self {
        Self { post, asked: Mutex::default() }
    }

    /// Whether a successor is there already.
    pub(crate) fn has_successor(&self) -> bool {
        self.post.is_linked(Neighbour::Successor)
    }

    /// The accounts of those beside that answer in time. Cancel safe.
    pub(crate) async fn accounts(&self) -> Vec<Account> {
        let asked =
            [Neighbour::Incumbent, Neighbour::Successor].map(|neighbour| self.ask(neighbour));
        let mut accounts = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for answer in asked.into_iter().flatten() {
            // What does not come is not known.
            if let Ok(Ok(account)) = tokio::time::timeout_at(deadline, answer).await {
                accounts.push(account);
            }
        }
        accounts
    }

    fn ask(&self, neighbour: Neighbour) -> Option<oneshot::Receiver<Account>> {
        let mut asked = self.asked();
        asked.asks += 1;
        let ask = asked.asks;
        if !self.post.tell(neighbour, &crate::frames::written(&Word::AccountWanted { ask })) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        asked.answers.insert(ask, answer);
        // Those that were given up are let go of at the next occasion.
        asked.answers.retain(|_, answer| !answer.is_closed());
        Some(answered)
    }

    /// The generation beside has said something; answers whether it was for this.
    pub(crate) fn heard(
        &self,
        neighbour: Neighbour,
        text: &str,
        account: impl FnOnce() -> Account,
    ) -> bool {
        match serde_json::from_str(text) {
            Ok(Word::AccountWanted { ask }) => {
                let word = Word::Account { ask, account: account() };
                // Without a link nobody waits any more.
                let _ = self.post.tell(neighbour, &crate::frames::written(&word));
            }
            Ok(Word::Account { ask, account }) => {
                if let Some(answer) = self.asked().answers.remove(&ask) {
                    // Who asked may have waited long enough.
                    let _ = answer.send(account);
                }
            }
            Err(_) => return false,
        }
        true
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        // A panic between two of its operations leaves the table whole.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_beside_is_nobody_to_wait_for() {
        let neighbourhood = Neighbourhood::new(Post::default());
        assert_eq!(neighbourhood.accounts().await, []);
        assert!(!neighbourhood.has_successor());
    }

    #[test]
    fn a_word_of_somebody_else_is_handed_on_and_one_of_a_later_version_is_read() {
        let neighbourhood = Neighbourhood::new(Post::default());
        let heard = |text| neighbourhood.heard(Neighbour::Successor, text, Account::default);
        assert!(!heard(r#"{"type":"lane-wanted","session":"s"}"#));
        assert!(!heard("dance"));
        assert!(heard(r#"{"type":"account-wanted","ask":1,"colour":"green"}"#));
        assert!(heard(r#"{"type":"account","ask":7,"account":{"mood":"good"}}"#));
    }

    #[tokio::test]
    async fn an_answer_reaches_whoever_asked_and_no_other() {
        let neighbourhood = Neighbourhood::new(Post::default());
        let (answer, answered) = oneshot::channel();
        neighbourhood.asked().answers.insert(3, answer);
        let text = r#"{"type":"account","ask":3,"account":{"engaged":{"running":2}}}"#;
        assert!(neighbourhood.heard(Neighbour::Incumbent, text, Account::default));
        let engaged = Engaged { running: 2, ..Engaged::default() };
        assert_eq!(answered.await.unwrap().engaged, engaged);
        assert!(neighbourhood.heard(Neighbour::Incumbent, text, Account::default));
    }
}
