//! `plugins.list`, `plugins.reload`, and the methods that plugins answer.
//!
//! ```text
//! call ─► the plugin runs here ─► answered
//!   ├─► it was replaced ─► once more, by whoever has its method now
//!   └─► it runs where the writer lease is ─► asked over the link ─► answered, or not there either ─► looked again
//! ```
//!
//! **Invariants**
//! - A plugin that does not run is never an unknown method: its callers are told when to come back.
//! - A reload swaps the registry whole or leaves it as it is.

use std::sync::Arc;
use std::time::Duration;

use handoff::chain;
use handoff::migrate::Neighbour;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{Call, Knowledge, Refusal};
use crate::plugins::beside::{self, Passed, Word};
use crate::plugins::{NotHere, PluginMethod, Prepared, ReloadRefused};
use crate::registry::Dispatched;
use crate::shape::Shape;
use crate::state::config::Snapshot;

pub(super) static NO_PARAMS: Shape = Shape::Object(&[]);

/// How long a call looks for the generation that runs its plugin: the lease is on its way for less.
const LOOKS_FOR: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn list(call: Call) {
    let catalogue = call.registry.plugins();
    let mut plugins: Vec<Value> = catalogue.plugins().iter().map(|plugin| plugin.shown()).collect();
    plugins.extend(catalogue.left_out().iter().map(|left_out| {
        json!({
            "id": left_out.id, "state": "refused", "required": left_out.required,
            "error": left_out.reason,
        })
    }));
    call.reply.payload(&json!({"plugins": plugins}));
}

pub(super) async fn reload(knowledge: Arc<Knowledge>, call: Call) {
    // It is as little to be cut in half as any other change: whoever asked may be gone by its end.
    let outcome = reloaded(&knowledge).await;
    call.reply.outcome(outcome);
}

/// Reloads the plugins whenever the configuration has changed what it says of them; never ends.
pub(crate) async fn follow(knowledge: Arc<Knowledge>) {
    loop {
        knowledge.plugins.reload_wanted().await;
        if let Err(refusal) = reloaded(&knowledge).await {
            warn!(
                reason = refusal.message,
                "the configuration has changed which plugins are loaded"
            );
        }
    }
}

async fn reloaded(knowledge: &Knowledge) -> Result<Value, Refusal> {
    let plugins = &knowledge.plugins;
    let _alone = plugins.reloading.lock().await;
    let current = Arc::clone(knowledge.registry.load().plugins());
    let config = knowledge.config.load_full();
    let prepared = plugins
        .prepare(&current, |id| permits(&config, id))
        .await
        .map_err(|refused| refusal(&refused))?;
    let Prepared { catalogue, replacement } = prepared;
    knowledge.install(Arc::new(catalogue));
    plugins.replaced(&replacement);
    let answer = json!({"started": replacement.started(), "ended": replacement.ended()});
    info!(plugins = %answer, "the plugins were reloaded");
    Ok(answer)
}

fn refusal(refused: &ReloadRefused) -> Refusal {
    let words = format!("nothing was reloaded: {}", chain(refused));
    match refused {
        ReloadRefused::Declaration { .. } | ReloadRefused::Conflict { .. } => {
            Refusal::invalid(words)
        }
        ReloadRefused::List { .. } | ReloadRefused::Start { .. } => Refusal::unavailable(words),
    }
}

/// Whether a configuration has this plugin loaded.
pub(crate) fn permits(config: &Snapshot, id: &str) -> bool {
    let plugins = &config.settled.config().plugins;
    let named = |names: &[String]| names.iter().any(|name| name == id);
    plugins.enabled
        && !named(&plugins.deny)
        && (plugins.allow.is_empty() || named(&plugins.allow))
        && plugins.entries.get(id).is_none_or(|entry| entry.enabled != Some(false))
}

/// Answers a call of a plugin's method.
pub(crate) async fn call(knowledge: Arc<Knowledge>, method: PluginMethod, call: Call) {
    let outcome = match answered(&knowledge, &method, &call.params, &call.client).await {
        Err(NotHere::Gone) => {
            // It was replaced between the look at the registry and the look at it.
            let registry = knowledge.registry.load_full();
            match registry.method(&method.name) {
                Some(Dispatched::Plugin(method)) => {
                    answered(&knowledge, method, &call.params, &call.client).await
                }
                Some(Dispatched::Bundled(_)) | None => Err(NotHere::Gone),
            }
        }
        outcome => outcome,
    };
    call.reply.outcome(outcome.map_err(|not_here| match not_here {
        NotHere::Refused(refusal) => refusal,
        NotHere::Elsewhere | NotHere::Gone => method.plugin.unavailable_anywhere(),
    }));
}

/// Asks the plugin, wherever it runs.
async fn answered(
    knowledge: &Knowledge,
    method: &PluginMethod,
    params: &Value,
    client: &str,
) -> Result<Box<RawValue>, NotHere> {
    let given_up_at = Instant::now() + LOOKS_FOR;
    loop {
        match method.plugin.call(method, params, client).await {
            Err(NotHere::Elsewhere) => {}
            outcome => return outcome,
        }
        // The incumbent has the lease until the takeover is committed, and then its successor.
        for neighbour in [Neighbour::Incumbent, Neighbour::Successor] {
            let asked = (&*method.name, params, client);
            let Some(answer) = knowledge.plugins.beside().ask(neighbour, asked) else { continue };
            match timeout(method.timeout + LOOKS_FOR, answer).await {
                Ok(Ok(Passed::NotThere)) => {}
                Ok(Ok(Passed::Answered { result })) => {
                    return super::payload(&result).map_err(NotHere::Refused);
                }
                Ok(Ok(Passed::Refused { code, message, details, retry_after_ms })) => {
                    return Err(NotHere::Refused(Refusal {
                        code,
                        message,
                        details,
                        retry_after_ms,
                    }));
                }
                Ok(Err(_)) | Err(_) => return Err(NotHere::Refused(super::outcome_unknown())),
            }
        }
        if Instant::now() >= given_up_at {
            return Err(NotHere::Elsewhere);
        }
        sleep(LOOK).await;
    }
}

/// The generation beside has said something about plugins; `false` when it is about something else.
pub(crate) fn heard(knowledge: &Arc<Knowledge>, neighbour: Neighbour, text: &str) -> bool {
    match beside::read(text) {
        None => return false,
        Some(Word::PluginAnswer { ask, outcome }) => {
            knowledge.plugins.beside().answered(ask, outcome);
        }
        Some(Word::PluginCall { ask, method, params, client }) => {
            let knowledge = Arc::clone(knowledge);
            let seat = knowledge.runs.census().call("a plugin's method for the generation beside");
            tokio::spawn(async move {
                let outcome = answer_beside(&knowledge, &method, &params, &client).await;
                knowledge.plugins.beside().answer(neighbour, ask, outcome);
                drop(seat);
            });
        }
    }
    true
}

async fn answer_beside(
    knowledge: &Knowledge,
    method: &str,
    params: &Value,
    client: &str,
) -> Passed {
    let registry = knowledge.registry.load_full();
    let Some(Dispatched::Plugin(method)) = registry.method(method) else { return Passed::NotThere };
    match method.plugin.call(method, params, client).await {
        Ok(result) => match serde_json::from_str(result.get()) {
            Ok(result) => Passed::Answered { result },
            Err(error) => Passed::refused(Refusal::unavailable(format!(
                "could not read the plugin's answer: {error}"
            ))),
        },
        Err(NotHere::Refused(refusal)) => Passed::refused(refusal),
        Err(NotHere::Elsewhere | NotHere::Gone) => Passed::NotThere,
    }
}
