//! One plugin, as everybody but its own task sees it: where it stands, and how it is asked.
//!
//! ```text
//!            ┌──────────────── rested ─────────────────┐
//!            ▼                                         │
//! Elsewhere ⇄ Starting ─► Running ─► died ─► Resting ──┘        retired ─► Gone
//!  (exclusive, and the lease is not here)
//! ```
//!
//! **Invariants**
//! - A call counts from before it looks where the plugin stands until it is answered: whoever ends a plugin first
//!   waits until nothing counts.
//! - A plugin that does not run is no unknown method: its callers are told when to come back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::catalogue::PluginMethod;
use super::conversation::{Conversation, NoAnswer, RunPlace};
use super::declaration::Declaration;
use super::program::Program;
use crate::refusal::{Code, Refusal};
use crate::serve::Gauge;

/// How long a call waits for a plugin that starts.
const PATIENCE: Duration = Duration::from_secs(5);
/// When to come back, where nobody knows.
const COME_BACK: Duration = Duration::from_millis(500);

/// Where a plugin stands.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// It is being started.
    Starting,
    /// It answers.
    Running(Arc<Conversation>),
    /// It has died, and is started again.
    Resting { until: Instant, reason: String },
    /// It may run only where the writer lease is.
    Elsewhere,
    /// It is not started again.
    Gone,
}

impl Standing {
    const fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running(_) => "running",
            Self::Resting { .. } => "resting",
            Self::Elsewhere => "elsewhere",
            Self::Gone => "gone",
        }
    }
}

/// A plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    declaration: Declaration,
    program: Program,
    standing: watch::Sender<Standing>,
    /// Calls and runs under way.
    in_use: watch::Sender<usize>,
    pub(super) retired: watch::Sender<bool>,
    gauge: Mutex<Option<Gauge>>,
}

/// Why a call has no answer here.
#[derive(Debug)]
pub(crate) enum NotHere {
    /// It is to be asked where the writer lease is.
    Elsewhere,
    /// It was replaced.
    Gone,
    /// This is the answer.
    Refused(Refusal),
}

impl Plugin {
    /// A plugin that nobody has started yet.
    pub(super) fn new(declaration: Declaration, program: Program) -> Self {
        let standing = if declaration.exclusive { Standing::Elsewhere } else { Standing::Starting };
        Self {
            declaration,
            program,
            standing: watch::Sender::new(standing),
            in_use: watch::Sender::new(0),
            retired: watch::Sender::new(false),
            gauge: Mutex::default(),
        }
    }

    /// What it says of itself.
    pub(crate) const fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// Whether it is what this declaration and this program are.
    pub(super) fn is(&self, declaration: &Declaration, program: &Program) -> bool {
        self.declaration == *declaration && self.program == *program && !self.is_gone()
    }

