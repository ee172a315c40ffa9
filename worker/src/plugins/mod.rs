//! Plugins: programs beside the worker that answer methods and run agents.
//!
//! ```text
//! plugins/ID/plugin.json ─► declarations ─► no conflicts ─► tasks (life) ─► catalogue ─► the registry
//!                                                            │
//!                          program ◄── JSON-RPC, lines ──────┘
//! ```
//!
//! **Invariants**
//! - Two that claim one thing are never both loaded: a start leaves both out, a reload is refused whole.
//! - A reload that is refused has changed nothing: what runs goes on running.
//! - A plugin that did not change goes on running through a reload.
//! - `PLUGINS.md` says what of this its authors rely on.

mod backoff;
pub(crate) mod beside;
mod catalogue;
mod conversation;
mod declaration;
mod exclusive;
mod fields;
mod life;
mod lines;
mod plugin;
mod process;
mod program;
mod run;
mod spoken;
mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::join_all;
use handoff::chain;
use handoff::migrate::Post;
use tokio::sync::{Notify, watch};
use tracing::error;

use self::beside::Beside;
use self::catalogue::conflicts;
pub(crate) use self::catalogue::{Catalogue, Conflict, LeftOut, PluginMethod};
use self::declaration::{Declaration, DeclarationUnusable};
use self::life::World;
pub(crate) use self::plugin::{NotHere, Plugin};
use self::program::Program;
pub(crate) use self::run::{PluginHarness, PluginRun};
use crate::methods;
use crate::serve::Readiness;

/// Their folder in the state directory.
const FOLDER: &str = "plugins";
/// Where in it exclusive ones are locked. No plugin is called so.
const LOCKS: &str = ".running";

/// The plugins of this worker.
#[derive(Debug)]
pub(crate) struct Plugins {
    folder: PathBuf,
    world: World,
    readiness: Readiness,
    beside: Beside,
    /// All that are not known to be gone, also those that were retired.
    living: Mutex<Vec<Arc<Plugin>>>,
    /// Somebody is to reload: other plugins are permitted now.
    wanted: Notify,
    /// Held by whoever reloads.
    pub(crate) reloading: tokio::sync::Mutex<()>,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadRefused {
    /// Their folder.
    #[error("could not list {}", folder.display())]
    List {
        /// The folder.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A declaration.
    #[error("a plugin is not declared well")]
    Declaration {
        /// Which, and why.
        source: DeclarationUnusable,
    },
    /// Two claim the same.
    #[error("plugins are in conflict")]
    Conflict {
        /// Which.
        source: Conflict,
    },
    /// One did not start.
    #[error("the plugin {plugin:?} does not start: {reason}")]
    Start {
        /// Which.
        plugin: String,
        /// Why.
        reason: String,
    },
}

/// What a reload has prepared.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What is to hold.
    pub(crate) catalogue: Catalogue,
    /// What follows once it does.
    pub(crate) replacement: Replacement,
}

/// The plugins that come and go with a reload.
#[derive(Debug)]
pub(crate) struct Replacement {
    new: Vec<Arc<Plugin>>,
    retiring: Vec<Arc<Plugin>>,
}

impl Replacement {
    /// The plugins that were not there before, or have changed.
    pub(crate) fn started(&self) -> Vec<&str> {
        self.new.iter().map(|plugin| &*plugin.declaration().id).collect()
    }

    /// The plugins that end: they are there no more, or not as they were.
    pub(crate) fn ended(&self) -> Vec<&str> {
        self.retiring.iter().map(|plugin| &*plugin.declaration().id).collect()
    }
}

impl Plugins {
    /// Of this state directory, in this generation.
    pub(crate) fn new(
        state: &Path,
        generation: String,
        lease: watch::Receiver<Option<u64>>,
        post: Post,
    ) -> Self {
        let folder = state.join(FOLDER);
        Self {
            world: World { generation, lease, locks: folder.join(LOCKS), descriptors: None },
            folder,
            readiness: Readiness::default(),
            beside: Beside::new(post),
            living: Mutex::default(),
            wanted: Notify::new(),
            reloading: tokio::sync::Mutex::default(),
        }
    }

    /// Those that are started from now on may hold so many descriptors; with `None`, as many as the worker itself.
    pub(crate) fn giving_descriptors(mut self, limit: Option<u64>) -> Self {
        self.world.descriptors = limit;
        self
    }

    /// What this worker's readiness is fed by.
    pub(crate) const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The way to the generations beside.
    pub(crate) const fn beside(&self) -> &Beside {
        &self.beside
    }

    /// Starts all that may be loaded, and leaves out those that cannot be: there is nothing to go back to.
    pub(crate) fn load(&self, permits: impl Fn(&str) -> bool) -> Catalogue {
        let mut left_out = Vec::new();
        let mut declarations = Vec::new();
        let folders = folders(&self.folder).unwrap_or_else(|failed| {
            error!(reason = %chain(&failed), "plugins are not loaded");
            Vec::new()
        });
        for folder in folders.into_iter().filter(|folder| permits(&id_of(folder))) {
            match Declaration::read(&folder) {
                Ok(declaration) => declarations.extend(declaration),
                Err(unusable) => left_out.push(LeftOut {
                    id: id_of(&folder),
                    reason: chain(&unusable).to_string(),
                    required: Declaration::asks_to_be_required(&folder),
                }),
            }
        }
        let conflicts = conflicts_of(&declarations);
        declarations.retain(|declaration| {
            let id = &declaration.id;
            let Some(conflict) = conflicts.iter().find(|conflict| conflict.involves(id)) else {
                return true;
            };
            let (reason, required) = (conflict.to_string(), declaration.required);
            left_out.push(LeftOut { id: id.clone(), reason, required });
            false
        });
        for LeftOut { id, reason, required } in &left_out {
            error!(plugin = id, reason, "a plugin is not loaded");
            if *required {
                // Nobody fulfils it before another start.
                drop(self.readiness.require(condition(id)));
            }
        }
        let started: Vec<_> =
            declarations.into_iter().map(|declaration| self.start(declaration, None)).collect();
        for plugin in &started {
            self.gate(plugin);
        }
        Catalogue::new(started, left_out)
    }

