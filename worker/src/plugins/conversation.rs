//! A conversation with one life of a plugin: what it was asked, and who waits for which answer.
//!
//! ```text
//! ask, begin ─► outgoing ─► write ─► stdin          stdout ─► listen ─► the one who waits
//!    dropped ─► `cancel` ──┘                                    └─► a line that is none: over
//! ```
//!
//! **Invariants**
//! - Whoever waits is answered, or told that nobody will be: when the conversation is over, all are.
//! - Who no longer waits is forgotten, and the plugin told so.
//! - No lock is held while something is awaited, and what waits to be written is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handoff::chain;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};

use super::lines::Lines;
use super::spoken::{Course, Spoken};
use super::wire::{self, Fault, Said};

/// The longest line a plugin may say, in bytes.
pub(crate) const LONGEST_LINE: usize = 1024 * 1024;
/// So many messages may wait to be written.
const MOST_WAITING: usize = 256;

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The plugin said why.
    Fault(Fault),
    /// It was not asked: the conversation is over.
    NotAsked,
    /// It was asked, and is gone.
    Gone,
}

type Answer = Result<Box<RawValue>, Fault>;

/// One who waits.
#[derive(Debug)]
enum Waiting {
    ForAnswer(oneshot::Sender<Answer>),
    ForRun(Arc<Spoken>),
}

/// A conversation.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
    /// `None` once nothing more is said.
    outgoing: Option<mpsc::Sender<String>>,
}

impl Conversation {
    /// A conversation that begins; what is to be written comes out of the receiver.
    pub(super) fn open() -> (Arc<Self>, mpsc::Receiver<String>) {
        let (outgoing, written) = mpsc::channel(MOST_WAITING);
        let state = State { outgoing: Some(outgoing), ..State::default() };
        (Arc::new(Self { state: Mutex::new(state) }), written)
    }

    /// Asks something and waits for the answer. Dropped before that, the plugin is told that nobody waits.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(super) async fn ask(
        self: &Arc<Self>,
        method: &str,
        params: &impl Serialize,
    ) -> Result<Box<RawValue>, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let (place, outgoing) = self.enter(Waiting::ForAnswer(answer)).ok_or(NoAnswer::NotAsked)?;
        let line = wire::request(place.id, method, params);
        outgoing.send(line).await.map_err(|_| NoAnswer::NotAsked)?;
        drop(outgoing);
        let answer = answered.await.map_err(|_| NoAnswer::Gone)?;
        answer.map_err(NoAnswer::Fault)
    }

    /// Begins a run; what it says can be heard from the place until that is dropped. `None` when the
    /// conversation is over, or the plugin does not read what it is told.
    pub(super) fn begin(self: &Arc<Self>, harness: &str, message: &str) -> Option<RunPlace> {
        let spoken = Arc::<Spoken>::default();
        let (place, outgoing) = self.enter(Waiting::ForRun(Arc::clone(&spoken)))?;
        let params = json!({"run": place.id, "harness": harness, "message": message});
        outgoing.try_send(wire::request(place.id, "run", &params)).ok()?;
        Some(RunPlace { spoken, _place: place })
    }

    fn enter(self: &Arc<Self>, waiting: Waiting) -> Option<(Place, mpsc::Sender<String>)> {
        let mut state = self.state();
        let outgoing = state.outgoing.clone()?;
        state.last_id += 1;
        let id = state.last_id;
        state.waiting.insert(id, waiting);
        drop(state);
        Some((Place { conversation: Arc::clone(self), id }, outgoing))
    }

    /// Says nothing more: once what waits is written, the plugin's stdin is closed.
    pub(super) fn close(&self) {
        self.state().outgoing = None;
    }

    /// Nobody answers any more.
    pub(super) fn over(&self) {
        let mut state = self.state();
        state.outgoing = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for one in waiting.into_values() {
            if let Waiting::ForRun(spoken) = one {
                spoken.end(Err("the plugin ended before its answer was complete".to_owned()));
            }
        }
    }

    /// Passes on what the plugin says, until it cannot be understood or says nothing more; why that is.
    /// Cancel safe.
    pub(super) async fn listen(self: Arc<Self>, stdout: ChildStdout) -> String {
        let mut lines = Lines::new(BufReader::new(stdout), LONGEST_LINE);
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return "it has closed its stdout".to_owned(),
                Err(failed) => return chain(&failed),
            };
            match wire::read(line) {
                Ok(said) => self.hear(said),
                Err(unreadable) => {
                    return format!("it said what cannot be understood: {}", chain(&unreadable));
                }
            }
        }
    }

    fn hear(&self, said: Said) {
        match said {
            Said::Answer { id, answer } => match self.state().waiting.remove(&id) {
                Some(Waiting::ForAnswer(waiting)) => {
                    // Whoever asked may have given up just now.
                    let _ = waiting.send(answer);
                }
                Some(Waiting::ForRun(spoken)) => {
                    spoken.end(answer.map(drop).map_err(|fault| fault.message));
                }
                // It was given up.
                None => {}
            },
            Said::Delta { run, text } => {
                let spoken = match self.state().waiting.get(&run) {
                    Some(Waiting::ForRun(spoken)) => Arc::clone(spoken),
                    Some(Waiting::ForAnswer(_)) | None => return,
                };
                if spoken.say(&text) == Course::TooMuch {
                    self.forget(run);
                }
            }
            Said::Request { id } => self.mention(wire::not_found(&id)),
            Said::Nothing => {}
        }
    }

    /// Whoever waits for this does so no longer.
    fn forget(&self, id: u64) {
        if self.state().waiting.remove(&id).is_some() {
            self.mention(wire::notification("cancel", &json!({"id": id})));
        }
    }

    /// Says something, unless the plugin does not read.
    fn mention(&self, line: String) {
        if let Some(outgoing) = &self.state().outgoing {
            // Nobody waits for what this says.
            let _ = outgoing.try_send(line);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two of its operations leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one who waits; dropped, it is given up.
#[derive(Debug)]
struct Place {
    conversation: Arc<Conversation>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.conversation.forget(self.id);
    }
}

/// The place of a run.
#[derive(Debug)]
pub(super) struct RunPlace {
    /// What it says.
    pub(super) spoken: Arc<Spoken>,
    _place: Place,
}

/// Writes what is to be said, until there is no more or the plugin does not read; why that is.
pub(super) async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<String>) -> String {
    while let Some(line) = lines.recv().await {
        if let Err(error) = stdin.write_all(line.as_bytes()).await {
            return format!("it does not hear what it is told: {error}");
        }
    }
    "nothing more is said".to_owned()
}
