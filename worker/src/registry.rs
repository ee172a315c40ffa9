//! What this worker can do: its methods, events, plugins, agents and their harnesses, in one immutable snapshot.
//!
//! ```text
//! configuration ─► agents.list, and `main` ─┐
//! plugins that were loaded ─────────────────┤
//! what comes with the worker ───────────────┴─► Registry ─► swapped for the one before
//! ```
//!
//! **Invariants**
//! - `main` is always one of the agents, whatever the configuration says.
//! - What `hello-ok` advertises and what dispatch looks up are the same snapshot: nothing is
//!   advertised that would be unknown.
//! - A snapshot is swapped whole, never changed; a call that began on one finishes on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use serde_json::value::RawValue;

use crate::agents::DEFAULT_AGENT;
use crate::agents::fallback::Stock;
use crate::agents::harness::Harness;
use crate::identity::Needs;
use crate::methods::devices::announce;
use crate::methods::{self, Method};
use crate::plugins::{Catalogue, PluginMethod};
use crate::state::config::{Snapshot, agent_id};

/// Another name for the agent that answers those who name nobody.
pub(crate) const DEFAULT_ALIAS: &str = "default";

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
    plugins: Arc<Catalogue>,
    agents: Roster,
    /// By the agent they run.
    harnesses: BTreeMap<String, Harness>,
    features: Box<RawValue>,
    stock: Arc<Stock>,
}

/// A method, whoever answers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dispatched<'r> {
    /// It comes with the worker.
    Bundled(&'r Method),
    /// A plugin's.
    Plugin(&'r PluginMethod),
}

impl Dispatched<'_> {
    /// What a caller must hold.
    pub(crate) const fn needs(&self) -> Needs {
        match self {
            Self::Bundled(method) => method.needs,
            Self::Plugin(method) => method.needs,
        }
    }
}

/// The agents of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Roster {
    /// Their ids, as the configuration lists them.
    ids: Vec<String>,
    /// Which of them answers those who name nobody.
    default: String,
}

impl Roster {
    fn of(config: &Snapshot) -> Self {
        let list = &config.settled.config().agents.list;
        let mut ids: Vec<String> = list.iter().map(|agent| agent_id(&agent.id)).collect();
        let chosen = list.iter().find(|agent| agent.default).or_else(|| list.first());
        let default = chosen.map_or_else(|| DEFAULT_AGENT.to_owned(), |agent| agent_id(&agent.id));
        if !ids.iter().any(|id| id == DEFAULT_AGENT) {
            ids.insert(0, DEFAULT_AGENT.to_owned());
        }
        Self { ids, default }
    }
}

impl Registry {
    /// What comes with the worker, these plugins, and the agents of this configuration.
    pub(crate) fn of(config: &Snapshot, stock: Arc<Stock>, plugins: Arc<Catalogue>) -> Self {
        let methods: BTreeMap<_, _> =
            methods::BUNDLED.iter().copied().map(|method| (method.name, method)).collect();
        let agents = Roster::of(config);
        stock.renew(&config.settled, &plugins);
        let harness = |id: &String| (id.clone(), stock.harness_of(id, &config.settled));
        let harnesses = agents.ids.iter().map(harness).collect();
        let mut names: Vec<&str> = methods.keys().copied().collect();
        names.extend(plugins.methods().keys().map(String::as_str));
        names.sort_unstable();
        let features =
            serde_json::value::to_raw_value(&json!({"methods": names, "events": EVENTS}))
                .expect("strings are JSON");
        Self { methods, plugins, agents, harnesses, features, stock }
    }

    /// The same worker with the agents of another configuration.
    pub(crate) fn remade(&self, config: &Snapshot) -> Self {
        self.with_plugins(config, Arc::clone(&self.plugins))
    }

    /// The same worker with other plugins and the agents of this configuration.
    pub(crate) fn with_plugins(&self, config: &Snapshot, plugins: Arc<Catalogue>) -> Self {
        Self::of(config, Arc::clone(&self.stock), plugins)
    }

