//! The workers' processes, as the front knows them: their pids, their links, what they last said.
//!
//! **Invariants**
//! - A worker is here from its start, or its adoption, until it is reaped *and* its last words are heard: it says how its
//!   drain went and exits, and SIGCHLD may overtake the link.
//! - The front keeps no end of a migration link, so each of the two workers sees the other's end
//!   close.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use ::handoff::fault::{self, Point};
use ::handoff::message::{Drained, GenerationId, Hello, OrphanEnded, Report, ToWorker};
use ::handoff::{chain, link};
use nix::sys::signal::Signal::SIGKILL;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::adoption::Adopted;
use crate::event::{Exit, Failure};
use crate::handoff::{Conversation, Recalled, Word};
use crate::listener::Listeners;
use crate::program::Program;
use crate::rescue::Survivor;
use crate::spawn::{self, Spawned, Terms};

/// One worker's process. Written down it is what another image of the front has to know of it; its link goes
/// beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Worker {
    #[serde(with = "pid")]
    pub(crate) pid: Pid,
    /// Set for one that an earlier front has started: it is no child of this process.
    #[serde(default)]
    adopted: Option<Adopted>,
    #[serde(with = "crate::age")]
    pub(crate) started_at: Instant,
    /// `None` once its link has ended.
    #[serde(skip)]
    conversation: Option<Conversation>,
    /// Set once it is reaped, while its last words are awaited.
    exit: Option<Exit>,
    /// What it last said of itself.
    pub(crate) report: Report,
    /// Who waits for it to say so again.
    #[serde(skip)]
    asked: Vec<oneshot::Sender<Report>>,
    pub(crate) drained: Option<Drained>,
    pub(crate) greeting: Vec<String>,
    /// Whether it asked to be told of adopted processes.
    pub(crate) hears_of_orphans: bool,
    /// Its wish to be replaced, if it has one.
    #[serde(default)]
    pub(crate) wish: Option<Wish>,
}

/// A worker's wish to be replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub(crate) reason: String,
    /// How many takeovers were asked for because of it.
    pub(crate) asked: u32,
}

impl Worker {
    /// What is written down of it.
    pub(crate) fn without_conversation(&self) -> Self {
        Self {
            pid: self.pid,
            adopted: self.adopted.clone(),
            started_at: self.started_at,
            conversation: None,
            exit: self.exit,
            report: self.report.clone(),
            asked: Vec::new(),
            drained: self.drained,
            greeting: self.greeting.clone(),
            hears_of_orphans: self.hears_of_orphans,
            wish: self.wish.clone(),
        }
    }
}

/// Every worker that is not buried.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    living: BTreeMap<GenerationId, Worker>,
}

impl Worker {
    fn new(pid: Pid, started_at: Instant, conversation: Option<Conversation>) -> Self {
        Self {
            pid,
            adopted: None,
            started_at,
            conversation,
            exit: None,
            report: Report::default(),
            asked: Vec::new(),
            drained: None,
            greeting: Vec::new(),
            hears_of_orphans: false,
            wish: None,
        }
    }

    /// The process, if it is not a child of this one.
    pub(crate) const fn adopted(&self) -> Option<&Adopted> {
        self.adopted.as_ref()
    }
}

impl Workers {
    /// Starts a worker and introduces the front to it.
    ///
    /// # Errors
    /// [`Failure::NotStarted`], with the whole reason.
    pub(crate) fn start(
        &mut self,
        program: &Program,
        terms: &Terms,
        hello: Hello,
        listeners: Arc<Listeners>,
        words: mpsc::Sender<Word>,
    ) -> Result<(), Failure> {
        let id = hello.generation;
        let Spawned { pid, link } = spawn::spawn(program, terms)
            .map_err(|error| Failure::NotStarted { reason: chain(&error) })?;
        fault::reach(Point::Spawned);
        // Without a conversation its deadline to be ready passes.
        let conversation = Conversation::begin(link, hello, listeners, words)
            .inspect_err(|error| warn!(generation = %id, %error, "could not use the link"))
            .ok();
        debug!(generation = %id, pid = pid.as_raw(), program = %program, "spawned");
        self.living.insert(id, Worker::new(pid, Instant::now(), conversation));
        Ok(())
    }

    /// Goes on with a worker that an earlier front has started.
    pub(crate) fn adopt(&mut self, survivor: Survivor, words: &mpsc::Sender<Word>) {
        let id = survivor.account.generation;
        let mut worker = Worker::new(survivor.process.pid(), survivor.started_at(), None);
        let Survivor { process, link, account, .. } = survivor;
        worker.hears_of_orphans = account.hears_of_orphans;
        process.watch(id, words.clone());
        worker.adopted = Some(process);
        let recalled = Recalled { link, unsent: VecDeque::new() };
        self.resume(id, worker, Some(recalled), words.clone());
    }

    /// Sees to it that the ends of those that are no children are noticed by another image of the front, too.
    pub(crate) fn watch_adopted(&mut self, words: &mpsc::Sender<Word>) {
        for (id, worker) in &mut self.living {
            if let Some(adopted) = &mut worker.adopted
                && worker.exit.is_none()
            {
                adopted.reopen();
                adopted.watch(*id, words.clone());
            }
        }
    }