    /// Asks it to answer a call.
    ///
    /// # Errors
    /// [`NotHere`].
    pub(crate) async fn call(
        &self,
        method: &PluginMethod,
        params: &Value,
        client: &str,
    ) -> Result<Box<RawValue>, NotHere> {
        let _in_use = self.in_use();
        let conversation = self.conversation().await?;
        let params = json!({"method": method.name, "params": params, "client": client});
        let asked = conversation.ask("call", &params);
        match tokio::time::timeout(method.timeout, asked).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(NoAnswer::Fault(fault))) => {
                let code =
                    if fault.is_passing() { Code::Unavailable } else { Code::InvalidRequest };
                let refusal = Refusal { code, ..Refusal::invalid(fault.message) };
                let details = json!({"plugin": self.declaration.id, "code": fault.code});
                Err(NotHere::Refused(refusal.with_details(details)))
            }
            Ok(Err(NoAnswer::NotAsked)) => Err(self.comes_back(COME_BACK)),
            Ok(Err(NoAnswer::Gone)) => Err(NotHere::Refused(Refusal::unavailable(format!(
                "the plugin {:?} ended before it answered; whether it was done is unknown",
                self.declaration.id
            )))),
            Err(_) => Err(NotHere::Refused(Refusal::unavailable(format!(
                "the plugin {:?} did not answer within {:?}; whether it was done is unknown",
                self.declaration.id, method.timeout
            )))),
        }
    }

    /// The conversation with the plugin that runs; one that is being started is waited for.
    async fn conversation(&self) -> Result<Arc<Conversation>, NotHere> {
        let mut standing = self.standing.subscribe();
        let started = standing.wait_for(|standing| !matches!(standing, Standing::Starting));
        let standing = match tokio::time::timeout(PATIENCE, started).await {
            Ok(Ok(standing)) => standing.clone(),
            Ok(Err(_)) => return Err(NotHere::Gone),
            Err(_) => Standing::Starting,
        };
        match standing {
            Standing::Running(conversation) => Ok(conversation),
            Standing::Starting => Err(self.comes_back(COME_BACK)),
            Standing::Resting { until, .. } => {
                Err(self.comes_back(until.saturating_duration_since(Instant::now())))
            }
            Standing::Elsewhere => Err(NotHere::Elsewhere),
            Standing::Gone => Err(NotHere::Gone),
        }
    }

    fn comes_back(&self, after: Duration) -> NotHere {
        NotHere::Refused(self.unavailable(after))
    }

    /// What is answered while the plugin does not run.
    pub(crate) fn unavailable(&self, after: Duration) -> Refusal {
        let words = format!("the plugin {:?} is not running; retry shortly", self.declaration.id);
        Refusal::unavailable(words).retry_after(after.max(Duration::from_millis(50)))
    }

    /// What is answered where nobody knows who runs it.
    pub(crate) fn unavailable_anywhere(&self) -> Refusal {
        self.unavailable(COME_BACK)
    }

    /// Begins a run of one of its harnesses, once it runs.
    pub(super) async fn begin(&self, harness: &str, message: &str) -> Result<RunPlace, String> {
        let mut standing = self.standing.subscribe();
        let runs = |standing: &Standing| matches!(standing, Standing::Running(_) | Standing::Gone);
        let standing = tokio::time::timeout(PATIENCE, standing.wait_for(runs)).await;
        let place = match standing.as_ref().map(Result::as_deref) {
            Ok(Ok(Standing::Running(conversation))) => conversation.begin(harness, message),
            _ => None,
        };
        place.ok_or_else(|| format!("the plugin {:?} is not running", self.declaration.id))
    }

    /// Counts until it is dropped.
    pub(super) fn in_use(&self) -> InUse {
        self.in_use.send_modify(|in_use| *in_use += 1);
        InUse(self.in_use.clone())
    }

    /// Whether nothing counts.
    pub(super) fn is_idle(&self) -> bool {
        *self.in_use.borrow() == 0
    }

    /// Ends when nothing counts. Cancel safe.
    pub(super) async fn idle(&self) {
        // The sender is here, so it cannot be gone.
        let _ = self.in_use.subscribe().wait_for(|in_use| *in_use == 0).await;
    }

    /// Where it stands from now on.
    pub(super) fn stand(&self, standing: Standing) {
        self.standing.send_replace(standing);
        self.measure();
    }

    /// From now on nobody is to be served without it, as far as this gauge can say.
    pub(super) fn gate(&self, gauge: Gauge) {
        *self.gauge.lock().unwrap_or_else(PoisonError::into_inner) = Some(gauge);
        self.measure();
    }

    fn measure(&self) {
        let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        match &*self.standing.borrow() {
            Standing::Running(_) | Standing::Elsewhere => {
                if let Some(gauge) = &*gauge {
                    gauge.holds();
                }
            }
            Standing::Resting { .. } => {
                if let Some(gauge) = &*gauge {
                    gauge.fails();
                }
            }
            // As before: one that comes after a death fails still, and one that has never run has not held yet.
            Standing::Starting => {}
            Standing::Gone => *gauge = None,
        }
    }

    /// Ends when its first start has succeeded or failed, and says why it did not. Cancel safe.
    pub(super) async fn attempted(&self) -> Result<(), String> {
        let mut standing = self.standing.subscribe();
        let over = standing.wait_for(|standing| !matches!(standing, Standing::Starting)).await;
        match over.as_deref() {
            Ok(Standing::Resting { reason, .. }) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// Ends when it is gone. Cancel safe.
    pub(super) async fn gone(&self) {
        let mut standing = self.standing.subscribe();
        // The sender is here, so it cannot be gone.
        let _ = standing.wait_for(|standing| matches!(standing, Standing::Gone)).await;
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Gone)
    }

    /// Why it does not run at the moment, when it has died or could not start.
    pub(crate) fn resting(&self) -> Option<String> {
        match &*self.standing.borrow() {
            Standing::Resting { reason, .. } => Some(reason.clone()),
            Standing::Starting | Standing::Running(_) | Standing::Elsewhere | Standing::Gone => {
                None
            }
        }
    }

    /// How it is, for whoever asks.
    pub(crate) fn shown(&self) -> Value {
        let declared = &self.declaration;
        let names: Vec<&str> = declared.methods.iter().map(|method| &*method.name).collect();
        let standing = self.standing.borrow();
        let mut shown = json!({
            "id": declared.id,
            "state": standing.name(),
            "required": declared.required,
            "exclusive": declared.exclusive,
            "methods": names,
            "harnesses": declared.harnesses,
            "inFlight": *self.in_use.borrow(),
        });
        if let Standing::Resting { reason, .. } = &*standing {
            shown["error"] = json!(reason);
        }
        shown
    }
}

/// Something that counts.
#[derive(Debug)]
pub(super) struct InUse(watch::Sender<usize>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.send_modify(|in_use| *in_use -= 1);
    }
}
