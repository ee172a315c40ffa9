//! What this worker can do: its methods, events, agents and their harnesses, in one immutable snapshot.
//!
//! **Invariants**
//! - What `hello-ok` advertises and what dispatch looks up are the same snapshot: nothing is
//!   advertised that would be unknown.
//! - A snapshot is swapped whole, never changed; a call that began on one finishes on it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;

use crate::agents::DEFAULT_AGENT;
use crate::agents::harness::{Echo, Harness};
use crate::methods::devices::announce;
use crate::methods::{self, Method};

/// The events a client may see.
const EVENTS: &[&str] = &[
    "agent",
    "chat",
    "connect.challenge",
    "cron",
    announce::REQUESTED,
    announce::RESOLVED,
    "health",
    "shutdown",
    "tick",
];

/// One snapshot.
#[derive(Debug)]
pub(crate) struct Registry {
    methods: BTreeMap<&'static str, Method>,
    /// By the agent they run.
    harnesses: BTreeMap<&'static str, Harness>,
    features: Box<RawValue>,
}

impl Registry {
    /// What comes with the worker.
    pub(crate) fn bundled(echo_word_delay: Duration) -> Self {
        let methods: BTreeMap<_, _> =
            methods::BUNDLED.iter().copied().map(|method| (method.name, method)).collect();
        let echo = Harness::Echo(Echo { word_delay: echo_word_delay });
        // `default` is another name for the default agent, not another agent.
        let harnesses = BTreeMap::from([(DEFAULT_AGENT, echo.clone()), ("default", echo)]);
        let names: Vec<_> = methods.keys().collect();
        let features =
            serde_json::value::to_raw_value(&json!({"methods": names, "events": EVENTS}))
                .expect("strings are JSON");
        Self { methods, harnesses, features }
    }

    /// The method of this name.
    pub(crate) fn method(&self, name: &str) -> Option<&Method> {
        self.methods.get(name)
    }

    /// What `hello-ok` says about this snapshot.
    pub(crate) fn features(&self) -> &RawValue {
        &self.features
    }

    /// What runs an agent; `None` when there is no such agent.
    pub(crate) fn harness(&self, agent: &str) -> Option<&Harness> {
        self.harnesses.get(agent)
    }

    /// The agents, by name.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.harnesses.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_is_what_dispatch_finds() {
        let registry = Registry::bundled(Duration::ZERO);
        let features: serde_json::Value = serde_json::from_str(registry.features().get()).unwrap();
        let advertised = features["methods"].as_array().unwrap();
        assert_eq!(advertised.len(), registry.methods.len());
        for name in advertised {
            assert!(registry.method(name.as_str().unwrap()).is_some());
        }
    }
}