    /// Goes on with a worker that another image of the front knew, over the link that it had with it.
    pub(crate) fn resume(
        &mut self,
        id: GenerationId,
        mut worker: Worker,
        recalled: Option<Recalled>,
        words: mpsc::Sender<Word>,
    ) {
        // Without a conversation the deadline of whatever it is told passes.
        worker.conversation = recalled.and_then(|recalled| {
            Conversation::resume(recalled, id, words)
                .inspect_err(|error| warn!(generation = %id, %error, "could not use the link"))
                .ok()
        });
        self.living.insert(id, worker);
    }

    /// Goes on with the link of a worker that is here already.
    pub(crate) fn reconnect(
        &mut self,
        id: GenerationId,
        recalled: Recalled,
        words: mpsc::Sender<Word>,
    ) {
        if let Some(worker) = self.living.remove(&id) {
            self.resume(id, worker, Some(recalled), words);
        }
    }

    /// Takes the conversation with each worker that has one, for it to be recalled.
    pub(crate) fn take_conversations(&mut self) -> Vec<(GenerationId, Conversation)> {
        self.living
            .iter_mut()
            .filter_map(|(id, worker)| Some((*id, worker.conversation.take()?)))
            .collect()
    }

    /// Every worker that is not buried.
    pub(crate) const fn all(&self) -> &BTreeMap<GenerationId, Worker> {
        &self.living
    }

    pub(crate) fn get(&self, id: GenerationId) -> Option<&Worker> {
        self.living.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: GenerationId) -> Option<&mut Worker> {
        self.living.get_mut(&id)
    }

    /// Tells a worker something, if its link still stands.
    pub(crate) fn tell(&self, id: GenerationId, order: ToWorker) {
        if let Some(conversation) = self.conversation(id) {
            conversation.tell(order);
        }
    }

    /// Tells whoever asked for it that an adopted process has ended.
    pub(crate) fn tell_of_orphan(&self, pid: Pid, exit: Exit) {
        let (code, signal) = match exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
            Exit::OutOfMemory => (None, Some(SIGKILL as i32)),
            Exit::Unknown => (None, None),
        };
        let ended = OrphanEnded { pid: pid.as_raw(), code, signal };
        for worker in self.living.values().filter(|worker| worker.hears_of_orphans) {
            if let Some(conversation) = &worker.conversation {
                conversation.mention(ToWorker::OrphanEnded(ended));
            }
        }
    }

    /// Gives two workers an end each of a link of their own.
    pub(crate) fn introduce(&self, incumbent: GenerationId, successor: GenerationId) {
        let (Some(to_incumbent), Some(to_successor)) =
            (self.conversation(incumbent), self.conversation(successor))
        else {
            return;
        };
        match link::pair() {
            Ok((one, other)) => {
                to_successor.hand(ToWorker::MigrateFrom { incumbent }, Some(one));
                to_incumbent.hand(ToWorker::MigrateTo { successor }, Some(other));
            }
            Err(error) => warn!(%error, "connections stay: no migration link could be made"),
        }
    }

    /// Ends a worker's process group at once, unless it is reaped: its pid may be another's then.
    pub(crate) fn kill(&self, id: GenerationId) {
        if let Some(worker) = self.living.get(&id)
            && worker.exit.is_none()
        {
            match &worker.adopted {
                Some(adopted) => adopted.kill_group(),
                None => spawn::kill_group(worker.pid),
            }
        }
    }

    /// Asks a worker how it is.
    pub(crate) fn ask(&mut self, id: GenerationId, reply: oneshot::Sender<Report>) {
        if let Some(worker) = self.living.get_mut(&id)
            && let Some(conversation) = &worker.conversation
        {
            worker.asked.retain(|asked| !asked.is_closed());
            worker.asked.push(reply);
            conversation.tell(ToWorker::Report);
        }
    }

    /// A worker said how it is.
    pub(crate) fn reported(&mut self, id: GenerationId, report: Report) {
        if let Some(worker) = self.living.get_mut(&id) {
            for asked in worker.asked.drain(..) {
                // Whoever asked may have left.
                let _ = asked.send(report.clone());
            }
            worker.report = report;
        }
    }

    /// A worker's link has ended.
    pub(crate) fn end_conversation(&mut self, id: GenerationId) {
        if let Some(worker) = self.living.get_mut(&id) {
            worker.conversation = None;
            worker.asked.clear();
        }
    }

    /// Which worker a child is, if it is one.
    pub(crate) fn with_pid(&self, pid: Pid) -> Option<GenerationId> {
        let is_it = |w: &Worker| w.pid == pid && w.exit.is_none() && w.adopted.is_none();
        self.living.iter().find(|(_, worker)| is_it(worker)).map(|(id, _)| *id)
    }

    /// A worker was reaped.
    pub(crate) fn reaped(&mut self, id: GenerationId, exit: Exit) {
        if let Some(worker) = self.living.get_mut(&id) {
            worker.exit = Some(exit);
        }
    }

    /// How a worker ended, once it is reaped and has said its last word.
    pub(crate) fn end_of(&self, id: GenerationId) -> Option<Exit> {
        let worker = self.living.get(&id).filter(|worker| worker.conversation.is_none())?;
        worker.exit
    }

    /// Forgets a worker.
    pub(crate) fn bury(&mut self, id: GenerationId) {
        self.living.remove(&id);
    }

    fn conversation(&self, id: GenerationId) -> Option<&Conversation> {
        self.living.get(&id)?.conversation.as_ref()
    }
}

/// A process id is a number.
mod pid {
    use nix::unistd::Pid;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(pid: &Pid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(pid.as_raw())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pid, D::Error> {
        i32::deserialize(deserializer).map(Pid::from_raw)
    }
}
