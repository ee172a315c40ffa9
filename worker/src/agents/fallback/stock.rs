//! The harnesses there are, by their ids: those that come with the worker, the plugins', and a configuration's
//! providers and CLI agents.
//!
//! ```text
//! configuration, plugins ─► stock: swapped whole ◄── a run looks up the next model
//! ```
//!
//! **Invariants**
//! - Whoever looks a model up sees the latest configuration and plugins, also when its run has begun under others: a
//!   harness that was missing is there as soon as a reload has brought it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Chain;
use super::candidates::{ECHO, ModelRef, candidates};
use crate::agents::harness::{CliAgents, Connector, Echo, Failure, Harness, Keeping, Provider};
use crate::plugins::{Catalogue, PluginHarness};
use crate::state::config::{Settled, workspace};

/// What harnesses are made with, and those that there are now.
#[derive(Debug)]
pub(crate) struct Stock {
    echo: Echo,
    state_dir: PathBuf,
    connector: Connector,
    clis: CliAgents,
    shelves: ArcSwap<Shelves>,
}

/// The harnesses that come and go.
#[derive(Debug, Default)]
struct Shelves {
    providers: BTreeMap<String, Provider>,
    plugins: Arc<Catalogue>,
}

/// What there is of a model.
#[derive(Debug)]
pub(super) enum Found {
    /// This runs it.
    Here(Harness),
    /// Nothing is registered under the id of its harness.
    Missing,
    /// It cannot be asked, for this reason, which is ours.
    Unusable(Failure),
}

impl Stock {
    /// Of a worker that keeps its state there and programs like this, and whose echo is as slow as this. It is empty.
    pub(crate) fn new(state_dir: PathBuf, keeping: Keeping, word_delay: Duration) -> Self {
        Self {
            echo: Echo { word_delay },
            clis: CliAgents::new(&state_dir, keeping),
            state_dir,
            connector: Connector::default(),
            shelves: ArcSwap::default(),
        }
    }

    /// From now on it is that of this configuration and these plugins.
    pub(crate) fn renew(&self, settled: &Settled, plugins: &Arc<Catalogue>) {
        let providers = settled.config().models.providers.iter();
        let providers = providers.map(|(id, config)| {
            (id.clone(), Provider::of(id, config, settled, self.connector.clone()))
        });
        self.clis.renew(settled);
        let shelves = Shelves { providers: providers.collect(), plugins: Arc::clone(plugins) };
        self.shelves.store(Arc::new(shelves));
    }

    /// What runs an agent: the models that the configuration chooses for it, or echo.
    pub(crate) fn harness_of(self: &Arc<Self>, agent: &str, settled: &Settled) -> Harness {
        Harness::Chain(Chain {
            candidates: candidates(settled.config(), agent).into(),
            stock: Arc::clone(self),
            workspace: workspace::of(settled.config(), agent, &self.state_dir).into(),
        })
    }

    /// What comes with the worker.
    pub(super) const fn echo(&self) -> Echo {
        self.echo
    }

    /// The CLI agents.
    pub(crate) const fn clis(&self) -> &CliAgents {
        &self.clis
    }

