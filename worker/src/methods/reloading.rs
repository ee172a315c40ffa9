//! Making a changed configuration hold: the snapshot that methods read, and the registry that is made of it
//! and of the plugins.
//!
//! ```text
//! the watcher, an edit of our own, an unknown agent ─► look again ─► snapshot swapped ─► registry swapped
//! ```
//!
//! **Invariants**
//! - Whoever looks does so alone: what holds is never replaced by something older.
//! - The registry is replaced whole; nobody sees it without agents.

use std::error::Error;
use std::sync::{Arc, PoisonError};

use serde_json::Value;
use tracing::{info, warn};

use super::{Knowledge, Refusal};
use crate::agents::harness::Harness;
use crate::plugins::Catalogue;
use crate::registry::Registry;
use crate::state::config::{
    self, Base, Edit, EditFailed, Edited, Environment, KeyPath, Reloaded, Snapshot, Step,
};
use crate::state::reload::ReloadPlan;

impl Knowledge {
    /// Looks at the configuration's file, and makes what it says hold. It blocks for as long as reading takes.
    pub(crate) fn look_again(&self) {
        self.look_again_knowing(None);
    }

    fn look_again_knowing(&self, known: Option<Snapshot>) {
        let mut current = self.current_config.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match current.reload_knowing(known) {
            Reloaded::Unchanged => return,
            Reloaded::Changed(plan) => plan,
            Reloaded::Refused(unusable) => {
                let error = &unusable as &dyn Error;
                warn!(error, "the configuration cannot be used; the last good one holds");
                return;
            }
        };
        let snapshot = current.holds();
        // Ahead of the registry: whoever finds an agent there finds here where it works.
        self.config.store(Arc::clone(&snapshot));
        if plan != ReloadPlan::Nothing {
            self.token.follow(&snapshot.settled);
            self.registry.store(Arc::new(self.registry.load().remade(&snapshot)));
        }
        match plan {
            ReloadPlan::Nothing => {}
            ReloadPlan::Hot(ref paths) => {
                info!(%plan, "the configuration has changed");
                if paths.iter().any(is_of_plugins) {
                    self.plugins.want_reload();
                }
            }
            ReloadPlan::Takeover(_) => {
                warn!(%plan, "the configuration has changed where only a fresh worker helps");
                // One that waits already says enough; the fresh worker reads all of it.
                if let Some(wants_takeover) = &self.wants_takeover {
                    let _ =
                        wants_takeover.try_send(format!("the configuration has changed: {plan}"));
                }
            }
        }
    }

    /// Makes these plugins hold, with the agents of the configuration that holds then.
    pub(super) fn install(&self, catalogue: Arc<Catalogue>) {
        let current = self.current_config.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = self.registry.load().with_plugins(&current.holds(), catalogue);
        self.registry.store(Arc::new(registry));
    }

    /// Changes the configuration's file; what it says then holds when this returns. It blocks.
    pub(super) fn edit<E: Error + 'static>(
        &self,
        base: Base<'_>,
        change: impl FnOnce(&Value) -> Result<Value, E>,
    ) -> Result<Edited, EditFailed<E>> {
        self.edit_once_ready(base, change, || Ok(()))
    }

    /// The same, for a change that leads to something: nobody sees it before `ready` says that it is there.
    pub(super) fn edit_once_ready<E: Error + 'static>(
        &self,
        base: Base<'_>,
        change: impl FnOnce(&Value) -> Result<Value, E>,
        ready: impl FnOnce() -> Result<(), E>,
    ) -> Result<Edited, EditFailed<E>> {
        let (environment, known) = (self.environment(), self.config.load_full());
        let edit = Edit { base, known: Some(&known), change, ready };
        let mut edited = config::edit(&self.config_path, &environment, edit)?;
        self.look_again_knowing(edited.after.take());
        Ok(edited)
    }

    /// What configurations take from the environment.
    pub(super) fn environment(&self) -> Environment {
        let current = self.current_config.lock().unwrap_or_else(PoisonError::into_inner);
        current.environment().clone()
    }

    /// What runs an agent; one that is not known may have been made by somebody else just now.
    pub(crate) async fn harness(
        self: &Arc<Self>,
        registry: &Registry,
        agent: &str,
    ) -> Option<Harness> {
        if let Some(known) = registry.harness(agent) {
            return Some(known.clone());
        }
        self.apart(|knowledge| knowledge.look_again()).await.ok()?;
        self.registry.load().harness(agent).cloned()
    }

    /// Does what blocks where it may.
    pub(super) async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let knowledge = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&knowledge)).await;
        // A panic there has said why; whether anything was done is not known.
        done.map_err(|_| super::outcome_unknown())
    }
}

/// Whether a key says which plugins are loaded.
fn is_of_plugins(path: &KeyPath) -> bool {
    matches!(path.steps(), [Step::Key(section), ..] if section == "plugins")
}

/// Why an edit was not made, as clients are told.
pub(super) fn refusal<E: Error + 'static>(failed: &EditFailed<E>) -> Refusal {
    match failed {
        EditFailed::Refused { source } => Refusal::invalid(handoff::chain(source).to_string()),
        EditFailed::Lock { .. } | EditFailed::Read { .. } | EditFailed::Write { .. } => {
            Refusal::unavailable(handoff::chain(failed).to_string())
        }
        EditFailed::BaseRequired
        | EditFailed::BaseChanged
        | EditFailed::AlreadyInvalid { .. }
        | EditFailed::WouldBeInvalid { .. }
        | EditFailed::TooLarge => Refusal::invalid(failed.to_string()),
    }
}
