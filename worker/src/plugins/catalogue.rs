//! What all plugins together can do, and who claims what somebody else has.
//!
//! **Invariants**
//! - A method and a harness have one owner. Those that come with the gateway are never a plugin's.
//! - A catalogue never changes: a snapshot of the registry holds one, and with it the plugins it was made of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::declaration::Declaration;
use super::plugin::Plugin;
use crate::identity::Needs;

/// Two that claim the same thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Conflict {
    /// Two plugins.
    #[error("the plugins {first:?} and {second:?} both claim the {claim}")]
    Plugins {
        /// The one whose name comes first.
        first: String,
        /// The other one.
        second: String,
        /// What they claim.
        claim: Claim,
    },
    /// A plugin and the gateway itself.
    #[error("the plugin {plugin:?} claims the {claim}, and so does the gateway itself")]
    Gateway {
        /// The plugin.
        plugin: String,
        /// What it claims.
        claim: Claim,
    },
}

/// What a plugin claims for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// A method of this name.
    Method(String),
    /// A harness of this name.
    Harness(String),
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Method(name) => write!(f, "method {name:?}"),
            Self::Harness(name) => write!(f, "harness {name:?}"),
        }
    }
}

impl Conflict {
    /// Whether this plugin has a part in it.
    pub(crate) fn involves(&self, id: &str) -> bool {
        match self {
            Self::Plugins { first, second, .. } => first == id || second == id,
            Self::Gateway { plugin, .. } => plugin == id,
        }
    }
}

/// All conflicts of these declarations; `bundled` are the gateway's own methods.
pub(crate) fn conflicts<'a>(
    declarations: impl IntoIterator<Item = &'a Declaration>,
    bundled: impl IntoIterator<Item = &'a str>,
) -> Vec<Conflict> {
    let bundled: BTreeSet<&str> = bundled.into_iter().collect();
    let mut owners: BTreeMap<Claim, &str> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for declaration in declarations {
        let methods = declaration.methods.iter().map(|method| Claim::Method(method.name.clone()));
        let harnesses = declaration.harnesses.iter().cloned().map(Claim::Harness);
        for claim in methods.chain(harnesses) {
            let plugin = declaration.id.clone();
            if matches!(&claim, Claim::Method(name) if bundled.contains(&**name)) {
                conflicts.push(Conflict::Gateway { plugin, claim });
            } else if let Some(first) = owners.get(&claim) {
                let first = (*first).to_owned();
                conflicts.push(Conflict::Plugins { first, second: plugin, claim });
            } else {
                owners.insert(claim, &declaration.id);
            }
        }
    }
    conflicts
}

/// A method that a plugin answers.
#[derive(Clone, Debug)]
pub(crate) struct PluginMethod {
    /// Its name on the wire.
    pub(crate) name: String,
    /// What a caller must hold.
    pub(crate) needs: Needs,
    /// How long a call may take.
    pub(crate) timeout: Duration,
    /// Who answers.
    pub(crate) plugin: Arc<Plugin>,
}

/// A plugin that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// The plugin.
    pub(crate) id: String,
    /// Why.
    pub(crate) reason: String,
    /// Whether nobody is to be served without it.
    pub(crate) required: bool,
}

/// The plugins of one snapshot.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    plugins: Vec<Arc<Plugin>>,
    methods: BTreeMap<String, PluginMethod>,
    harnesses: BTreeMap<String, Arc<Plugin>>,
    left_out: Vec<LeftOut>,
}

impl Catalogue {
    /// Of these plugins, among which there is no conflict.
    pub(crate) fn new(plugins: Vec<Arc<Plugin>>, left_out: Vec<LeftOut>) -> Self {
        let mut catalogue = Self { left_out, ..Self::default() };
        for plugin in &plugins {
            for method in &plugin.declaration().methods {
                let entry = PluginMethod {
                    name: method.name.clone(),
                    needs: method.needs,
                    timeout: method.timeout,
                    plugin: Arc::clone(plugin),
                };
                catalogue.methods.insert(method.name.clone(), entry);
            }
            for harness in &plugin.declaration().harnesses {
                catalogue.harnesses.insert(harness.clone(), Arc::clone(plugin));
            }
        }
        catalogue.plugins = plugins;
        catalogue
    }

    /// Its plugins, by their ids' order.
    pub(crate) fn plugins(&self) -> &[Arc<Plugin>] {
        &self.plugins
    }

    /// Its methods.
    pub(crate) const fn methods(&self) -> &BTreeMap<String, PluginMethod> {
        &self.methods
    }

    /// The plugin that has this harness.
    pub(crate) fn harness(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.harnesses.get(name)
    }

    /// The plugins that were left out.
    pub(crate) fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::plugins::declaration::DeclaredMethod;

    fn declared(id: &str, methods: &[&str], harnesses: &[&str]) -> Declaration {
        let method = |name: &&str| DeclaredMethod {
            name: (*name).to_owned(),
            needs: Needs::Read,
            timeout: Duration::from_secs(1),
        };
        Declaration {
            id: id.to_owned(),
            folder: PathBuf::from(id),
            command: vec!["x".to_owned()],
            required: false,
            exclusive: false,
            methods: methods.iter().map(method).collect(),
            harnesses: harnesses.iter().map(|name| (*name).to_owned()).collect(),
            environment: BTreeMap::new(),
            inherit: Vec::new(),
            start_timeout: Duration::from_secs(1),
            health_interval: Duration::from_secs(1),
        }
    }

    #[test]
    fn two_that_claim_one_method_or_harness_are_both_named() {
        let (a, b) = (declared("a", &["x.y", "x.z"], &["h"]), declared("b", &["x.y"], &["h"]));
        let found: Vec<_> = conflicts([&a, &b], []).iter().map(ToString::to_string).collect();
        let expected = [
            "the plugins \"a\" and \"b\" both claim the method \"x.y\"",
            "the plugins \"a\" and \"b\" both claim the harness \"h\"",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_method_that_comes_with_the_gateway_is_no_plugins() {
        let a = declared("a", &["agents.list", "a.b"], &[]);
        let found = conflicts([&a], ["health", "agents.list"]);
        let [conflict] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            conflict.to_string(),
            "the plugin \"a\" claims the method \"agents.list\", and so does the gateway itself"
        );
        assert!(conflict.involves("a") && !conflict.involves("b"));
    }

    #[test]
    fn one_that_claims_something_twice_is_in_conflict_with_itself() {
        assert_eq!(conflicts([&declared("a", &["a.b", "a.b"], &[])], []).len(), 1);
        let apart = (declared("a", &["a.b"], &["b"]), declared("b", &["b.a"], &["a"]));
        assert_eq!(conflicts([&apart.0, &apart.1], ["a"]), []);
    }
}
