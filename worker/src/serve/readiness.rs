//! Readiness: a latch of named conditions, each held by whoever has to fulfil it.
//!
//! **Invariants**
//! - Every condition is named before any is met, so the latch never opens between two of them.
//! - A condition that was given up, its holder gone without meeting it, fails for ever.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// The conditions, and which of them fail.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    conditions: watch::Sender<BTreeMap<&'static str, Met>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Yes,
    NotYet,
}

/// One condition, waiting to be met.
#[derive(Debug)]
#[must_use = "a condition that is dropped is never met"]
pub(crate) struct Condition {
    name: &'static str,
    conditions: watch::Sender<BTreeMap<&'static str, Met>>,
}

impl Readiness {
    /// Names a condition without which this worker is not ready.
    pub(crate) fn require(&self, name: &'static str) -> Condition {
        self.conditions.send_modify(|conditions| {
            conditions.insert(name, Met::NotYet);
        });
        Condition { name, conditions: self.conditions.clone() }
    }

    /// The conditions that are not met.
    pub(crate) fn failing(&self) -> Vec<&'static str> {
        failing(&self.conditions.borrow())
    }

    /// Ends when every condition is met. Cancel safe.
    pub(crate) async fn opened(&self) {
        let mut conditions = self.conditions.subscribe();
        // The sender is here, so it cannot be gone.
        let _ = conditions.wait_for(|conditions| failing(conditions).is_empty()).await;
    }
}

fn failing(conditions: &BTreeMap<&'static str, Met>) -> Vec<&'static str> {
    conditions.iter().filter(|(_, met)| **met == Met::NotYet).map(|(name, _)| *name).collect()
}

impl Condition {
    /// The condition is met from now on.
    pub(crate) fn met(self) {
        self.conditions.send_modify(|conditions| {
            conditions.insert(self.name, Met::Yes);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latch_opens_when_the_last_condition_is_met() {
        let readiness = Readiness::default();
        let state = readiness.require("state");
        let token = readiness.require("token");
        assert_eq!(readiness.failing(), ["state", "token"]);
        token.met();
        assert_eq!(readiness.failing(), ["state"]);
        state.met();
        assert!(readiness.failing().is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_for_the_latch_is_told() {
        let readiness = Readiness::default();
        let store = readiness.require("store");
        let (sooner, ()) = tokio::join!(
            async {
                readiness.opened().await;
                readiness.failing()
            },
            async { store.met() },
        );
        assert!(sooner.is_empty());
    }

    #[test]
    fn a_condition_that_was_given_up_fails_for_ever() {
        let readiness = Readiness::default();
        drop(readiness.require("store"));
        assert_eq!(readiness.failing(), ["store"]);
    }
}
