//! Readiness: a latch of named conditions, each held by whoever has to fulfil it.
//!
//! ```text
//! require ─► Condition ─ met ─► for ever            follow ─► Gauge ─ holds ⇄ fails ─► dropped: not asked for
//! ```
//!
//! **Invariants**
//! - Every condition is named before any is met, so the latch never opens between two of them.
//! - A condition that was given up, its holder gone without meeting it, fails for ever.
//! - What a gauge follows may fail again later; that the latch was open once stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The conditions, and which of them fail. Cloning it gives another handle to the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness {
    conditions: watch::Sender<Conditions>,
    has_opened: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Conditions {
    last: u64,
    /// By the order they were named in: two may have one name while one replaces the other.
    named: BTreeMap<u64, (String, Met)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Yes,
    NotYet,
}

/// One condition, waiting to be met.
#[derive(Debug)]
#[must_use = "a condition that is dropped is never met"]
pub(crate) struct Condition(Place);

/// One condition that may be met and fail again. Dropped, it is none any more.
#[derive(Debug)]
pub(crate) struct Gauge(Place);

#[derive(Debug)]
struct Place {
    number: u64,
    conditions: watch::Sender<Conditions>,
}

impl Place {
    fn set(&self, now: Met) {
        self.conditions.send_if_modified(|conditions| {
            let Some((_, met)) = conditions.named.get_mut(&self.number) else { return false };
            std::mem::replace(met, now) != now
        });
    }
}

impl Readiness {
    /// Names a condition without which this worker is not ready.
    pub(crate) fn require(&self, name: impl Into<String>) -> Condition {
        Condition(self.place(name.into()))
    }

    /// Names a condition that has not been met so far, and may come and go.
    pub(crate) fn follow(&self, name: impl Into<String>) -> Gauge {
        Gauge(self.place(name.into()))
    }

    fn place(&self, name: String) -> Place {
        let mut number = 0;
        self.conditions.send_modify(|conditions| {
            conditions.last += 1;
            number = conditions.last;
            conditions.named.insert(number, (name, Met::NotYet));
        });
        Place { number, conditions: self.conditions.clone() }
    }

    /// The conditions that are not met.
    pub(crate) fn failing(&self) -> Vec<String> {
        self.conditions.borrow().failing()
    }

    /// Whether every condition was met once.
    pub(crate) fn has_opened(&self) -> bool {
        self.has_opened.load(Ordering::Relaxed)
    }

    /// Ends when every condition is met. Cancel safe.
    pub(crate) async fn opened(&self) {
        let mut conditions = self.conditions.subscribe();
        // The sender is here, so it cannot be gone.
        let _ = conditions.wait_for(|conditions| conditions.failing().is_empty()).await;
        self.has_opened.store(true, Ordering::Relaxed);
    }
}

impl Conditions {
    fn failing(&self) -> Vec<String> {
        let failing = self.named.values().filter(|(_, met)| *met == Met::NotYet);
        let names: BTreeSet<_> = failing.map(|(name, _)| name.clone()).collect();
        names.into_iter().collect()
    }
}

impl Condition {
    /// The condition is met from now on.
    pub(crate) fn met(self) {
        self.0.set(Met::Yes);
    }
}

impl Gauge {
    /// The condition is met.
    pub(crate) fn holds(&self) {
        self.0.set(Met::Yes);
    }

    /// The condition is not met.
    pub(crate) fn fails(&self) {
        self.0.set(Met::NotYet);
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.conditions.send_modify(|conditions| {
            conditions.named.remove(&self.0.number);
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
        assert!(sooner.is_empty() && readiness.has_opened());
    }

    #[test]
    fn a_condition_that_was_given_up_fails_for_ever() {
        let readiness = Readiness::default();
        drop(readiness.require("store"));
        assert_eq!(readiness.failing(), ["store"]);
    }

    #[tokio::test]
    async fn a_gauge_comes_and_goes_and_what_was_open_once_was_open() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.follow("plugin:a"), readiness.follow("plugin:a"));
        assert_eq!(readiness.failing(), ["plugin:a"]);
        first.holds();
        assert_eq!(readiness.failing(), ["plugin:a"], "the other one is not there yet");
        second.holds();
        readiness.opened().await;
        first.fails();
        assert_eq!(readiness.failing(), ["plugin:a"]);
        drop(first);
        assert!(readiness.failing().is_empty() && readiness.has_opened());
    }
}