    /// The method of this name.
    pub(crate) fn method(&self, name: &str) -> Option<Dispatched<'_>> {
        let bundled = self.methods.get(name).map(Dispatched::Bundled);
        bundled.or_else(|| self.plugins.methods().get(name).map(Dispatched::Plugin))
    }

    /// The plugins.
    pub(crate) const fn plugins(&self) -> &Arc<Catalogue> {
        &self.plugins
    }

    /// What `hello-ok` says about this snapshot.
    pub(crate) fn features(&self) -> &RawValue {
        &self.features
    }

    /// What runs an agent; `None` when there is no such agent.
    pub(crate) fn harness(&self, agent: &str) -> Option<&Harness> {
        self.harnesses.get(agent).or_else(|| {
            let default = (agent == DEFAULT_ALIAS).then_some(&self.agents.default)?;
            self.harnesses.get(default)
        })
    }

    /// The agent that answers those who name nobody.
    pub(crate) fn default_agent(&self) -> &str {
        &self.agents.default
    }

    /// The agents' ids, as the configuration lists them.
    pub(crate) fn agents(&self) -> &[String] {
        &self.agents.ids
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::state::config::Environment;

    fn registry(text: &str) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        std::fs::write(&path, text).unwrap();
        Registry::of(&snapshot(&path), stock(), Arc::default())
    }

    fn stock() -> Arc<Stock> {
        Arc::new(Stock::new(
            "/state".into(),
            crate::agents::harness::Keeping::default(),
            Duration::ZERO,
        ))
    }

    fn snapshot(path: &Path) -> Snapshot {
        Snapshot::read(path, &Environment::default()).unwrap()
    }

    #[test]
    fn what_is_advertised_is_what_dispatch_finds() {
        let registry = registry("{}");
        let features: serde_json::Value = serde_json::from_str(registry.features().get()).unwrap();
        let advertised = features["methods"].as_array().unwrap();
        assert_eq!(advertised.len(), registry.methods.len());
        for name in advertised {
            assert!(registry.method(name.as_str().unwrap()).is_some());
        }
    }

    #[test]
    fn the_agents_are_those_of_the_configuration_and_main() {
        for (text, ids, default) in [
            ("{}", &["main"][..], "main"),
            ("{agents: {list: [{id: 'Ops Team'}]}}", &["main", "ops-team"], "ops-team"),
            ("{agents: {list: [{id: 'main'}, {id: 'b'}]}}", &["main", "b"], "main"),
            ("{agents: {list: [{id: 'b'}, {id: 'a', default: true}]}}", &["main", "b", "a"], "a"),
        ] {
            let registry = registry(text);
            assert_eq!(
                (registry.agents(), registry.default_agent()),
                (&to_owned(ids)[..], default)
            );
            for id in ids.iter().chain(&[DEFAULT_ALIAS]) {
                assert!(registry.harness(id).is_some(), "{id}");
            }
            assert!(registry.harness("nobody").is_none());
        }
    }

    fn to_owned(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn the_harness_registry_is_never_seen_empty_under_a_reload_loop_with_8_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        let with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            snapshot(&path)
        };
        let (more, fewer) = (with("{agents: {list: [{id: 'main'}, {id: 'b'}]}}"), with("{}"));
        let current = ArcSwap::from_pointee(Registry::of(&fewer, stock(), Arc::default()));
        let reloading = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while reloading.load(std::sync::atomic::Ordering::Relaxed) {
                        let seen = current.load_full();
                        assert!(seen.harness("main").is_some() && seen.method("health").is_some());
                        let listed = seen.agents().len();
                        assert_eq!(seen.harnesses.len(), listed, "half of a registry");
                    }
                });
            }
            for turn in 0..2000 {
                let config = if turn % 2 == 0 { &more } else { &fewer };
                current.store(Arc::new(current.load().remade(config)));
            }
            reloading.store(false, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
