//! The workers' processes, as the front knows them: their pids, their links, what they last said.
//!
//! **Invariants**
//! - A worker is here from its start, or its adoption, until it is reaped *and* its last words are heard: it says how its
//!   drain went and exits, and SIGCHLD may overtake the link.
//! - The front keeps no end of a migration link, so each of the two workers sees the other's end
//!   close.

mod origin;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::handoff::fault::{self, Point};
use ::handoff::message::{Drained, GenerationId, Hello, OrphanEnded, Report, ToWorker};
use ::handoff::rescue::Rescued;
use ::handoff::{chain, link};
use nix::sys::signal::Signal::SIGKILL;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

pub(crate) use self::origin::{Killed, Origin};
use crate::age::ago;
use crate::attach::Applicant;
use crate::event::{Exit, Failure, Order};
use crate::handoff::{Conversation, Recalled, Word};
use crate::listener::Listeners;
use crate::program::Program;
use crate::rescue::Survivor;
use crate::spawn::{self, Spawned, Terms};

/// One worker. Written down it is what another image of the front has to know of it; its link goes beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Worker {
    #[serde(flatten)]
    pub(crate) origin: Origin,
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
            origin: self.origin.clone(),
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
    fn new(origin: Origin, started_at: Instant, conversation: Option<Conversation>) -> Self {
        Self {
            origin,
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
        self.living.insert(id, Worker::new(Origin::Child(pid), Instant::now(), conversation));
        Ok(())
    }

    /// Introduces the front to a worker that has attached itself.
    pub(crate) fn introduce_attached(
        &mut self,
        applicant: Applicant,
        hello: Hello,
        listeners: Arc<Listeners>,
        words: mpsc::Sender<Word>,
    ) {
        let id = hello.generation;
        let (peer, conversation) = applicant.introduce(hello, listeners, words);
        debug!(generation = %id, user = peer.user, program = peer.program, "attached");
        let origin = Origin::Attached(peer);
        self.living.insert(id, Worker::new(origin, Instant::now(), Some(conversation)));
    }

    /// Goes on with a worker that had attached itself and lost its link.
    pub(crate) fn take_back(
        &mut self,
        applicant: Applicant,
        account: &Rescued,
        words: mpsc::Sender<Word>,
    ) {
        let (peer, conversation) = applicant.take_back(account.generation, words);
        let born_at = ago(Duration::from_millis(account.age_ms));
        let mut worker = Worker::new(Origin::Attached(peer), born_at, Some(conversation));
        worker.hears_of_orphans = account.hears_of_orphans;
        self.living.insert(account.generation, worker);
    }

    /// Goes on with a worker that an earlier front has started, or that had attached itself to it.
    pub(crate) fn adopt(&mut self, survivor: Survivor, words: &mpsc::Sender<Word>) {
        let id = survivor.account.generation;
        let started_at = survivor.started_at();
        let Survivor { origin, link, account, .. } = survivor;
        if let Origin::Adopted(process) = &origin {
            process.watch(id, words.clone());
        }
        let mut worker = Worker::new(origin, started_at, None);
        worker.hears_of_orphans = account.hears_of_orphans;
        let recalled = Recalled { link, unsent: VecDeque::new() };
        self.resume(id, worker, Some(recalled), words.clone());
    }

    /// Sees to it that the ends of those that are no children are noticed by another image of the front, too.
    pub(crate) fn watch_adopted(&mut self, words: &mpsc::Sender<Word>) {
        for (id, worker) in &mut self.living {
            if let Origin::Adopted(adopted) = &mut worker.origin
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

    /// Ends a worker at once, with its process group, unless it is reaped: its pid may be another's then. One that has
    /// attached itself is told to leave; when it does not, it is let go of.
    pub(crate) fn kill(&mut self, id: GenerationId) -> Killed {
        let Some(worker) = self.living.get_mut(&id).filter(|worker| worker.exit.is_none()) else {
            return Killed::WillEnd;
        };
        match &mut worker.origin {
            Origin::Child(pid) => spawn::kill_group(*pid),
            Origin::Adopted(process) => process.kill_group(),
            Origin::Attached(peer) => match &worker.conversation {
                Some(conversation) if !peer.dismissed => {
                    peer.dismissed = true;
                    let reason = "it is not to serve, or not any more; the front's log says why";
                    conversation.tell(ToWorker::Dismiss { reason: reason.to_owned() });
                }
                // What it was told is in its queue; it meets the end of the link behind it.
                Some(_) | None => return Killed::LetGo,
            },
        }
        Killed::WillEnd
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

    /// A worker's link has ended. Nothing more is heard over it, so that its end is not taken for that of the next one.
    pub(crate) fn end_conversation(&mut self, id: GenerationId) {
        if let Some(worker) = self.living.get_mut(&id) {
            if let Some(conversation) = worker.conversation.take() {
                conversation.task.abort();
            }
            worker.asked.clear();
            if let Origin::Attached(_) = worker.origin {
                // The link is all there is of it.
                worker.exit.get_or_insert(Exit::Unknown);
            }
        }
    }

    /// Which worker a child is, if it is one.
    pub(crate) fn with_pid(&self, pid: Pid) -> Option<GenerationId> {
        let is_it =
            |w: &Worker| w.exit.is_none() && matches!(w.origin, Origin::Child(p) if p == pid);
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

/// The policy's word, as it is said to a worker.
pub(crate) const fn to_worker(order: Order) -> ToWorker {
    match order {
        Order::Admit => ToWorker::Admit,
        Order::StopAccepting => ToWorker::StopAccepting,
        Order::Drain(drain) => ToWorker::Drain(drain),
        Order::Lease { epoch } => ToWorker::Lease { epoch },
        Order::Reaped { generation } => ToWorker::Reaped { generation },
    }
}