    /// What there is of a model now.
    pub(super) fn find(&self, model: &ModelRef) -> Found {
        let shelves = self.shelves.load();
        if let Some(name) = model.harness_of_plugin() {
            return shelves.plugins.harness(name).map_or(Found::Missing, |plugin| {
                let harness = PluginHarness::new(name.to_owned(), Arc::clone(plugin));
                Found::Here(Harness::Plugin(harness))
            });
        }
        if let Some(provider) = shelves.providers.get(&model.harness) {
            return match provider.model(&model.model) {
                Ok(model) => Found::Here(Harness::Model(Arc::new(model))),
                Err(failure) => Found::Unusable(failure),
            };
        }
        match self.clis.model(&model.harness, &model.model) {
            Some(Ok(cli)) => return Found::Here(Harness::Cli(cli)),
            Some(Err(failure)) => return Found::Unusable(failure),
            None => {}
        }
        match model.harness.as_str() {
            ECHO => Found::Here(Harness::Echo(self.echo)),
            _ => Found::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::harness::{Past, Reason, Run, Turn};
    use crate::state::config::{Environment, understand};

    fn settled(text: &str) -> Settled {
        let environment = Environment::of([("Q_API_KEY", "of the environment")]);
        understand(text, &environment).unwrap().settled
    }

    fn stock(text: &str) -> Arc<Stock> {
        let stock = Arc::new(Stock::new("/state".into(), Keeping::default(), Duration::ZERO));
        stock.renew(&settled(text), &Arc::default());
        stock
    }

    fn model(name: &str) -> ModelRef {
        let (harness, model) = name.split_once('/').unwrap_or((name, ""));
        ModelRef { harness: harness.to_owned(), model: model.to_owned() }
    }

    #[test]
    fn an_agent_without_a_model_is_the_echos() {
        let text = "{agents: {list: [{id: 'a', model: 'p/m'}, {id: 'b'}]}}";
        let stock = stock(text);
        let turn = Turn { message: "hello".to_owned(), word_delay: None };
        let run =
            |agent| stock.harness_of(agent, &settled(text)).run(turn.clone(), Past::default());
        assert!(matches!(run("b"), Run::Echo(_)));
        assert!(matches!(run("a"), Run::Chain(_)));
        let chosen = stock.harness_of("b", &settled(text)).alone(model("p/m"));
        assert!(matches!(chosen.run(turn, Past::default()), Run::Chain(_)));
    }

    #[test]
    fn a_harness_that_a_reload_brings_is_found_by_who_looks_again() {
        let stock = stock("{}");
        assert!(matches!(stock.find(&model("echo")), Found::Here(Harness::Echo(_))));
        assert!(matches!(stock.find(&model("p/m")), Found::Missing));
        let settled = settled("{models: {providers: {p: {baseUrl: 'http://h/v1'}}}}");
        stock.renew(&settled, &Arc::default());
        assert!(matches!(stock.find(&model("p/m")), Found::Here(Harness::Model(_))));
    }

    #[test]
    fn what_the_configuration_gets_wrong_is_said_of_its_key_and_is_ours() {
        let stock = stock(
            "{models: {providers: {
                listed: {baseUrl: 'http://h/v1', models: [{id: 'a'}]},
                other: {baseUrl: 'http://h/v1', api: 'anthropic-messages'},
                nowhere: {},
                odd: {baseUrl: 'ftp://h'},
                user: {baseUrl: 'http://name:secret@h/v1'},
                q: {baseUrl: 'http://h/v1', apiKey: '${UNSET}'},
                header: {baseUrl: 'http://h/v1', headers: {'a b': 'x'}},
                file: {baseUrl: 'http://h/v1', apiKey: {source: 'file', id: 'x'}},
                openai: {},
            }}}",
        );
        for (name, words) in [
            ("listed/b", "models.providers.listed.models lists no \"b\""),
            (
                "other/x",
                "models.providers.other: \"anthropic-messages\" is not spoken here; it can be \"openai-completions\"",
            ),
            ("nowhere/x", "models.providers.nowhere.baseUrl is not set"),
            (
                "odd/x",
                "models.providers.odd.baseUrl is no http or https address without a name and password",
            ),
            (
                "user/x",
                "models.providers.user.baseUrl is no http or https address without a name and password",
            ),
            (
                "q/x",
                "models.providers.q.apiKey is kept where this gateway does not reach, or not set",
            ),
            ("header/x", "models.providers.header.headers.a b is no header"),
            (
                "file/x",
                "models.providers.file.apiKey is kept where this gateway does not reach, or not set",
            ),
        ] {
            let Found::Unusable(failure) = stock.find(&model(name)) else { panic!("{name}") };
            assert_eq!((failure.reason, failure.detail.as_str()), (Reason::Config, words));
        }
        for name in ["listed/a", "openai/anything"] {
            assert!(matches!(stock.find(&model(name)), Found::Here(_)), "{name}");
        }
    }

    #[test]
    fn no_secret_is_formatted() {
        let stock = stock(
            "{models: {providers: {p: {baseUrl: 'http://h/v1', apiKey: 'hunter2', headers: {x: 'hunter2'},
              models: [{id: 'm', params: {k: 'hunter2'}}]}, q: {baseUrl: 'http://h/v1'}}}}",
        );
        for name in ["p/m", "q/m"] {
            let found = stock.find(&model(name));
            assert!(matches!(found, Found::Here(_)));
            let shown = format!("{found:?} {stock:?}");
            assert!(!shown.contains("hunter2") && !shown.contains("of the environment"), "{shown}");
        }
    }
}