    /// Ends when every plugin has been started once, or could not be; the conditions that fail because of that,
    /// with the reasons.
    pub(crate) async fn attempted(&self, loaded: &Catalogue) -> Vec<String> {
        let attempts = loaded.plugins().iter().map(|plugin| async move {
            let failed = plugin.attempted().await.err()?;
            let Declaration { id, required, .. } = plugin.declaration();
            required.then(|| format!("{}: {failed}", condition(id)))
        });
        let left_out = loaded.left_out().iter().filter(|left_out| left_out.required);
        let left_out = left_out.map(|one| format!("{}: {}", condition(&one.id), one.reason));
        join_all(attempts).await.into_iter().flatten().chain(left_out).collect()
    }

    /// Other plugins are permitted now: whoever follows that reloads.
    pub(crate) fn want_reload(&self) {
        self.wanted.notify_one();
    }

    /// Ends when a reload is wanted. Cancel safe.
    pub(crate) async fn reload_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Reads the declarations again, and starts what is new or has changed beside what runs.
    ///
    /// # Errors
    /// [`ReloadRefused`]; nothing has changed.
    pub(crate) async fn prepare(
        &self,
        current: &Catalogue,
        permits: impl Fn(&str) -> bool + Send,
    ) -> Result<Prepared, ReloadRefused> {
        let mut declarations = Vec::new();
        for folder in folders(&self.folder)?.into_iter().filter(|folder| permits(&id_of(folder))) {
            let declared = Declaration::read(&folder)
                .map_err(|source| ReloadRefused::Declaration { source })?;
            declarations.extend(declared);
        }
        if let Some(source) = conflicts_of(&declarations).into_iter().next() {
            return Err(ReloadRefused::Conflict { source });
        }
        let (mut plugins, mut new) = (Vec::new(), Vec::new());
        let mut retiring = current.plugins().to_vec();
        for declaration in declarations {
            let program = Program::of(&declaration);
            let same = |plugin: &Arc<Plugin>| plugin.is(&declaration, &program);
            if let Some(at) = retiring.iter().position(same) {
                plugins.push(retiring.swap_remove(at));
                continue;
            }
            let before =
                retiring.iter().find(|plugin| plugin.declaration().id == declaration.id).cloned();
            let plugin = self.start(declaration, before);
            new.push(Arc::clone(&plugin));
            plugins.push(plugin);
        }
        // They start beside one another.
        for plugin in &new {
            if let Err(reason) = plugin.attempted().await {
                retire(&new);
                let plugin = plugin.declaration().id.clone();
                return Err(ReloadRefused::Start { plugin, reason });
            }
        }
        let catalogue = Catalogue::new(plugins, Vec::new());
        Ok(Prepared { catalogue, replacement: Replacement { new, retiring } })
    }

    /// What was prepared holds by now: what it replaces ends when its calls have.
    pub(crate) fn replaced(&self, replacement: &Replacement) {
        for plugin in &replacement.new {
            self.gate(plugin);
        }
        retire(&replacement.retiring);
    }

    /// Ends all plugins; those that are not gone by the deadline end with this worker.
    pub(crate) async fn shut_down(&self, deadline: Instant) {
        let living =
            std::mem::take(&mut *self.living.lock().unwrap_or_else(PoisonError::into_inner));
        retire(&living);
        let gone = join_all(living.iter().map(|plugin| plugin.gone()));
        // Those that are left are killed when their tasks are dropped.
        let _ = tokio::time::timeout_at(deadline.into(), gone).await;
    }

    fn start(&self, declaration: Declaration, before: Option<Arc<Plugin>>) -> Arc<Plugin> {
        let program = Program::of(&declaration);
        // Two of an exclusive one do not run at a time; others may, so that calls find one of them.
        let before =
            before.filter(|before| declaration.exclusive || before.declaration().exclusive);
        let plugin = Arc::new(Plugin::new(declaration, program));
        let mut living = self.living.lock().unwrap_or_else(PoisonError::into_inner);
        living.retain(|plugin| !plugin.is_gone());
        living.push(Arc::clone(&plugin));
        drop(living);
        tokio::spawn(life::live(Arc::clone(&plugin), self.world.clone(), before));
        plugin
    }

    fn gate(&self, plugin: &Plugin) {
        if plugin.declaration().required {
            plugin.gate(self.readiness.follow(condition(&plugin.declaration().id)));
        }
    }
}

fn conflicts_of(declarations: &[Declaration]) -> Vec<Conflict> {
    conflicts(declarations, methods::BUNDLED.iter().map(|method| method.name))
}

fn retire(plugins: &[Arc<Plugin>]) {
    for plugin in plugins {
        plugin.retired.send_replace(true);
    }
}

/// What readiness calls a plugin.
fn condition(id: &str) -> String {
    format!("plugin:{id}")
}

fn id_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders that may be plugins, by name; none when there is no folder for them.
fn folders(folder: &Path) -> Result<Vec<PathBuf>, ReloadRefused> {
    let failed = |source| ReloadRefused::List { folder: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // What has a dot in front is nobody's plugin.
        if path.is_dir() && !id_of(&path).starts_with('.') {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}
